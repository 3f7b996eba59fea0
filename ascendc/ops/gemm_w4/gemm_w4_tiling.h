// The launch parameters of gemm_w4: int32 fields only, written by the host, read by the kernel word by word.
#pragma once

#include <cstdint>

struct TwGemmW4Tiling {
  int32_t m, n, k;
  int32_t lda, ldb, ldc;              // elements (words of codes) from one row to the next
  int32_t ld_scale, ld_zero, ld_min;  // the same of what a group shares
  int32_t group;                      // k that share a scale: 32, 64 or 128
  int32_t zero;                       // 0: 8 is zero; 1: a code a group; 2: a minimum a group
  int32_t has_bias;                   //
  int32_t tile_m, tile_n, tile_k;     // of L0, multiples of 16; of sums, the first two
  int32_t piece, chunk;               // k of an L1 load, and of what is handed over at once
  int32_t rows;                       // of a chunk that a vector core dequantises at once
  int32_t slots;                      // chunks of the ring
  int32_t m_tiles, n_tiles, blocks;   //
  int32_t l0c_buffers;                //
};
