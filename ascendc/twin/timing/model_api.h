// The C interface of the cycle model: how long a launch would take, from the instructions of some of its
// blocks. Nothing here is measured.
//
//   tw_model_begin(&options);
//   do tw_twin_run(&launch); while (tw_model_settle() == 0);   // with TW_TWIN_SKIP_DATA
//   puts(tw_model_json());
//   tw_model_end();
//
// All of it on one thread: the model belongs to the thread that began it.
#pragma once

#include "twin.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tw_model_options {
  const uint32_t* blocks;  // of the next launches, the blocks that run; each stands for `times` like it
  const uint32_t* times;
  uint32_t block_count;   // 0: every block, each for itself
  uint32_t warm;          // a bit a GM buffer: its first reads hit L2
  const char* constants;  // NULL, or "name=value,..." in place of the table's
  uint32_t trace_events;  // instructions kept of each core for tw_model_trace
} tw_model_options;

// 0, or 2: tw_model_json says what is wrong with the options.
int tw_model_begin(const tw_model_options* options);
// After a launch: 1 where another pass would change little.
int tw_model_settle(void);
// The answer as JSON; the text holds until the thread's next call.
const char* tw_model_json(void);
// Writes a Chrome trace, which ui.perfetto.dev opens; 0, or 2 where the file cannot be written.
int tw_model_trace(const char* path);
void tw_model_end(void);
// The constants: name, value, unit, source.
const char* tw_model_constants(void);

#ifdef __cplusplus
}
#endif
