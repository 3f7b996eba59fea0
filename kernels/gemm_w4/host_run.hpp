// A checked gemm_w4, and what runs it.
#pragma once

#include "_host/call.hpp"
#include "gemm_w4/host_kernels.hpp"

namespace tw::gemm_w4 {

struct Problem {
  int64_t m, n, k, groups, group;
  Kind kind;
  Out out;
  Zero zero;
  bool prepacked, batch_invariant;
  const tw_tensor *a, *b, *scale, *zeros, *minima, *row_scale, *bias;
  View2 c;
  int threads;
  const KernelTable* kernels;
};

// False when there is no memory for its scratch.
bool run(const Problem& p);

}  // namespace tw::gemm_w4
