// The launch parameters of grouped_gemm: int32 fields only, written by the host, read by the kernel word by
// word.
#pragma once

#include "../gemm/gemm_tiling.h"

struct TwGroupedTiling {
  TwScaledTiling scaled;            // m: rows of all groups, and of nobody; no grid; b_layout 1
  int32_t experts;                  //
  int32_t b_step_low, b_step_high;  // elements from one expert's B to the next
  int32_t bias_step;                // the same of what the cube adds
};
