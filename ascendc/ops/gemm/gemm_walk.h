// Which output tiles a core makes, in which order. Cube and vector cores of a block walk alike.
#pragma once

#include "gemm_load.h"
#include "gemm_tiling.h"

namespace tw_gemm {

using tw_kv::ReadTiling;

// An output tile: its first row and column of C, and how many of each count.
struct Spot {
  int32_t row, rows, column, columns;
  int32_t matrix;  // which B, where there are several
};

// A grid of cores over C: each owns a rectangle of tiles and goes through it row by row, M in parts that all
// cores finish one after another.
class Walk {
 public:
  __aicore__ inline void Start(const TwGemmTiling& t, int32_t core) {
    Start(t, t.m, t.grid_m, t.grid_n, core);
  }
  // With `m` rows on a grid of its own.
  __aicore__ inline void Start(const TwGemmTiling& t, int32_t m, int32_t grid_m, int32_t grid_n,
                               int32_t core) {
    tile_m_ = t.tile_m;
    tile_n_ = t.tile_n;
    m_ = m;
    n_ = t.n;
    splits_ = t.l2_split_m;
    grid_m_ = grid_m;
    core_m_ = core / grid_n;
    m_tiles_ = CeilDiv(m, t.tile_m);
    split_tiles_ = CeilDiv(m_tiles_, splits_);
    const int32_t n_tiles = CeilDiv(t.n, t.tile_n), share = CeilDiv(n_tiles, grid_n);
    n_begin_ = Min(core % grid_n * share, n_tiles);
    n_end_ = Min(n_begin_ + share, n_tiles);
    n_tile_ = n_begin_;
    split_ = m_tile_ = m_end_ = 0;
    valid_ = core_m_ < grid_m && n_begin_ < n_end_;
    if (valid_) EnterSplit();
    Place();
  }

  __aicore__ inline bool Valid() const { return valid_; }
  __aicore__ inline const Spot& Now() const { return spot_; }

  __aicore__ inline void Next() {
    if (++n_tile_ >= n_end_) {
      n_tile_ = n_begin_;
      if (++m_tile_ >= m_end_) {
        ++split_;
        EnterSplit();
      }
    }
    Place();
  }

 private:
  __aicore__ inline void EnterSplit() {
    for (; split_ < splits_; ++split_) {
      const int32_t begin = Min(split_ * split_tiles_, m_tiles_);
      const int32_t end = Min(begin + split_tiles_, m_tiles_);
      const int32_t share = CeilDiv(end - begin, grid_m_);
      m_tile_ = Min(begin + core_m_ * share, end);
      m_end_ = Min(m_tile_ + share, end);
      if (m_tile_ < m_end_) return;
    }
    valid_ = false;
  }
  __aicore__ inline void Place() {
    if (!valid_) return;
    spot_.row = m_tile_ * tile_m_;
    spot_.rows = Min(tile_m_, m_ - spot_.row);
    spot_.column = n_tile_ * tile_n_;
    spot_.columns = Min(tile_n_, n_ - spot_.column);
    spot_.matrix = 0;
  }

  int32_t tile_m_ = 0, tile_n_ = 0, m_ = 0, n_ = 0, splits_ = 1, grid_m_ = 1, core_m_ = 0;
  int32_t m_tiles_ = 0, split_tiles_ = 0, n_begin_ = 0, n_end_ = 0;
  int32_t split_ = 0, m_tile_ = 0, m_end_ = 0, n_tile_ = 0;
  bool valid_ = false;
  Spot spot_{};
};

}  // namespace tw_gemm
