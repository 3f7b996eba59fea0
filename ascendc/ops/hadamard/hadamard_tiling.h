// The launch parameters of hadamard: int32 fields only, written by the host, read by the kernel word by word.
#pragma once

#include <cstdint>

constexpr int32_t kTwHadamardWords = 2;  // of 32 signs each, for a row of the outer matrix

struct TwHadamardTiling {
  int32_t rows, cols;
  int32_t x_row, y_row;         // elements from one row to the next
  int32_t outer, inner, steps;  // orders of both matrices; inner is 2^steps
  int32_t tile_rows, load;      // rows of a tile; elements loaded at a time
  int32_t inner_first;          // whole rows go through the inner transform before segments are summed
  float factor;                 // 1 / sqrt(cols)
};
