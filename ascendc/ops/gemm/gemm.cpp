// C[M,N] = A[M,K] @ B (+ bias[N]) on the cube cores, one source for CANN and for the twin.
//
// Each core owns a rectangle of output tiles. Per tile: GM -> L1 (row-major to fractals) -> L0A, L0B -> Mmad
// -> L0C -> Fixpipe -> GM. L1 holds step_ka (step_kb) tiles along K per load, double-buffered and loaded one
// load ahead, across output tiles too; L0A, L0B and L0C are double-buffered. All of it is chosen by the
// tiling.
//
// bias: float (int32 for int8), padded by the host to a multiple of 32 columns; added before any scaling.
// scale: for gemm_int8_fp16, one uint64 a column as VDEQF16 takes it, padded likewise.
// Empty M, N or K: the kernel does nothing; the host fills C when K is 0.
#include "gemm_load.h"
#include "gemm_tiling.h"
#include "kernel_operator.h"

namespace {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::TBuf;
using AscendC::TPosition;
using AscendC::WaitFlag;
using namespace tw_gemm;

constexpr int32_t kSmallTile = 10;  // fractals of C below which consecutive Mmads need a barrier
// Event ids per pair of pipes: A's L1 buffers 0, 1; B's 2, 3; the bias 4. L0 and L0C buffers 0, 1.
constexpr int32_t kEventB = 2, kEventBias = 4, kEventScale = 0;

template <typename In, typename Acc, typename Out, QuantMode_t kQuant>
class Gemm {
 public:
  __aicore__ inline Gemm() {}

  __aicore__ inline void Init(GM_ADDR a, GM_ADDR b, GM_ADDR bias, GM_ADDR scale, GM_ADDR c, GM_ADDR tiling) {
    ReadTiling(tiling);
    a_.SetGlobalBuffer(reinterpret_cast<__gm__ In*>(a));
    b_.SetGlobalBuffer(reinterpret_cast<__gm__ In*>(b));
    bias_.SetGlobalBuffer(reinterpret_cast<__gm__ Acc*>(bias));
    scale_.SetGlobalBuffer(reinterpret_cast<__gm__ uint64_t*>(scale));
    c_.SetGlobalBuffer(reinterpret_cast<__gm__ Out*>(c));
  }

  __aicore__ inline void Process() {
    if (t_.m <= 0 || t_.n <= 0 || t_.k <= 0) return;
    Partition();
    AllocateBuffers();
    ReleaseAllBuffers();
    if (t_.unit_flag != 0) AscendC::SetMMRowMajor();
    Cursor tile;
    First(tile);
    First(next_a_.tile);
    First(next_b_.tile);
    for (; tile.valid; Next(tile)) ComputeTile(tile);
    WaitForAllBuffers();
  }

 private:
  static constexpr bool kDequant = kQuant == QuantMode_t::VDEQF16;
  static constexpr bool kInt8 = sizeof(In) == 1;

  // An output tile in this core's order.
  struct Cursor {
    int32_t split, m_tile, m_end, n_tile;
    bool valid;
  };
  // The next L1 load of one input.
  struct Loader {
    Cursor tile;
    int32_t chunk = 0;                  // loads of this tile done
    uint32_t issued = 0, consumed = 0;  // unsigned: they count past 2^31 on large shapes
  };

  __aicore__ inline void ReadTiling(GM_ADDR tiling) {
    GlobalTensor<int32_t> words;
    words.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(tiling));
    int32_t* fields = reinterpret_cast<int32_t*>(&t_);
    for (uint32_t i = 0; i < sizeof(TwGemmTiling) / sizeof(int32_t); ++i) fields[i] = words.GetValue(i);
  }

  __aicore__ inline void Partition() {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    core_m_ = block / t_.grid_n;
    const int32_t core_n = block % t_.grid_n;
    m_tiles_ = CeilDiv(t_.m, t_.tile_m);
    split_tiles_ = CeilDiv(m_tiles_, t_.l2_split_m);
    k_tiles_ = CeilDiv(t_.k, t_.tile_k);
    const int32_t n_tiles = CeilDiv(t_.n, t_.tile_n);
    const int32_t share = CeilDiv(n_tiles, t_.grid_n);
    n_begin_ = Min(core_n * share, n_tiles);
    n_end_ = Min(n_begin_ + share, n_tiles);
    if (core_m_ >= t_.grid_m) n_end_ = n_begin_;
  }

  __aicore__ inline void EnterSplit(Cursor& c) {
    for (; c.split < t_.l2_split_m; ++c.split) {
      const int32_t begin = Min(c.split * split_tiles_, m_tiles_);
      const int32_t end = Min(begin + split_tiles_, m_tiles_);
      const int32_t share = CeilDiv(end - begin, t_.grid_m);
      c.m_tile = Min(begin + core_m_ * share, end);
      c.m_end = Min(c.m_tile + share, end);
      if (c.m_tile < c.m_end) return;
    }
    c.valid = false;
  }
  __aicore__ inline void First(Cursor& c) {
    c.split = 0;
    c.m_tile = 0;
    c.m_end = 0;
    c.n_tile = n_begin_;
    c.valid = n_begin_ < n_end_;
    if (c.valid) EnterSplit(c);
  }
  __aicore__ inline void Next(Cursor& c) {
    if (++c.n_tile < n_end_) return;
    c.n_tile = n_begin_;
    if (++c.m_tile < c.m_end) return;
    ++c.split;
    EnterSplit(c);
  }

