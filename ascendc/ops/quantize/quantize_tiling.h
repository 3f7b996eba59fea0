// The launch parameters of quantize: int32 fields only, written by the host, read by the kernel word by word.
#pragma once

#include <cstdint>

struct TwQuantizeTiling {
  int32_t rows, cols;
  int32_t x_row, q_row;              // elements from one row to the next
  int32_t found;                     // whether scales are found; else they are given
  int32_t tile_rows, piece, pieces;  // of tokens: pieces of a row; of channels: tiles along the columns
  int32_t row_parts, col_parts;      // cores: their product is the number of blocks launched
};
