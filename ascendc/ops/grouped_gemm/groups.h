// Which output tiles a core makes, where rows are grouped: each group has tiles of its own. Cube and vector
// cores of a block walk alike.
#pragma once

#include "../gemm/gemm_walk.h"
#include "grouped_gemm_tiling.h"

namespace tw_grouped {

using AscendC::GlobalTensor;
using tw_gemm::CeilDiv;
using tw_gemm::Min;
using tw_gemm::Spot;

// Where a group ends. Ends come from a device, where nobody has seen whether they rise and stay within the
// rows.
__aicore__ inline int32_t EndOf(const GlobalTensor<int32_t>& ends, int32_t expert, int32_t begin,
                                int32_t rows) {
  const int32_t end = Min(ends.GetValue(expert), rows);
  return end > begin ? end : begin;
}

// All tiles, group after group and within one column after column, are dealt out in even runs.
class GroupWalk {
 public:
  __aicore__ inline void Start(const TwGroupedTiling& t, const GlobalTensor<int32_t>& ends, int32_t core,
                               int32_t cores) {
    ends_ = ends;
    experts_ = t.experts;
    rows_ = t.scaled.gemm.m;
    tile_m_ = t.scaled.gemm.tile_m;
    tile_n_ = t.scaled.gemm.tile_n;
    n_ = t.scaled.gemm.n;
    n_tiles_ = CeilDiv(n_, tile_n_);
    int64_t all = 0;
    for (int32_t e = 0, begin = 0; e < experts_; ++e) {
      const int32_t end = EndOf(ends_, e, begin, rows_);
      all += Tiles(end - begin);
      begin = end;
    }
    Seek(all * core / cores, all * (core + 1) / cores);
  }

  __aicore__ inline bool Valid() const { return left_ > 0; }
  __aicore__ inline const Spot& Now() const { return spot_; }

  __aicore__ inline void Next() {
    if (--left_ == 0) return;
    if (++m_tile_ == m_tiles_) {
      m_tile_ = 0;
      if (++n_tile_ == n_tiles_) {
        n_tile_ = 0;
        NextGroup();
      }
    }
    Place();
  }

 private:
  __aicore__ inline int64_t Tiles(int32_t rows) const {
    return static_cast<int64_t>(CeilDiv(rows, tile_m_)) * n_tiles_;
  }
  // The next group that has rows.
  __aicore__ inline void NextGroup() {
    do {
      begin_ = end_;
      end_ = EndOf(ends_, ++expert_, begin_, rows_);
    } while (end_ <= begin_);
    m_tiles_ = CeilDiv(end_ - begin_, tile_m_);
  }
  __aicore__ inline void Seek(int64_t first, int64_t last) {
    left_ = last - first;
    if (left_ <= 0) return;
    NextGroup();
    for (int64_t here = Tiles(end_ - begin_); first >= here; here = Tiles(end_ - begin_)) {
      first -= here;
      NextGroup();
    }
    n_tile_ = static_cast<int32_t>(first / m_tiles_);
    m_tile_ = static_cast<int32_t>(first % m_tiles_);
    Place();
  }
  __aicore__ inline void Place() {
    spot_.row = begin_ + m_tile_ * tile_m_;
    spot_.rows = Min(tile_m_, end_ - spot_.row);
    spot_.column = n_tile_ * tile_n_;
    spot_.columns = Min(tile_n_, n_ - spot_.column);
    spot_.matrix = expert_;
  }

  GlobalTensor<int32_t> ends_;
  int32_t experts_ = 0, rows_ = 0, tile_m_ = 1, tile_n_ = 1, n_ = 0, n_tiles_ = 0;
  int32_t expert_ = -1, begin_ = 0, end_ = 0, m_tiles_ = 0, m_tile_ = 0, n_tile_ = 0;
  int64_t left_ = 0;
  Spot spot_{};
};

}  // namespace tw_grouped