  __aicore__ inline int32_t RowsOf(const Cursor& c) const {
    return Min(t_.tile_m, t_.m - c.m_tile * t_.tile_m);
  }
  __aicore__ inline int32_t ColumnsOf(const Cursor& c) const {
    return Min(t_.tile_n, t_.n - c.n_tile * t_.tile_n);
  }
  // Columns the cube works on: 8-bit transposes come in squares of 32.
  __aicore__ inline int32_t CubeColumns(int32_t columns) const {
    return kInt8 && t_.b_layout != 1 ? RoundUp(columns, 32) : columns;
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
    const uint32_t scale_bytes = kDequant ? t_.tile_n * sizeof(uint64_t) : 0;
    const uint32_t bias_bytes = t_.has_bias != 0 ? t_.tile_n * sizeof(Acc) : 0;
    if (scale_bytes + bias_bytes > 0) {
      pipe.InitBuffer(c1, scale_bytes + bias_bytes);
      scale1_ = c1.template GetWithOffset<uint64_t>(t_.tile_n, 0);
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
    if (kDequant) SetFlag<HardEvent::FIX_MTE2>(kEventScale);
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
    if (kDequant) WaitFlag<HardEvent::FIX_MTE2>(kEventScale);
  }

  __aicore__ inline void LoadNextA() {
    Loader& l = next_a_;
    const int32_t slot = l.issued % t_.l1_buffers;
    const int32_t k0 = l.chunk * t_.step_ka * t_.tile_k;
    const int32_t columns = Min(t_.step_ka * t_.tile_k, t_.k - k0);
    const int32_t rows = RowsOf(l.tile);
    // One row is read by the cube as it lies (GEMV), so it stays contiguous.
    const int32_t pitch = rows == 1 ? 1 : RoundUp(rows, kFractal);
    WaitFlag<HardEvent::MTE1_MTE2>(slot);
    ToFractals(a1_[slot * l1_a_], a_[static_cast<uint64_t>(l.tile.m_tile) * t_.tile_m * t_.lda + k0], rows,
               columns, t_.lda, pitch);
    SetFlag<HardEvent::MTE2_MTE1>(slot);
    Issued(l, t_.step_ka);
  }
  __aicore__ inline void LoadNextB() {
    Loader& l = next_b_;
    const int32_t slot = l.issued % t_.l1_buffers;
    const int32_t k0 = l.chunk * t_.step_kb * t_.tile_k;
    const int32_t k = Min(t_.step_kb * t_.tile_k, t_.k - k0);
    const int32_t n = ColumnsOf(l.tile);
    const uint64_t n0 = static_cast<uint64_t>(l.tile.n_tile) * t_.tile_n;
    WaitFlag<HardEvent::MTE1_MTE2>(kEventB + slot);
    if (t_.b_layout == 0)
      ToFractals(b1_[slot * l1_b_], b_[static_cast<uint64_t>(k0) * t_.ldb + n0], k, n, t_.ldb,
                 ChunkRows<In>(k));
    else if (t_.b_layout == 2)
      FromFractals(b1_[slot * l1_b_], b_[n0 * t_.ldb + static_cast<uint64_t>(k0) * C0<In>()], k, n, t_.ldb,
                   ChunkRows<In>(k));
    else
      ToFractals(b1_[slot * l1_b_], b_[n0 * t_.ldb + k0], n, k, t_.ldb, RoundUp(n, kFractal));
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
    Next(l.tile);
  }

  __aicore__ inline void LoadBias(int32_t n0, int32_t columns) {
    const int32_t count = RoundUp(columns, kFractal);
    WaitFlag<HardEvent::MTE1_MTE2>(kEventBias);
    AscendC::DataCopy(bias1_, bias_[n0], static_cast<uint32_t>(count));
    SetFlag<HardEvent::MTE2_MTE1>(kEventBias);
    WaitFlag<HardEvent::MTE2_MTE1>(kEventBias);
    WaitFlag<HardEvent::M_MTE1>(kEventBias);
    AscendC::DataCopyParams p;
    p.blockLen = static_cast<uint16_t>(count * sizeof(Acc) / 64);
    AscendC::DataCopy(bias2_, bias1_, p);
    SetFlag<HardEvent::MTE1_MTE2>(kEventBias);
  }
  __aicore__ inline void LoadScale(int32_t n0, int32_t columns) {
    WaitFlag<HardEvent::FIX_MTE2>(kEventScale);
    AscendC::DataCopy(scale1_, scale_[n0], static_cast<uint32_t>(RoundUp(columns, kFractal)));
    SetFlag<HardEvent::MTE2_FIX>(kEventScale);
  }

  __aicore__ inline void ComputeTile(const Cursor& tile) {
    const int32_t m = RowsOf(tile), n = ColumnsOf(tile), cube_n = CubeColumns(n);
    const int32_t n0 = tile.n_tile * t_.tile_n;
    const int32_t slot = tiles_done_++ % t_.l0c_buffers;
    const LocalTensor<Acc> c = co1_[slot * l0_c_];
    if (t_.has_bias != 0) LoadBias(n0, cube_n);
    if (kDequant) LoadScale(n0, n);
    if (t_.unit_flag == 0) WaitFlag<HardEvent::FIX_M>(slot);
    for (int32_t k_tile = 0; k_tile < k_tiles_; ++k_tile) Step(c, k_tile, m, n, cube_n);
    Store(c, tile, slot, m, n, n0);
  }

  // One tile along K: L1 -> L0 -> Mmad.
  __aicore__ inline void Step(const LocalTensor<Acc>& c, int32_t k_tile, int32_t m, int32_t n,
                              int32_t cube_n) {
    const int32_t k = Min(t_.tile_k, t_.k - k_tile * t_.tile_k);
    const bool last = k_tile + 1 == k_tiles_;
    const int32_t in_a = k_tile % t_.step_ka, in_b = k_tile % t_.step_kb;
    if (in_b == 0)
      while (next_b_.tile.valid && HasRoom(next_b_)) LoadNextB();
    if (in_a == 0)
      while (next_a_.tile.valid && HasRoom(next_a_)) LoadNextA();
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

  __aicore__ inline void Store(const LocalTensor<Acc>& c, const Cursor& tile, int32_t slot, int32_t m,
                               int32_t n, int32_t n0) {
    AscendC::FixpipeParamsV220 p;
    p.nSize = static_cast<uint16_t>(n);
    p.mSize = static_cast<uint16_t>(m);
    p.srcStride = static_cast<uint16_t>(RoundUp(m, kFractal));
    p.dstStride = static_cast<uint32_t>(t_.ldc);
    p.quantPre = kQuant;
    p.unitFlag = t_.unit_flag != 0 ? 3 : 0;
    const GlobalTensor<Out> dst = c_[static_cast<uint64_t>(tile.m_tile) * t_.tile_m * t_.ldc + n0];
    if (t_.unit_flag == 0) {
      SetFlag<HardEvent::M_FIX>(slot);
      WaitFlag<HardEvent::M_FIX>(slot);
    }
    if constexpr (kDequant) {
      WaitFlag<HardEvent::MTE2_FIX>(kEventScale);
      AscendC::Fixpipe<Out, Acc, AscendC::CFG_ROW_MAJOR>(dst, c, scale1_, p);
      SetFlag<HardEvent::FIX_MTE2>(kEventScale);
    } else {
      AscendC::Fixpipe<Out, Acc, AscendC::CFG_ROW_MAJOR>(dst, c, p);
    }
    if (t_.unit_flag == 0) SetFlag<HardEvent::FIX_M>(slot);
  }

  TwGemmTiling t_;
  GlobalTensor<In> a_, b_;
  GlobalTensor<Acc> bias_;
  GlobalTensor<uint64_t> scale_;
  GlobalTensor<Out> c_;
  LocalTensor<In> a1_, b1_, a2_, b2_;
  LocalTensor<Acc> co1_, bias1_, bias2_;
  LocalTensor<uint64_t> scale1_;
  int32_t l1_a_, l1_b_, l0_a_, l0_b_, l0_c_;  // elements of one buffer
  int32_t core_m_, n_begin_, n_end_, m_tiles_, split_tiles_, k_tiles_;
  uint32_t tiles_done_ = 0, steps_done_ = 0;
  Loader next_a_, next_b_;
};

}  // namespace

#define TW_GEMM_KERNEL(name, In, Acc, Out, quant)                                                          \
  extern "C" __global__ __aicore__ void name(GM_ADDR a, GM_ADDR b, GM_ADDR bias, GM_ADDR scale, GM_ADDR c, \
                                             GM_ADDR workspace, GM_ADDR tiling) {                          \
    (void)workspace;                                                                                       \
    Gemm<In, Acc, Out, quant> gemm;                                                                        \
    gemm.Init(a, b, bias, scale, c, tiling);                                                               \
    gemm.Process();                                                                                        \
  }

TW_GEMM_KERNEL(gemm_fp32, float, float, float, QuantMode_t::NoQuant)
TW_GEMM_KERNEL(gemm_fp16, half, float, half, QuantMode_t::F322F16)
TW_GEMM_KERNEL(gemm_fp16_fp32, half, float, float, QuantMode_t::NoQuant)
TW_GEMM_KERNEL(gemm_bf16, bfloat16_t, float, bfloat16_t, QuantMode_t::F322BF16)
TW_GEMM_KERNEL(gemm_int8, int8_t, int32_t, int32_t, QuantMode_t::NoQuant)
TW_GEMM_KERNEL(gemm_int8_fp16, int8_t, int32_t, half, QuantMode_t::VDEQF16)
