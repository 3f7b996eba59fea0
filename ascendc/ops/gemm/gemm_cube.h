// The cube core's part of a gemm. Per output tile: GM -> L1 (row-major to fractals) -> L0A, L0B -> Mmad ->
// L0C -> a sink. L1 holds step_ka (step_kb) tiles along K per load, double-buffered and loaded one load
// ahead, across output tiles too; L0A, L0B and L0C are double-buffered. All of it is chosen by the tiling.
//
// Tiles: a walk over output tiles (`Walk`, or one with its Valid, Now and Next). Sink: where they go
// (`Begin` before a tile's first Mmad, `Store` behind its last, `Open` and `Close` around all).
#pragma once

#include "gemm_walk.h"

namespace tw_gemm {

using AscendC::HardEvent;
using AscendC::SetFlag;
using AscendC::TBuf;
using AscendC::TPosition;
using AscendC::WaitFlag;

// Event ids per pair of pipes: A's L1 buffers 0, 1; B's 2, 3; the bias 4. L0 and L0C buffers 0, 1.
constexpr int32_t kEventB = 2, kEventBias = 4, kEventScale = 0;

template <typename In, typename Acc, typename Tiles, typename Sink>
class Cube {
 public:
  __aicore__ inline Cube(const TwGemmTiling& tiling, Sink& sink) : t_(tiling), sink_(sink) {}

  // `b_step`, `bias_step`: elements from one B to the next, where tiles name several, and from its bias.
  __aicore__ inline void Init(GM_ADDR a, GM_ADDR b, GM_ADDR bias, uint64_t b_step = 0,
                              uint64_t bias_step = 0) {
    a_.SetGlobalBuffer(reinterpret_cast<__gm__ In*>(a));
    b_.SetGlobalBuffer(reinterpret_cast<__gm__ In*>(b));
    bias_.SetGlobalBuffer(reinterpret_cast<__gm__ Acc*>(bias));
    b_step_ = b_step;
    bias_step_ = bias_step;
  }

  __aicore__ inline void Process(const Tiles& start) {
    if (!start.Valid()) return;
    k_tiles_ = CeilDiv(t_.k, t_.tile_k);
    AllocateBuffers();
    ReleaseAllBuffers();
    if (t_.unit_flag != 0) AscendC::SetMMRowMajor();
    next_a_.tiles = next_b_.tiles = start;
    for (Tiles tiles = start; tiles.Valid(); tiles.Next()) ComputeTile(tiles.Now());
    WaitForAllBuffers();
  }

 private:
  static constexpr bool kInt8 = sizeof(In) == 1;

  // The next L1 load of one input.
  struct Loader {
    Tiles tiles;
    int32_t chunk = 0;                  // loads of this tile done
    uint32_t issued = 0, consumed = 0;  // unsigned: they count past 2^31 on large shapes
  };

  // Columns the cube works on: 8-bit transposes come in squares of 32.
  __aicore__ inline int32_t CubeColumns(int32_t columns) const {
    return kInt8 && t_.b_layout != 1 ? RoundUp(columns, 32) : columns;
  }
  // Rows the cube works on. One row alone is a GEMV, which may sum in another order.
  __aicore__ inline int32_t CubeRows(int32_t rows) const {
    return rows == 1 && t_.whole_rows != 0 ? kFractal : rows;
  }

