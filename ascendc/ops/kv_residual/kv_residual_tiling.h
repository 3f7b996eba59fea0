// The launch parameters of the kv_residual kernels: int32 fields only, written by the host, read by the
// kernel word by word.
#pragma once

#include <cstdint>

enum TwKvFormat : int32_t { kTwC8s = 1, kTwC8d = 2, kTwKv4Value = 3, kTwKv4Key = 4 };

struct TwKvResidualTiling {
  int32_t pages, heads, dim;
  int32_t kv;                          // TwKvFormat
  int32_t e3m0;                        // 0: nested
  int32_t nz;                          // pages in fractals; 0: as rows
  int32_t x_page, x_token, x_head;     // elements from one to the next of x or y
  int32_t page_stride, within_stride;  // bytes from page to page; from head (nz) or token (nd) to the next
  int32_t pool_rows, fpool_rows;
  int32_t tile_heads;
  int32_t slots;   // tiles in UB: 2 where the next is loaded meanwhile, else 1
  int32_t batch;   // selected vectors worked on at once
  int32_t blocks;  // cores
};
