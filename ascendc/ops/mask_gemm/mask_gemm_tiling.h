// The launch parameters of mask_gemm: int32 fields only, written by the host, read by the kernel word by
// word.
#pragma once

#include "../gemm/gemm_tiling.h"

struct TwMaskGemmTiling {
  TwGemmTiling codes;    // the product in int8, as if every row were in it
  TwGemmTiling floats;   // the product in bf16: same tiles of C
  int32_t layer, words;  // of the selection; the last two words are groups of tokens and requests
  int32_t resident;      // 0: no bf16 weights, every row in int8
  int32_t has_bias;
  int32_t piece_rows;                 // rows of a tile that a vector core works on at once
  int32_t pitch_codes, pitch_floats;  // bytes from one gathered row to the next
};
