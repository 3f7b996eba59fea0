// What moves tokens between rows and pages: int32 fields only, written by the host, read by the kernel word
// by word.
#pragma once

#include <cstdint>

struct TwMoveTiling {
  int32_t tokens, heads;
  int32_t head_bytes;               // of one token's head: D elements
  int32_t row_stride, head_stride;  // bytes from one token, one head of the rows to the next
  int32_t page_stride,
      page_head_stride;             // bytes from one page, one head (nz) or token (nd) of it to the next
  int32_t nz;                       // pages in fractals; 0: as rows
  int32_t tile_heads;               // whole heads of a tile; 1 where a tile is a part of a head
  int32_t tile_blocks;              // blocks of 32 bytes of each of its heads
  int32_t token_parts, tile_parts;  // cores: their product is the number of blocks launched
};
