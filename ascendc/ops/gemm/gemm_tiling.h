// The launch parameters of the gemm kernels: int32 fields only, written by the host, read by the kernel word
// by word.
#pragma once

#include <cstdint>

struct TwGemmTiling {
  int32_t m, n, k;
  int32_t lda, ldb, ldc;  // elements from one row to the next
  int32_t b_layout;       // 0: B is [K, N]; 1: B is [N, K]; 2: [K, N] in fractals, see FromFractals
  int32_t has_bias;
  int32_t tile_m, tile_n,
      tile_k;  // L0 tile: multiples of 16; tile_k of 32 for int8, and tile_n too when B is [K, N]
  int32_t step_ka, step_kb;                     // L0 tiles along K in one L1 load of A and of B
  int32_t l1_buffers, l0_buffers, l0c_buffers;  // 1 or 2
  int32_t grid_m, grid_n;                       // cores; their product is the number of blocks launched
  int32_t unit_flag;   // 1: Mmad and Fixpipe hand over L0C by unit flags instead of events
  int32_t l2_split_m;  // parts of M that all cores finish one after another, so that B is read from L2
  int32_t whole_rows;  // 1: one row is computed like any other, not as a GEMV
};

// Of the kernels whose vector cores scale what the cube cores make.
struct TwScaledTiling {
  TwGemmTiling gemm;      // has_bias is 0: the vector cores add it
  int32_t has_row_scale;  // scales a row; those a column are always there
  int32_t has_bias;
  int32_t piece_rows;  // rows of a tile that a vector core works on at once
};
