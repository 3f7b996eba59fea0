// What the bench kernels share. A tiling is a struct of int32 fields, read word by word.
#pragma once

#include "kernel_operator.h"

namespace tw_bench {

template <typename T>
__aicore__ inline void ReadTiling(GM_ADDR tiling, T& out) {
  AscendC::GlobalTensor<int32_t> words;
  words.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(tiling));
  int32_t* fields = reinterpret_cast<int32_t*>(&out);
  for (uint32_t i = 0; i < sizeof(T) / sizeof(int32_t); ++i) fields[i] = words.GetValue(i);
}

__aicore__ inline int32_t CeilDiv(int32_t a, int32_t b) { return (a + b - 1) / b; }
__aicore__ inline int32_t Min(int32_t a, int32_t b) { return a < b ? a : b; }

// `total` items over `parts` cores as evenly as can be; the first ones take what is left.
struct Share {
  int32_t begin, count;
};
__aicore__ inline Share ShareOf(int32_t total, int32_t parts, int32_t part) {
  const int32_t each = total / parts, more = total % parts;
  const int32_t begin = part * each + Min(part, more);
  return {begin, each + (part < more ? 1 : 0)};
}

}  // namespace tw_bench
