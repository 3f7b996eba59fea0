// What host.cpp (checks and threads, baseline code) knows of host_simd.cpp (compiled once per ISA level).
#pragma once

#include <cstdint>

#include "_rows/host_rows.hpp"

namespace tw::hadamard {

// One row, elements side by side. `y` may be `x`. `room` holds a row of floats and kSlack.
struct Row {
  const char* x;
  char* y;
  int64_t order, power;  // D = order * power
  const float* signs;    // H_m, order * order of 1 and -1
  float factor;          // 1 / sqrt(D)
  float* room;
};

constexpr int64_t kSlack = 16;

struct KernelTable {
  void (*transform[rows::kKinds])(const Row&);
};

}  // namespace tw::hadamard
