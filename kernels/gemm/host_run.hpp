// A checked gemm problem, and its execution by one of four schedules.
#pragma once

#include "_host/call.hpp"
#include "gemm/host_kernels.hpp"

namespace tw::gemm {

struct Config {
  int64_t tile_m, tile_n, tile_k, stages;
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
  int threads;
  const KernelTable* kernels;
};

// False when scratch memory could not be had.
bool run(const Problem& problem);

}  // namespace tw::gemm
