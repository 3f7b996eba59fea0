// What host.cpp (checks and threads, baseline code) knows of host_simd.cpp (compiled once per ISA level).
#pragma once

#include <stdint.h>

namespace tw::rope {

enum Kind : int { kF32 = 0, kBF16 = 1, kF16 = 2 };
constexpr int kKinds = 3;

// Heads of one token, channels contiguous; strides in elements. `y` may be `x`.
struct Heads {
  const char* x;
  char* y;
  int64_t count, x_stride, y_stride;
  int64_t channels, turned;  // D and ROT
  const float* cos_sin;      // the token's row: turned/2 cosines, then as many sines
  float* room;               // 2 * turned floats
};

struct KernelTable {
  void (*neox[kKinds])(const Heads&);
  void (*gptj[kKinds])(const Heads&);
};

}  // namespace tw::rope
