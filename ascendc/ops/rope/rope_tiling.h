// The launch parameters of rope: int32 fields only, written by the host, read by the kernel word by word.
#pragma once

#include <cstdint>

struct TwRopeTiling {
  int32_t tokens, heads;
  int32_t half, rest;  // channels of one side of the pairs, and those that are copied
  int32_t x_token, x_head, y_token, y_head, row;  // elements from one to the next; `row` of the table
  int32_t tile_heads, tiles;
  int32_t token_parts, tile_parts;  // cores: their product is the number of blocks launched
};
