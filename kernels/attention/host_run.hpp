// What host.cpp read from a call, and the schedule that computes it.
#pragma once

#include <cstdint>

#include "attention/host_kernels.hpp"

namespace tw::attention {

// [B,S,H,D] or [B,S,H] with strides in elements.
struct View {
  char* data = nullptr;
  int64_t stride[4] = {};

  char* at(int64_t b, int64_t s, int64_t h, int64_t bytes) const {
    return data + (b * stride[0] + s * stride[1] + h * stride[2]) * bytes;
  }
};

struct Problem {
  const KernelTable* kernels;
  Kind kind;
  Element element;
  View q, k, v, o, lse;
  int64_t batch, queries, keys, heads, key_heads, dk, dv;
  const int32_t* cu_q = nullptr;  // null for equal lengths, or [sequences + 1]
  const int32_t* cu_k = nullptr;
  int64_t sequences;
  const float* alibi = nullptr;  // [heads], strided
  int64_t alibi_stride = 0;
  bool causal;
  int64_t window;  // 0 for none
  float scale, softcap;
  int64_t tile_m, tile_n;
  int threads;
};

// False when there is no memory for it.
bool run(const Problem& problem);

}  // namespace tw::attention
