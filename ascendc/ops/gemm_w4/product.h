// Tiles of C = A B^T on a cube core, B as [N, K]: pieces along K from global memory to L1, one ahead of those
// that are multiplied, then in steps to L0 and to the sums in L0C. Whole fractals of rows are multiplied, so
// that the bits of a row do not depend on how many there are.
#pragma once

#include "../gemm/gemm_load.h"
#include "kernel_operator.h"

namespace tw_w4_cube {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::TBuf;
using AscendC::TPosition;
using AscendC::WaitFlag;
using tw_gemm::CeilDiv;
using tw_gemm::kFractal;
using tw_gemm::kSmallTile;
using tw_gemm::Min;
using tw_gemm::RoundUp;

constexpr int32_t kEventBias = 2;  // between M and MTE1, beside the two of L0

// Elements: of a tile, along K of a step through L0 and of a piece in L1, and buffers of sums.
struct Sizes {
  int32_t tile_m, tile_n, tile_k, piece, l0c_buffers;
};

template <typename In, typename Acc>
class Product {
 public:
  __aicore__ inline Product() {}

  __aicore__ inline void Init(const Sizes& sizes, bool has_bias) {
    s_ = sizes;
    has_bias_ = has_bias;
    AscendC::TPipe pipe;
    TBuf<TPosition::A1> a1;
    TBuf<TPosition::B1> b1;
    TBuf<TPosition::A2> a2;
    TBuf<TPosition::B2> b2;
    TBuf<TPosition::CO1> co1;
    TBuf<TPosition::C1> c1;
    TBuf<TPosition::C2> c2;
    const uint32_t in = sizeof(In), acc = sizeof(Acc);
    pipe.InitBuffer(a1, 2 * s_.tile_m * s_.piece * in);
    pipe.InitBuffer(b1, 2 * s_.tile_n * s_.piece * in);
    pipe.InitBuffer(a2, 2 * s_.tile_m * s_.tile_k * in);
    pipe.InitBuffer(b2, 2 * s_.tile_n * s_.tile_k * in);
    pipe.InitBuffer(co1, s_.l0c_buffers * s_.tile_m * s_.tile_n * acc);
    a1_ = a1.template Get<In>();
    b1_ = b1.template Get<In>();
    a2_ = a2.template Get<In>();
    b2_ = b2.template Get<In>();
    co1_ = co1.template Get<Acc>();
    if (has_bias_) {
      pipe.InitBuffer(c1, 2 * s_.tile_n * acc);
      pipe.InitBuffer(c2, s_.tile_n * acc);
      bias1_ = c1.template Get<Acc>();
      bias2_ = c2.template Get<Acc>();
    }
    pipe.Destroy();  // events are this kernel's own
  }

