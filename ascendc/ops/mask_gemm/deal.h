// A walk over the output tiles of some rows: numbered along rows of tiles and dealt out to cores in runs, as
// evenly as can be, so that a path with few rows leaves no core behind.
#pragma once

#include "../_kv/slots.h"
#include "../gemm/gemm_walk.h"

namespace tw_mask {

using tw_gemm::CeilDiv;
using tw_gemm::Min;
using tw_gemm::Spot;

class Deal {
 public:
  __aicore__ inline void Start(const TwGemmTiling& t, int32_t rows, int32_t core, int32_t cores) {
    tile_m_ = t.tile_m;
    tile_n_ = t.tile_n;
    m_ = rows;
    n_ = t.n;
    const int32_t across = CeilDiv(t.n, t.tile_n);
    const tw_kv::Share own = tw_kv::ShareOf(CeilDiv(rows, t.tile_m) * across, cores, core);
    left_ = own.end - own.begin;
    spot_.matrix = 0;
    spot_.row = own.begin / across * tile_m_;
    spot_.column = own.begin % across * tile_n_;
    Fit();
  }

  __aicore__ inline bool Valid() const { return left_ > 0; }
  __aicore__ inline const Spot& Now() const { return spot_; }
  __aicore__ inline void Next() {
    --left_;
    spot_.column += tile_n_;
    if (spot_.column >= n_) {
      spot_.column = 0;
      spot_.row += tile_m_;
    }
    Fit();
  }

 private:
  __aicore__ inline void Fit() {
    spot_.rows = Min(tile_m_, m_ - spot_.row);
    spot_.columns = Min(tile_n_, n_ - spot_.column);
  }

  int32_t tile_m_ = 0, tile_n_ = 0, m_ = 0, n_ = 0, left_ = 0;
  Spot spot_{};
};

}  // namespace tw_mask