  __aicore__ inline void AllocateBuffers() {
    AscendC::TPipe pipe;
    TBuf<TPosition::A1> a1;
    TBuf<TPosition::B1> b1;
    TBuf<TPosition::A2> a2;
    TBuf<TPosition::B2> b2;
    TBuf<TPosition::CO1> co1;
    TBuf<TPosition::C1> c1;
    TBuf<TPosition::C2> c2;
    l1_a_ = t_.tile_m * t_.tile_k * t_.step_ka;
    l1_b_ = t_.tile_n * t_.tile_k * t_.step_kb;
    l0_a_ = t_.tile_m * t_.tile_k;
    l0_b_ = t_.tile_n * t_.tile_k;
    l0_c_ = t_.tile_m * t_.tile_n;
    const uint32_t size = sizeof(In);
    pipe.InitBuffer(a1, l1_a_ * t_.l1_buffers * size);
    pipe.InitBuffer(b1, l1_b_ * t_.l1_buffers * size);
    pipe.InitBuffer(a2, l0_a_ * t_.l0_buffers * size);
    pipe.InitBuffer(b2, l0_b_ * t_.l0_buffers * size);
    pipe.InitBuffer(co1, l0_c_ * t_.l0c_buffers * sizeof(Acc));
    a1_ = a1.template Get<In>();
    b1_ = b1.template Get<In>();
    a2_ = a2.template Get<In>();
    b2_ = b2.template Get<In>();
    co1_ = co1.template Get<Acc>();
    const uint32_t scale_bytes = Sink::kScales ? t_.tile_n * sizeof(uint64_t) : 0;
    const uint32_t bias_bytes = t_.has_bias != 0 ? t_.tile_n * sizeof(Acc) : 0;
    if (scale_bytes + bias_bytes > 0) {
      pipe.InitBuffer(c1, scale_bytes + bias_bytes);
      if constexpr (Sink::kScales) sink_.Take(c1.template GetWithOffset<uint64_t>(t_.tile_n, 0));
      bias1_ = c1.template GetWithOffset<Acc>(t_.tile_n, scale_bytes);
    }
    if (bias_bytes > 0) {
      pipe.InitBuffer(c2, bias_bytes);
      bias2_ = c2.template Get<Acc>();
    }
    pipe.Destroy();  // events are this kernel's own
  }

  // Every buffer starts free, and is waited for once more at the end, so that no flag is left set.
  __aicore__ inline void ReleaseAllBuffers() {
    for (int32_t i = 0; i < t_.l1_buffers; ++i) {
      SetFlag<HardEvent::MTE1_MTE2>(i);
      SetFlag<HardEvent::MTE1_MTE2>(kEventB + i);
    }
    for (int32_t i = 0; i < t_.l0_buffers; ++i) SetFlag<HardEvent::M_MTE1>(i);
    if (t_.unit_flag == 0)
      for (int32_t i = 0; i < t_.l0c_buffers; ++i) SetFlag<HardEvent::FIX_M>(i);
    if (t_.has_bias != 0) {
      SetFlag<HardEvent::MTE1_MTE2>(kEventBias);
      SetFlag<HardEvent::M_MTE1>(kEventBias);
    }
    sink_.Open();
  }
  __aicore__ inline void WaitForAllBuffers() {
    for (int32_t i = 0; i < t_.l1_buffers; ++i) {
      WaitFlag<HardEvent::MTE1_MTE2>(i);
      WaitFlag<HardEvent::MTE1_MTE2>(kEventB + i);
    }
    for (int32_t i = 0; i < t_.l0_buffers; ++i) WaitFlag<HardEvent::M_MTE1>(i);
    if (t_.unit_flag == 0)
      for (int32_t i = 0; i < t_.l0c_buffers; ++i) WaitFlag<HardEvent::FIX_M>(i);
    if (t_.has_bias != 0) {
      WaitFlag<HardEvent::MTE1_MTE2>(kEventBias);
      WaitFlag<HardEvent::M_MTE1>(kEventBias);
    }
    sink_.Close();
  }

