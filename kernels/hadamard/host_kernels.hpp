// What host.cpp (checks and threads, baseline code) knows of host_simd.cpp (compiled once per ISA level).
#pragma once

#include <cstdint>

#include "_rows/host_rows.hpp"

namespace tw::hadamard {

// Rows of order * power elements side by side; `y` may be `x`. `room` holds a row of floats, 64-byte aligned.
struct Rows {
  rows::Steps x, y;
  int64_t rows, order, power;
  float factor;
  float* room;
  bool stream;  // y past the caches: its rows begin on lines
};

struct KernelTable {
  void (*transform[rows::kKinds])(const Rows&);
};

}  // namespace tw::hadamard
