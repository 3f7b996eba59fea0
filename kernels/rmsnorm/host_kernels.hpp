// What host.cpp (checks and threads, baseline code) knows of host_simd.cpp (compiled once per ISA level).
#pragma once

#include <cstdint>

#include "_rows/host_rows.hpp"

namespace tw::rmsnorm {

// One row, elements side by side. `residual` and `h` are null together. Outputs may be inputs.
struct Row {
  const char *x, *weight, *residual;
  char *y, *h;
  int64_t count;
  float eps;
};

struct KernelTable {
  void (*normalise[rows::kKinds])(const Row&);
};

}  // namespace tw::rmsnorm