  __aicore__ inline void LoadNextA() {
    Loader& l = next_a_;
    const int32_t slot = l.issued % t_.l1_buffers;
    const int32_t k0 = l.chunk * t_.step_ka * t_.tile_k;
    const int32_t columns = Min(t_.step_ka * t_.tile_k, t_.k - k0);
    const Spot& s = l.tiles.Now();
    // One row is read by the cube as it lies (GEMV), so it stays contiguous.
    const int32_t rows = CubeRows(s.rows), pitch = rows == 1 ? 1 : RoundUp(rows, kFractal);
    WaitFlag<HardEvent::MTE1_MTE2>(slot);
    ToFractals(a1_[slot * l1_a_], a_[static_cast<uint64_t>(s.row) * t_.lda + k0], s.rows, columns, t_.lda,
               pitch);
    SetFlag<HardEvent::MTE2_MTE1>(slot);
    Issued(l, t_.step_ka);
  }
  __aicore__ inline void LoadNextB() {
    Loader& l = next_b_;
    const int32_t slot = l.issued % t_.l1_buffers;
    const int32_t k0 = l.chunk * t_.step_kb * t_.tile_k;
    const int32_t k = Min(t_.step_kb * t_.tile_k, t_.k - k0);
    const Spot& s = l.tiles.Now();
    const GlobalTensor<In> b = b_[static_cast<uint64_t>(s.matrix) * b_step_];
    const uint64_t n0 = static_cast<uint64_t>(s.column);
    WaitFlag<HardEvent::MTE1_MTE2>(kEventB + slot);
    if (t_.b_layout == 0)
      ToFractals(b1_[slot * l1_b_], b[static_cast<uint64_t>(k0) * t_.ldb + n0], k, s.columns, t_.ldb,
                 ChunkRows<In>(k));
    else if (t_.b_layout == 2)
      FromFractals(b1_[slot * l1_b_], b[n0 * t_.ldb + static_cast<uint64_t>(k0) * C0<In>()], k, s.columns,
                   t_.ldb, ChunkRows<In>(k));
    else
      ToFractals(b1_[slot * l1_b_], b[n0 * t_.ldb + k0], s.columns, k, t_.ldb, RoundUp(s.columns, kFractal));
    SetFlag<HardEvent::MTE2_MTE1>(kEventB + slot);
    Issued(l, t_.step_kb);
  }
  __aicore__ inline bool HasRoom(const Loader& l) const {
    return l.issued - l.consumed < static_cast<uint32_t>(t_.l1_buffers);
  }
  __aicore__ inline void Issued(Loader& l, int32_t step) {
    ++l.issued;
    if (++l.chunk * step < k_tiles_) return;
    l.chunk = 0;
    l.tiles.Next();
  }

  __aicore__ inline void LoadBias(const Spot& s, int32_t columns) {
    const int32_t count = RoundUp(columns, kFractal);
    WaitFlag<HardEvent::MTE1_MTE2>(kEventBias);
    const uint64_t at = static_cast<uint64_t>(s.matrix) * bias_step_ + static_cast<uint64_t>(s.column);
    AscendC::DataCopy(bias1_, bias_[at], static_cast<uint32_t>(count));
    SetFlag<HardEvent::MTE2_MTE1>(kEventBias);
    WaitFlag<HardEvent::MTE2_MTE1>(kEventBias);
    WaitFlag<HardEvent::M_MTE1>(kEventBias);
    AscendC::DataCopyParams p;
    p.blockLen = static_cast<uint16_t>(count * sizeof(Acc) / 64);
    AscendC::DataCopy(bias2_, bias1_, p);
    SetFlag<HardEvent::MTE1_MTE2>(kEventBias);
  }

  __aicore__ inline void ComputeTile(const Spot& s) {
    const int32_t m = CubeRows(s.rows), cube_n = CubeColumns(s.columns);
    const int32_t slot = tiles_done_++ % t_.l0c_buffers;
    const LocalTensor<Acc> c = co1_[slot * l0_c_];
    if (t_.has_bias != 0) LoadBias(s, cube_n);
    sink_.Begin(s);
    if (t_.unit_flag == 0) WaitFlag<HardEvent::FIX_M>(slot);
    for (int32_t k_tile = 0; k_tile < k_tiles_; ++k_tile) Step(c, k_tile, m, s.columns, cube_n);
    Store(c, s, slot, m);
  }

