// The launch parameters of the quantising kv_write kernels: int32 fields only, written by the host, read by
// the kernel word by word. kv_write of floats is two launches' worth of TwMoveTiling.
#pragma once

#include <cstdint>

#include "../_kv/move_tiling.h"

enum TwKv : int32_t { kTwC8s = 1, kTwC8d = 2, kTwKv4 = 3 };

// Keys or values.
struct TwKvSide {
  int32_t dim;                         // D; 0: there are none
  int32_t token_stride, head_stride;   // elements of x
  int32_t page_stride, within_stride;  // bytes from page to page; from head (nz) or token (nd) to the next
  int32_t tile_heads;
};

struct TwKvWriteTiling {
  int32_t tokens, heads;
  int32_t kv;                       // TwKv
  int32_t nz;                       // pages in fractals; 0: as rows
  int32_t tile_count, tile_width;   // elements of the larger side's tile, and of one token of it
  int32_t token_parts, tile_parts;  // cores: their product is the number of blocks launched
  TwKvSide key, value;
};

struct TwKvMoveTiling {
  TwMoveTiling key, value;  // head_bytes 0: there are none
};
