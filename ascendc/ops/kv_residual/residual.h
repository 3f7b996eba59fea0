// What writing and reading pages with residuals share: shapes, arguments, the workspace.
#pragma once

#include "../_kv/cache.h"
#include "places.h"

namespace tw_kv {

// A row of D elements; where 32 does not divide D, quarters of it padded to whole blocks of codes.
__aicore__ inline Shape ResidualShape(int32_t tokens, int32_t heads, int32_t dim, bool four) {
  if (dim % kBlock == 0) return {tokens, heads, 1, dim, dim};
  return {tokens, heads, 4, dim / 4, RoundUp(dim / 4, four ? kLanes : kBlock)};
}

struct ResidualArguments {
  GM_ADDR x;  // or y
  GM_ADDR page_ids;
  GM_ADDR select;
  GM_ADDR channel_scale;
  GM_ADDR used_before;
  GM_ADDR codes;
  GM_ADDR token_scale;
  GM_ADDR token_zero;
  GM_ADDR page_scale;
  GM_ADDR page_zero;
  GM_ADDR mask;
  GM_ADDR rank;
  GM_ADDR pool;
  GM_ADDR pool_scale;
  GM_ADDR fmask;
  GM_ADDR frank;
  GM_ADDR fpool;
  GM_ADDR used_after;
  GM_ADDR workspace;
};

template <typename T>
__aicore__ inline AscendC::GlobalTensor<T> Global(GM_ADDR at) {
  AscendC::GlobalTensor<T> tensor;
  tensor.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(at));
  return tensor;
}

// Where each core has a dense tile of bytes in the workspace, behind masks and sums.
__aicore__ inline uint64_t StagedAt(const TwKvResidualTiling& t, int32_t block) {
  const uint64_t tiles = static_cast<uint64_t>(CeilDiv(t.heads, t.tile_heads));
  const uint64_t ahead =
      (static_cast<uint64_t>(t.pages) * tiles * 2 * kMaskHeads + static_cast<uint64_t>(t.blocks) * kTotals) *
      sizeof(int32_t);
  return ahead +
         static_cast<uint64_t>(block) * static_cast<uint64_t>(RoundUp(kPage * t.tile_heads * t.dim, kBlock));
}

}  // namespace tw_kv