  // One tile along K: L1 -> L0 -> Mmad.
  __aicore__ inline void Step(const LocalTensor<Acc>& c, int32_t k_tile, int32_t m, int32_t n,
                              int32_t cube_n) {
    const int32_t k = Min(t_.tile_k, t_.k - k_tile * t_.tile_k);
    const bool last = k_tile + 1 == k_tiles_;
    const int32_t in_a = k_tile % t_.step_ka, in_b = k_tile % t_.step_kb;
    if (in_b == 0)
      while (next_b_.tiles.Valid() && HasRoom(next_b_)) LoadNextB();
    if (in_a == 0)
      while (next_a_.tiles.Valid() && HasRoom(next_a_)) LoadNextA();
    const int32_t slot_a = next_a_.consumed % t_.l1_buffers, slot_b = next_b_.consumed % t_.l1_buffers;
    const int32_t l0 = steps_done_++ % t_.l0_buffers;
    const LocalTensor<In> a2 = a2_[l0 * l0_a_], b2 = b2_[l0 * l0_b_];
    WaitFlag<HardEvent::M_MTE1>(l0);
    if (in_a == 0) WaitFlag<HardEvent::MTE2_MTE1>(slot_a);
    LoadA(a2, a1_[slot_a * l1_a_], in_a * t_.tile_k, m, k);
    if (last || in_a + 1 == t_.step_ka) {
      SetFlag<HardEvent::MTE1_MTE2>(slot_a);
      ++next_a_.consumed;
    }
    if (in_b == 0) WaitFlag<HardEvent::MTE2_MTE1>(kEventB + slot_b);
    const LocalTensor<In> b1 = b1_[slot_b * l1_b_];
    const int32_t chunk_k = Min(t_.step_kb * t_.tile_k, t_.k - (k_tile - in_b) * t_.tile_k);
    if (t_.b_layout != 1)
      LoadTransposedB(b2, b1, in_b * t_.tile_k, chunk_k, n, k);
    else
      LoadB(b2, b1, in_b * t_.tile_k, n, k);
    if (last || in_b + 1 == t_.step_kb) {
      SetFlag<HardEvent::MTE1_MTE2>(kEventB + slot_b);
      ++next_b_.consumed;
    }
    SetFlag<HardEvent::MTE1_M>(l0);
    WaitFlag<HardEvent::MTE1_M>(l0);
    Multiply(c, a2, b2, k_tile, m, cube_n, k);
    SetFlag<HardEvent::M_MTE1>(l0);
    if (!last && (m / kFractal) * (cube_n / kFractal) < kSmallTile) AscendC::PipeBarrier<PIPE_M>();
  }

  __aicore__ inline void Multiply(const LocalTensor<Acc>& c, const LocalTensor<In>& a2,
                                  const LocalTensor<In>& b2, int32_t k_tile, int32_t m, int32_t n,
                                  int32_t k) {
    AscendC::MmadParams p;
    p.m = static_cast<uint16_t>(m);
    p.n = static_cast<uint16_t>(n);
    p.k = static_cast<uint16_t>(k);
    p.cmatrixInitVal = k_tile == 0 && t_.has_bias == 0;
    if (t_.unit_flag != 0) p.unitFlag = k_tile + 1 == k_tiles_ ? 3 : 2;
    if (k_tile == 0 && t_.has_bias != 0) {
      AscendC::Mmad(c, a2, b2, bias2_, p);
      SetFlag<HardEvent::M_MTE1>(kEventBias);
    } else {
      AscendC::Mmad(c, a2, b2, p);
    }
  }

  __aicore__ inline void Store(const LocalTensor<Acc>& c, const Spot& s, int32_t slot, int32_t m) {
    AscendC::FixpipeParamsV220 p;
    p.nSize = static_cast<uint16_t>(s.columns);
    p.mSize = static_cast<uint16_t>(s.rows);
    p.srcStride = static_cast<uint16_t>(RoundUp(m, kFractal));
    p.unitFlag = t_.unit_flag != 0 ? 3 : 0;
    if (t_.unit_flag == 0) {
      SetFlag<HardEvent::M_FIX>(slot);
      WaitFlag<HardEvent::M_FIX>(slot);
    }
    sink_.Store(c, p, s);
    if (t_.unit_flag == 0) SetFlag<HardEvent::FIX_M>(slot);
  }

  const TwGemmTiling& t_;
  Sink& sink_;
  GlobalTensor<In> a_, b_;
  GlobalTensor<Acc> bias_;
  LocalTensor<In> a1_, b1_, a2_, b2_;
  LocalTensor<Acc> co1_, bias1_, bias2_;
  uint64_t b_step_ = 0, bias_step_ = 0;
  int32_t l1_a_ = 0, l1_b_ = 0, l0_a_ = 0, l0_b_ = 0, l0_c_ = 0;  // elements of one buffer
  int32_t k_tiles_ = 0;
  uint32_t tiles_done_ = 0, steps_done_ = 0;
  Loader next_a_, next_b_;
};

}  // namespace tw_gemm
