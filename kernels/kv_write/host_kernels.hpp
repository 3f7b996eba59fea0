// What the instruction levels of kv_write share with its checks.
#pragma once

#include <cstdint>

#include "_kv/host_slots.hpp"

namespace tw::kv_write {

enum Format : int64_t { kFloat = 0, kC8S = 1, kC8D = 2, kKV4 = 3 };

// Keys or values: rows [T, heads, d] of a call and the pages they go to.
struct Side {
  kv::Strided x;  // s2: from one element to the next
  int64_t d = 0;
  kv::Pages cache;
  const float* inverse = nullptr;  // c8s: 1 / scale, [heads][inverse_row]
  int64_t inverse_row = 0;
  kv::Strided token_scale, token_zero;  // [P, 16, heads]
};

struct Job {
  Format format;
  int32_t element;       // tw_dtype of k and v
  int64_t element_size;  // its bytes
  bool nz, stream;
  int64_t heads;
  Side key, value;
  kv::Strided page_scale, page_zero;  // kv4: [P, heads, DK] fp16
  kv::Strided open;                   // kv4: k_open [NS, 16, heads, DK]
  const tw_tensor* open_row;
};

// Bytes of scratch that a thread needs for rows of up to `d` elements; each table has its own.
struct Table {
  int64_t (*scratch_bytes)(int64_t d, int64_t row_bytes);
  int64_t (*row_floats)(int64_t d);  // floats of a row with the room behind it
  void (*reciprocals)(const float* scale, int64_t step, int64_t d, float* to);
  void (*write)(const Job& job, const kv::Run* runs, int64_t count, char* scratch);
};

}  // namespace tw::kv_write
