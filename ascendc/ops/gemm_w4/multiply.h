// The cube core's part: activations by the weights that its vector cores leave in the ring.
#pragma once

#include "product.h"
#include "ring.h"

namespace tw_w4 {

using AscendC::GlobalTensor;

template <typename T, QuantMode_t kQuant>
class Multiplier {
 public:
  __aicore__ inline explicit Multiplier(const TwGemmW4Tiling& tiling) : t_(tiling), ring_(tiling) {}

  __aicore__ inline void Init(GM_ADDR a, GM_ADDR c, GM_ADDR workspace) {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    a_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a));
    c_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(c));
    workspace_ = workspace + block * ring_.slot * t_.slots;
    loading_.tiles.Init(t_, block);
    now_.tiles.Init(t_, block);
    chunks_ = loading_.tiles.Left() * CeilDiv(t_.k, t_.chunk);
    product_.Init({t_.tile_m, t_.tile_n, t_.tile_k, t_.piece, t_.l0c_buffers}, t_.has_bias != 0);
  }

  __aicore__ inline void Process() {
    product_.Release();
    if (loading_.tiles.Valid()) Load();
    while (now_.tiles.Valid()) {
      if (loading_.tiles.Valid()) Load();
      Multiply();
    }
    product_.Drain();
  }

 private:
  // A piece along K of a tile.
  struct Place {
    Tiles tiles;
    int32_t k = 0;
  };
  __aicore__ inline int32_t Depth(const Place& p) const { return Min(t_.piece, t_.k - p.k); }
  __aicore__ inline void Advance(Place& p) const {
    p.k += t_.piece;
    if (p.k < t_.k) return;
    p.k = 0;
    p.tiles.Next();
  }

  __aicore__ inline void Load() {
    const Tiles& tile = loading_.tiles;
    const int32_t k0 = loading_.k, in_chunk = k0 % t_.chunk, k = Depth(loading_);
    product_.BeginPiece();
    product_.LoadRows(a_[static_cast<uint64_t>(tile.Row()) * t_.lda + k0], tile.Rows(), k, t_.lda);
    if (in_chunk == 0) AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kReady);
    GM_ADDR slot = workspace_ + (taken_ % t_.slots) * ring_.slot;
    GlobalTensor<T> weights;
    weights.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(slot));
    product_.LoadColumns(weights[static_cast<uint64_t>(in_chunk)], tile.Columns(), k, t_.chunk);
    if (k0 == 0 && t_.has_bias != 0) {
      GlobalTensor<float> bias;
      bias.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(slot + ring_.weights));
      product_.LoadBias(bias, tile.Columns());
    }
    if (in_chunk + t_.piece >= t_.chunk || k0 + t_.piece >= t_.k) {
      if (taken_ + t_.slots < chunks_) AscendC::CrossCoreSetFlag<2, PIPE_MTE2>(kFree);
      ++taken_;
    }
    product_.EndPiece();
    Advance(loading_);
  }

  __aicore__ inline void Multiply() {
    const Tiles tile = now_.tiles;
    const bool last = now_.k + t_.piece >= t_.k;
    product_.Multiply(tile.Rows(), tile.Columns(), Depth(now_), now_.k == 0, last);
    if (last)
      product_.template Store<T, kQuant>(
          c_[static_cast<uint64_t>(tile.Row()) * t_.ldc + static_cast<uint64_t>(tile.Column())], tile.Rows(),
          tile.Columns(), t_.ldc);
    Advance(now_);
  }

  const TwGemmW4Tiling& t_;
  const Ring ring_;
  GM_ADDR workspace_ = nullptr;
  GlobalTensor<T> a_, c_;
  tw_w4_cube::Product<T, float> product_;
  Place loading_, now_;
  int32_t chunks_ = 0, taken_ = 0;
};

}  // namespace tw_w4
