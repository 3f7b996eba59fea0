// Loops that reach what one level's instructions can do at most; timed by ceilings.cpp.
#pragma once

#include <stdint.h>

namespace tw::ceilings {

struct Loops {
  int64_t ops_per_step[4];            // operations (2 per multiply-add) of one step: fp32, bf16, fp16, int8
  void (*compute[4])(int64_t steps);  // same order
  int64_t bytes_per_step;             // of read and write
  void (*read)(const char* data, int64_t bytes);  // bytes: a multiple of bytes_per_step
  void (*write)(char* data, int64_t bytes);
};

}  // namespace tw::ceilings
