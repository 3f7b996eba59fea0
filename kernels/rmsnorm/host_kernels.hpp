// What host.cpp (checks and threads, baseline code) knows of host_simd.cpp (compiled once per ISA level).
#pragma once

#include <cstdint>

#include "_rows/host_rows.hpp"

namespace tw::rmsnorm {

// Rows with elements side by side, steps in bytes from one to the next. `residual` and `h` are null together.
// Outputs may be inputs.
struct Rows {
  rows::Steps x, residual, y, h;
  const char* weight;
  const float* wide;  // null, or the weights as `widen` leaves them
  int64_t rows, count;
  float eps;
  bool stream;  // y past the caches: its rows begin on lines
};

struct KernelTable {
  void (*normalise[rows::kKinds])(const Rows&);
  // Weights as fp32 in the order in which rows are walked; `to` has room for widened(count).
  void (*widen[rows::kKinds])(const char* weight, int64_t count, float* to);
};

inline int64_t widened(int64_t count) { return round_up(count, 64); }

}  // namespace tw::rmsnorm
