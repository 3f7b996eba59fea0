// A checked gemm problem, and its execution by one of five schedules.
#pragma once

#include "_host/call.hpp"
#include "gemm/host_kernels.hpp"

namespace tw::gemm {

struct Config {
  int64_t tile_m, tile_n, tile_k, stages;
  int64_t split_k = 1;  // parts of K that are summed each for itself
};

// A vector of N or M elements as the caller holds it; absent when data is null.
struct Strided {
  const char* data = nullptr;
  int32_t dtype = TW_FP32;
  int64_t stride = 0;
};

struct Problem {
  Kind kind;
  Out out;
  int64_t m, n, k;
  Operand a;            // [m, k]
  bool prepacked;       // b is panel16
  Operand b;            // [k, n]; data only when prepacked
  int64_t panel_bytes;  // prepacked: from one panel to the next
  Strided bias, row_scale, col_scale;
  View2 c;
  Config config;
  bool batch_invariant = false;  // the bits of a row do not follow from m
  int threads;
  const KernelTable* kernels;
};

// False when scratch memory could not be had. May be called from inside a task (with one thread), and for
// slices of the columns, cut at multiples of 16: no sum depends on where N is cut.
bool run(const Problem& problem);

}  // namespace tw::gemm
