// What host.cpp (checks and threads, baseline code) knows of host_simd.cpp (compiled once per ISA level).
#pragma once

#include <cstdint>

#include "_rows/host_rows.hpp"

namespace tw::silu_mul {

// `count` elements side by side of a row's two halves. `y` may be either.
struct Run {
  const char *gate, *up;
  char* y;
  int64_t count;
  bool stream;  // y past the caches: it begins on a line; the caller fences
};

struct KernelTable {
  void (*multiply[rows::kKinds])(const Run&);
};

}  // namespace tw::silu_mul
