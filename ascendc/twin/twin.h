// The C interface of the twin: launch a kernel by name, read what was found. No Python, no torch, no CANN.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TW_TWIN_ABI_VERSION 2
#define TW_TWIN_MAX_ARGS 24

typedef enum tw_twin_arg_kind {
  TW_TWIN_BUFFER = 0,  // a GM_ADDR: `data`, of `bytes` bytes
  TW_TWIN_SCALAR = 1,  // an integer of up to 8 bytes, passed by value, in `value`
  TW_TWIN_FLOAT = 2,   // a float, its bits in the low half of `value`
} tw_twin_arg_kind;

// Buffers are given with their sizes so that access outside of them is found. `name` appears in findings.
typedef struct tw_twin_arg {
  const char* name;
  void* data;
  uint64_t bytes;
  uint64_t value;
  int32_t kind;
} tw_twin_arg;

typedef enum tw_twin_flags {
  TW_TWIN_SKIP_DATA = 1,     // check and count every instruction, move and compute nothing
  TW_TWIN_APPEND_TRACE = 2,  // add to the trace file; without it a launch starts the file anew
  TW_TWIN_AUTO_SYNC = 4,     // as CANN's compiler by default: V with V, and the scalar unit with other pipes
  TW_TWIN_NO_HAZARDS = 8,    // do not look for races and reads of unwritten memory
} tw_twin_flags;

typedef struct tw_twin_result tw_twin_result;

typedef struct tw_twin_launch {
  uint32_t abi_version;  // TW_TWIN_ABI_VERSION
  uint32_t flags;
  const char* library;  // shared object that holds the kernel; NULL: the one that holds the twin
  const char* kernel;   // its extern "C" name
  const char* soc;      // "910b1".. "910b4", "910_93"
  const tw_twin_arg* args;
  uint32_t arg_count;
  uint32_t block_dim;      // may exceed the number of cores
  int32_t threads;         // host threads; <= 0: all
  uint32_t max_findings;   // kept per core; 0: 64
  const char* trace_path;  // NULL, or a file that receives every call counted, one JSON object a line
  const char* schedule;    // NULL or "program", "timeline", "random"
  uint64_t seed;           // of the random schedule
  uint32_t task_type;    // for a kernel that does not say: 0 as it turns out, 1 AIC only, 2 AIV only, 5 mixed
                         // 1:1, 6 mixed 1:2
  uint64_t gm_accesses;  // to global memory, of all cores, in which races are looked for; 0: some 4 million
  tw_twin_result** result;  // receives a handle to free with tw_twin_result_free; may be NULL
} tw_twin_launch;

typedef struct tw_twin_finding {
  const char* kind;
  const char* message;
  const char* file;
  int32_t line;
  int32_t block;
  const char* pipe;
  const char* memory;   // "" where none is concerned
  uint64_t begin, end;  // bytes touched in that memory; GM: offsets in the buffer named by the message
  uint64_t allowed_begin, allowed_end;
  uint64_t count;          // how often this line made it
  const char* other_file;  // the earlier access or call, where two are concerned; else NULL
  int32_t other_line;
  const char* other_pipe;
  const char* missing;  // the flag or barrier that would order the two, or ""
  const char* core;     // "aic" or "aiv" in a mixed kernel, else ""
} tw_twin_finding;

// 0: ran without findings; 1: ran, with findings; 2: could not run, tw_twin_error says why.
int tw_twin_run(const tw_twin_launch* launch);
const char* tw_twin_error(void);

// As tw_twin_run, with a kernel that is called as call(context) on every block instead of by its name;
// launch->args give the buffers it may touch.
int tw_twin_run_call(const tw_twin_launch* launch, void (*call)(void*), void* context);
// Calls host code on this thread; every kernel<<<...>>>(...) in it runs on the twin with the soc, the flags
// and the buffers of `launch`, whose kernel and block_dim are not looked at. 2 also where the host code
// crashed.
int tw_twin_run_host(const tw_twin_launch* launch, void (*host)(void*), void* context);
// What the launches of this thread's last tw_twin_run_host gave: a JSON list of their documents.
const char* tw_twin_host_json(void);
const char* tw_twin_host_error(void);

size_t tw_twin_result_findings(const tw_twin_result* result, const tw_twin_finding** findings);
// Instructions issued, those that move nothing included, by names such as "MTE1" and "Load2d"; NULL matches
// all.
uint64_t tw_twin_result_count(const tw_twin_result* result, const char* pipe, const char* op);
// Highest byte touched or reserved on any core; memory is one of l1, l0a, l0b, l0c, ub, bt, fb.
uint64_t tw_twin_result_peak(const tw_twin_result* result, const char* memory);
// Findings, counts, peaks and bytes written by each pipe to each memory as one JSON document, owned by the
// result.
const char* tw_twin_result_json(const tw_twin_result* result);
void tw_twin_result_free(tw_twin_result* result);

// A parameter set as JSON, owned by the twin; NULL for an unknown name.
const char* tw_twin_soc_json(const char* soc);

#ifdef __cplusplus
}
#endif
