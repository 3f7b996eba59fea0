// What cube and vector cores of a block agree on: the tiles it computes, and the ring in the workspace
// through which chunks of dequantised weights go. Flags are set and waited for once a chunk, in one order.
#pragma once

#include "../_kv/slots.h"
#include "gemm_w4_tiling.h"

namespace tw_w4 {

using tw_kv::CeilDiv;
using tw_kv::Min;
using tw_kv::RoundUp;

constexpr uint16_t kReady = 0, kFree = 1;  // a chunk is written; a slot may be written again
constexpr int32_t kAlign = 512;            // bytes

// Tiles of a block, one after the other: all of M for a tile of N, then the next of N.
class Tiles {
 public:
  __aicore__ inline Tiles() {}
  __aicore__ inline void Init(const TwGemmW4Tiling& t, int32_t block) {
    t_ = &t;
    const int64_t all = static_cast<int64_t>(t.m_tiles) * t.n_tiles;
    at_ = all * block / t.blocks;
    end_ = all * (block + 1) / t.blocks;
  }
  __aicore__ inline bool Valid() const { return at_ < end_; }
  __aicore__ inline void Next() { ++at_; }
  __aicore__ inline int32_t Left() const { return static_cast<int32_t>(end_ - at_); }
  __aicore__ inline int32_t Row() const { return static_cast<int32_t>(at_ % t_->m_tiles) * t_->tile_m; }
  __aicore__ inline int32_t Column() const { return static_cast<int32_t>(at_ / t_->m_tiles) * t_->tile_n; }
  __aicore__ inline int32_t Rows() const { return Min(t_->tile_m, t_->m - Row()); }
  __aicore__ inline int32_t Columns() const { return Min(t_->tile_n, t_->n - Column()); }

 private:
  const TwGemmW4Tiling* t_ = nullptr;
  int64_t at_ = 0, end_ = 0;
};

// A slot: [tile_n, chunk] weights, then tile_n floats of bias.
struct Ring {
  int64_t weights, slot;  // bytes
  __aicore__ inline explicit Ring(const TwGemmW4Tiling& t) {
    weights = static_cast<int64_t>(t.tile_n) * t.chunk * 2;
    const int64_t all = weights + static_cast<int64_t>(t.tile_n) * 4;
    slot = (all + kAlign - 1) / kAlign * kAlign;
  }
};

}  // namespace tw_w4
