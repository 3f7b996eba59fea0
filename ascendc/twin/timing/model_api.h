// The C interface of the cycle model: how long a launch would take, from the instructions of some of its
// blocks. Nothing here is measured.
#pragma once

#include "twin.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tw_model_launch {
  const tw_twin_launch* launch;  // the kernel, as for tw_twin_run
  const uint32_t* blocks;        // blocks to run; each stands for `times` blocks like it
  const uint32_t* times;
  uint32_t block_count;    // 0: every block, each for itself
  uint32_t passes;         // at most; 0: as many as the shared memory needs to settle
  const char* constants;   // NULL, or "name=value,..." in place of the table's
  const char* trace_path;  // NULL, or a file that receives a Chrome trace of the blocks run
  uint32_t trace_events;   // kept per block; 0: 20000
  uint32_t warm;           // a bit a buffer: its first reads hit L2
} tw_model_launch;

// 0: tw_model_json has the answer; 2: could not run, tw_twin_error or tw_model_json says why. The text
// belongs to the thread and holds until its next call.
int tw_model_run(const tw_model_launch* launch);
const char* tw_model_json(void);
// The constants: name, value, unit, source.
const char* tw_model_constants(void);

#ifdef __cplusplus
}
#endif
