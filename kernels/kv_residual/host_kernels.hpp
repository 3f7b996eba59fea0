// What the instruction levels of kv_residual share with its checks.
#pragma once

#include <cstdint>

#include "_kv/host_tensors.hpp"

namespace tw::kv_residual {

enum Format : int64_t { kC8S = 0, kC8D = 1, kKey4 = 2, kValue4 = 3 };

// Where the selected vectors of one page and head lie: bits of tokens, and the pool row of the first.
struct Place {
  uint32_t mask, fmask;
  int32_t rank, frank;
};

struct Job {
  Format format;
  bool e3m0, nz;
  int32_t element;  // tw_dtype of x, y and fpool
  int64_t element_size;
  int64_t heads, d;
  kv::Strided rows;  // x or y [N, 16, heads, d]
  kv::Pages codes;
  const float *channel_scale, *inverse;  // c8s: [heads][channel_row]
  int64_t channel_row;
  kv::Strided token_scale, token_zero, page_scale, page_zero;
  kv::Strided mask, rank, fmask, frank;  // [P, heads]
  kv::Strided pool, pool_scale, fpool;   // [rows, ...]
  const tw_tensor* page_ids;
  const Place* places;  // [N][heads]
};

// Each takes pages-and-heads begin..end of [N][heads], page by page.
struct Table {
  int64_t (*scratch_bytes)(int64_t d, int64_t row_bytes);
  int64_t (*row_floats)(int64_t d);
  void (*channel_rows)(const float* scale, int64_t step, int64_t d, float* copy, float* inverse);
  void (*write)(const Job& job, int64_t begin, int64_t end, char* scratch);
  void (*read)(const Job& job, int64_t begin, int64_t end, char* scratch);
};

}  // namespace tw::kv_residual
