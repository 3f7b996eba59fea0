// The launch parameters of rmsnorm: int32 fields only, written by the host, read by the kernel word by word.
#pragma once

#include <cstdint>

struct TwRmsnormTiling {
  int32_t rows, cols;
  int32_t x_row, residual_row, y_row, h_row;  // elements from one row to the next
  int32_t residual;                           // whether there is one
  int32_t tile_rows, piece, pieces;           // rows of a tile; columns of a piece; pieces of a row
  float eps, mean;                            // 1 / cols
};