  // Every buffer starts free, and is waited for once more at the end, so that no flag is left set.
  __aicore__ inline void Release() {
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::MTE1_MTE2>(i);
      SetFlag<HardEvent::M_MTE1>(i);
    }
    for (int32_t i = 0; i < s_.l0c_buffers; ++i) SetFlag<HardEvent::FIX_M>(i);
    if (has_bias_) SetFlag<HardEvent::M_MTE1>(kEventBias);
  }
  __aicore__ inline void Drain() {
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::MTE1_MTE2>(i);
      WaitFlag<HardEvent::M_MTE1>(i);
    }
    for (int32_t i = 0; i < s_.l0c_buffers; ++i) WaitFlag<HardEvent::FIX_M>(i);
    if (has_bias_) WaitFlag<HardEvent::M_MTE1>(kEventBias);
  }

  // A piece's way to L1 begins, and ends.
  __aicore__ inline void BeginPiece() { WaitFlag<HardEvent::MTE1_MTE2>(loads_ % 2); }
  __aicore__ inline void EndPiece() {
    SetFlag<HardEvent::MTE2_MTE1>(loads_ % 2);
    ++loads_;
  }
  // [m, k] and [n, k] of a piece, rows `ld` elements apart.
  __aicore__ inline void LoadRows(const GlobalTensor<In>& src, int32_t m, int32_t k, int32_t ld) {
    tw_gemm::ToFractals(a1_[(loads_ % 2) * s_.tile_m * s_.piece], src, m, k, ld, RoundUp(m, kFractal));
  }
  __aicore__ inline void LoadColumns(const GlobalTensor<In>& src, int32_t n, int32_t k, int32_t ld) {
    tw_gemm::ToFractals(b1_[(loads_ % 2) * s_.tile_n * s_.piece], src, n, k, ld, RoundUp(n, kFractal));
  }
  // The n bias values of the tile whose first piece is on its way, in whole fractals.
  __aicore__ inline void LoadBias(const GlobalTensor<Acc>& src, int32_t n) {
    AscendC::DataCopy(bias1_[(biases_++ % 2) * s_.tile_n], src, static_cast<uint32_t>(RoundUp(n, kFractal)));
  }

  // The piece loaded first of those that are not multiplied yet: [m, k] by [n, k].
  __aicore__ inline void Multiply(int32_t m, int32_t n, int32_t k, bool first, bool last) {
    const int32_t slot = pieces_++ % 2, rows = RoundUp(m, kFractal);
    if (first) WaitFlag<HardEvent::FIX_M>(sums_ % s_.l0c_buffers);
    WaitFlag<HardEvent::MTE2_MTE1>(slot);
    if (first && has_bias_) TakeBias(n);
    for (int32_t at = 0; at < k; at += s_.tile_k) {
      const bool ends = at + s_.tile_k >= k;
      Step(slot, at, rows, n, Min(s_.tile_k, k - at), first && at == 0, ends);
      if (!(last && ends) && rows / kFractal * (n / kFractal) < kSmallTile) AscendC::PipeBarrier<PIPE_M>();
    }
  }

  // The tile's sums, as `quant` says, to rows `ld` elements apart.
  template <typename Out, QuantMode_t kQuant>
  __aicore__ inline void Store(const GlobalTensor<Out>& dst, int32_t m, int32_t n, int32_t ld) {
    const int32_t slot = sums_ % s_.l0c_buffers;
    SetFlag<HardEvent::M_FIX>(slot);
    WaitFlag<HardEvent::M_FIX>(slot);
    AscendC::FixpipeParamsV220 p;
    p.nSize = static_cast<uint16_t>(n);
    p.mSize = static_cast<uint16_t>(m);
    p.srcStride = static_cast<uint16_t>(RoundUp(m, kFractal));
    p.dstStride = static_cast<uint32_t>(ld);
    p.quantPre = kQuant;
    AscendC::Fixpipe<Out, Acc, AscendC::CFG_ROW_MAJOR>(dst, Sums(), p);
    SetFlag<HardEvent::FIX_M>(slot);
    ++sums_;
  }

 private:
  __aicore__ inline LocalTensor<Acc> Sums() const {
    return co1_[(sums_ % s_.l0c_buffers) * s_.tile_m * s_.tile_n];
  }

  __aicore__ inline void TakeBias(int32_t n) {
    WaitFlag<HardEvent::M_MTE1>(kEventBias);
    AscendC::DataCopyParams p;
    p.blockLen = static_cast<uint16_t>(RoundUp(n, kFractal) * static_cast<int32_t>(sizeof(Acc)) / 64);
    AscendC::DataCopy(bias2_, bias1_[(taken_++ % 2) * s_.tile_n], p);
  }

  __aicore__ inline void Step(int32_t slot, int32_t at, int32_t m, int32_t n, int32_t k, bool first,
                              bool ends) {
    const int32_t l0 = steps_++ % 2;
    const LocalTensor<In> a2 = a2_[l0 * s_.tile_m * s_.tile_k], b2 = b2_[l0 * s_.tile_n * s_.tile_k];
    WaitFlag<HardEvent::M_MTE1>(l0);
    tw_gemm::LoadA(a2, a1_[slot * s_.tile_m * s_.piece], at, m, k);
    tw_gemm::LoadB(b2, b1_[slot * s_.tile_n * s_.piece], at, n, k);
    if (ends) SetFlag<HardEvent::MTE1_MTE2>(slot);
    SetFlag<HardEvent::MTE1_M>(l0);
    WaitFlag<HardEvent::MTE1_M>(l0);
    AscendC::MmadParams p;
    p.m = static_cast<uint16_t>(m);
    p.n = static_cast<uint16_t>(n);
    p.k = static_cast<uint16_t>(k);
    p.cmatrixInitVal = first && !has_bias_;
    if (first && has_bias_) {
      AscendC::Mmad(Sums(), a2, b2, bias2_, p);
      SetFlag<HardEvent::M_MTE1>(kEventBias);
    } else {
      AscendC::Mmad(Sums(), a2, b2, p);
    }
    SetFlag<HardEvent::M_MTE1>(l0);
  }

  Sizes s_;
  bool has_bias_ = false;
  LocalTensor<In> a1_, b1_, a2_, b2_;
  LocalTensor<Acc> co1_, bias1_, bias2_;
  uint32_t loads_ = 0, pieces_ = 0, steps_ = 0, sums_ = 0, biases_ = 0, taken_ = 0;
};

}  // namespace tw_w4_cube
