// The launch parameters of silu_mul: int32 fields only, written by the host, read by the kernel word by word.
#pragma once

#include <cstdint>

struct TwSiluMulTiling {
  int32_t rows, cols;
  int32_t x_row, y_row;  // elements from one row to the next
  int32_t tile_rows, tile_cols, pitch;
  int32_t row_parts, col_parts;  // cores: their product is the number of blocks launched
};
