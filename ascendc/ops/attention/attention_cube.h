// The cube core's part: S^T = K Q^T, `preload` steps ahead, and PV. Scores lie transposed, a key a row, so
// that the vector cores find a query in each lane; offsets and sizes count elements.
#pragma once

#include "attention_steps.h"

namespace tw_attention {

using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::TBuf;
using AscendC::TPosition;
using AscendC::WaitFlag;

constexpr int32_t kSmallTile = 10;     // fractals of C below which consecutive Mmads need a barrier
constexpr int32_t kMaxStride = 65535;  // of a source row, in one Nd2Nz
constexpr int32_t kValues =
    2;  // event ids between MTE2 and MTE1: keys (and queries) 0, 1; values (and weights) 2, 3

// `rows` x `columns` of a row-major matrix into fractals; `pitch` rows of L1 lie between two fractal columns.
template <typename T>
__aicore__ inline void ToFractals(const LocalTensor<T>& dst, const GlobalTensor<T>& src, int32_t rows,
                                  int32_t columns, int32_t ld, int32_t pitch) {
  AscendC::Nd2NzParams p;
  p.ndNum = 1;
  p.nValue = static_cast<uint16_t>(rows);
  p.dValue = static_cast<uint16_t>(columns);
  p.srcNdMatrixStride = 0;
  p.srcDValue = static_cast<uint16_t>(ld);
  p.dstNzC0Stride = static_cast<uint16_t>(pitch);
  p.dstNzNStride = 1;
  p.dstNzMatrixStride = 0;
  if (ld <= kMaxStride) {
    AscendC::DataCopy(dst, src, p);
    return;
  }
  p.nValue = 1;
  p.srcDValue = static_cast<uint16_t>(columns);
  for (int32_t row = 0; row < rows; ++row)
    AscendC::DataCopy(dst[row * kFractal], src[static_cast<uint64_t>(row) * ld], p);
}

template <typename T>
class Cube {
 public:
  __aicore__ inline Cube(const TwAttentionTiling& tiling) : t_(tiling), ring_(tiling) {}

  __aicore__ inline void Init(GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR workspace) {
    q_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(q));
    k_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(k));
    v_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(v));
    workspace_ = workspace + AscendC::GetBlockIdx() * ring_.Bytes();
    AllocateBuffers();
  }

  __aicore__ inline void Process(const Walk& start) {
    Walk keys = start, scores = start, sums = start;
    Release();
    if (keys.Valid()) LoadKeys(keys);
    uint32_t ahead = 0;
    while (sums.Valid()) {
      if (scores.Valid()) {
        if (keys.Valid()) LoadKeys(keys);
        Scores(scores.Now());
        scores.Next();
        if (ahead < static_cast<uint32_t>(t_.preload)) {
          ++ahead;
          continue;
        }
      }
      Sums(sums.Now());
      sums.Next();
    }
    Drain();
  }

 private:
  __aicore__ inline void AllocateBuffers() {
    AscendC::TPipe pipe;
    TBuf<TPosition::A1> l1;
    TBuf<TPosition::A2> a2;
    TBuf<TPosition::B2> b2;
    TBuf<TPosition::CO1> co1;
    keys_size_ = t_.tile_k * t_.dk;
    queries_size_ = t_.tile_q * t_.dk;
    values_size_ = t_.tile_k * t_.dv;
    weights_size_ = t_.tile_k * t_.tile_q;
    a_size_ = Max(t_.chunk * t_.dk, t_.chunk * t_.tile_q);
    b_size_ = Max(t_.tile_q * t_.dk, t_.chunk * t_.dv);
    c_size_ = t_.tile_q * Max(t_.chunk, t_.dv);
    const uint32_t size = sizeof(T);
    const int32_t all = 2 * (keys_size_ + queries_size_ + values_size_ + weights_size_);
    pipe.InitBuffer(l1, all * size);
    pipe.InitBuffer(a2, 2 * a_size_ * size);
    pipe.InitBuffer(b2, 2 * b_size_ * size);
    pipe.InitBuffer(co1, 2 * c_size_ * sizeof(float));
    l1_keys_ = l1.template GetWithOffset<T>(2 * keys_size_, 0);
    l1_queries_ = l1.template GetWithOffset<T>(2 * queries_size_, 2 * keys_size_ * size);
    l1_values_ = l1.template GetWithOffset<T>(2 * values_size_, 2 * (keys_size_ + queries_size_) * size);
    l1_weights_ = l1.template GetWithOffset<T>(2 * weights_size_,
                                               2 * (keys_size_ + queries_size_ + values_size_) * size);
    a2_ = a2.template Get<T>();
    b2_ = b2.template Get<T>();
    co1_ = co1.template Get<float>();
    pipe.Destroy();  // events are this kernel's own
  }

  // Every buffer starts free, and is waited for once more at the end, so that no flag is left set.
  __aicore__ inline void Release() {
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::MTE1_MTE2>(i);
      SetFlag<HardEvent::MTE1_MTE2>(kValues + i);
      SetFlag<HardEvent::M_MTE1>(i);
      SetFlag<HardEvent::FIX_M>(i);
    }
  }
  __aicore__ inline void Drain() {
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::MTE1_MTE2>(i);
      WaitFlag<HardEvent::MTE1_MTE2>(kValues + i);
      WaitFlag<HardEvent::M_MTE1>(i);
      WaitFlag<HardEvent::FIX_M>(i);
    }
  }

  // The keys of a step, and before the first of a tile its queries: that buffer is free once the keys' is,
  // which was read two steps before.
  __aicore__ inline void LoadKeys(Walk& walk) {
    const Step& s = walk.Now();
    const int32_t slot = s.number % 2;
    WaitFlag<HardEvent::MTE1_MTE2>(slot);
    if (s.first && s.keys > 0) {
      const uint64_t at = Offset(s.batch, t_.q_b, s.q_row, t_.q_s, s.head, t_.q_h);
      ToFractals(l1_queries_[(s.item % 2) * queries_size_], q_[at], s.rows, t_.dk, t_.q_s,
                 RoundUp(s.rows, kFractal));
    }
    if (s.keys > 0) {
      const uint64_t at = Offset(s.batch, t_.k_b, s.k_row, t_.k_s, s.kv_head, t_.k_h);
      ToFractals(l1_keys_[slot * keys_size_], k_[at], s.keys, t_.dk, t_.k_s, RoundUp(s.keys, kFractal));
    }
    SetFlag<HardEvent::MTE2_MTE1>(slot);
    walk.Next();
  }

  __aicore__ inline static uint64_t Offset(int32_t b, int32_t b_step, int32_t s, int32_t s_step, int32_t h,
                                           int32_t h_step) {
    return static_cast<uint64_t>(b) * b_step + static_cast<uint64_t>(s) * s_step +
           static_cast<uint64_t>(h) * h_step;
  }

  // S^T of a step: chunks of keys, each multiplied whole and handed to both vector cores.
  __aicore__ inline void Scores(const Step& s) {
    const int32_t slot = s.number % 2;
    WaitFlag<HardEvent::MTE2_MTE1>(slot);
    GlobalTensor<float> out;
    out.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(workspace_ + ring_.Scores(s.number)));
    const int32_t columns = RoundUp(s.rows, kFractal), pitch = RoundUp(s.keys, kFractal);
    for (int32_t key = 0; key < s.keys; key += t_.chunk) {
      const int32_t rows = Min(t_.chunk, s.keys - key);
      const int32_t l0 = NextL0();
      const LocalTensor<T> a2 = a2_[l0 * a_size_], b2 = b2_[l0 * b_size_];
      LoadRows(a2, l1_keys_[slot * keys_size_], key, RoundUp(rows, kFractal), pitch);
      LoadQueries(b2, l1_queries_[(s.item % 2) * queries_size_], columns);
      if (key + t_.chunk >= s.keys) SetFlag<HardEvent::MTE1_MTE2>(slot);
      const int32_t c = NextC();
      Loaded(l0);
      // Whole fractals of rows: a single row would be taken for a vector.
      Multiply(co1_[c * c_size_], a2, b2, RoundUp(rows, kFractal), columns, t_.dk, true);
      SetFlag<HardEvent::M_MTE1>(l0);
      SetFlag<HardEvent::M_FIX>(c);
      WaitFlag<HardEvent::M_FIX>(c);
      StoreScores(out, co1_[c * c_size_], key, rows, columns);
      SetFlag<HardEvent::FIX_M>(c);
    }
    if (s.keys == 0) SetFlag<HardEvent::MTE1_MTE2>(slot);
    AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kScoresReady);
  }

  // Each vector core finds its half of the queries in rows of its own.
  __aicore__ inline void StoreScores(const GlobalTensor<float>& out, const LocalTensor<float>& c, int32_t key,
                                     int32_t rows, int32_t columns) {
    const int32_t lanes = t_.tile_q / 2;
    for (int32_t half = 0; half < 2; ++half) {
      const int32_t mine = Clamp(columns - half * lanes, 0, lanes);
      if (mine == 0) break;
      StoreFloats(out[(half * t_.tile_k + key) * lanes], c[half * lanes * RoundUp(rows, kFractal)], rows,
                  mine, lanes);
    }
  }
  __aicore__ inline void StoreFloats(const GlobalTensor<float>& out, const LocalTensor<float>& c,
                                     int32_t rows, int32_t columns, int32_t ld) {
    AscendC::FixpipeParamsV220 p;
    p.nSize = static_cast<uint16_t>(columns);
    p.mSize = static_cast<uint16_t>(rows);
    p.srcStride = static_cast<uint16_t>(RoundUp(rows, kFractal));
    p.dstStride = static_cast<uint32_t>(ld);
    p.quantPre = QuantMode_t::NoQuant;
    AscendC::Fixpipe<float, float, AscendC::CFG_ROW_MAJOR>(out, c, p);
  }

  // PV of a step. The weights come in fractals, transposed as the scores were.
  __aicore__ inline void Sums(const Step& s) {
    const int32_t slot = s.number % 2;
    const int32_t pitch = RoundUp(s.keys, kFractal);
    WaitFlag<HardEvent::MTE1_MTE2>(kValues + slot);
    if (s.keys > 0) {
      const uint64_t at = Offset(s.batch, t_.v_b, s.k_row, t_.v_s, s.kv_head, t_.v_h);
      ToFractals(l1_values_[slot * values_size_], v_[at], s.keys, t_.dv, t_.v_s, pitch);
    }
    AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kWeightsReady);
    if (s.keys > 0) {
      GlobalTensor<T> weights;
      weights.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(workspace_ + ring_.Weights(s.number)));
      const int32_t half = t_.tile_q / 2;
      AscendC::DataCopy(
          l1_weights_[slot * weights_size_], weights,
          AscendC::DataCopyParams(static_cast<uint16_t>(Lanes(s) / half),
                                  static_cast<uint16_t>(half * pitch / kFractal),
                                  static_cast<uint16_t>(half * (t_.tile_k - pitch) / kFractal), 0));
    }
    SetFlag<HardEvent::MTE2_MTE1>(kValues + slot);
    WaitFlag<HardEvent::MTE2_MTE1>(kValues + slot);
    if (s.keys > 0) {
      MultiplyValues(s, slot, pitch);
    } else {
      SetFlag<HardEvent::MTE1_MTE2>(kValues + slot);
      SetFlag<HardEvent::MTE2_FIX>(s.number % kAhead);
      WaitFlag<HardEvent::MTE2_FIX>(s.number % kAhead);
    }
    AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kSumsReady);
  }

  // Queries of the vector cores that have any: what the other one would read is not touched.
  __aicore__ inline int32_t Lanes(const Step& s) const {
    return s.rows > t_.tile_q / 2 ? t_.tile_q : t_.tile_q / 2;
  }

  __aicore__ inline void MultiplyValues(const Step& s, int32_t slot, int32_t pitch) {
    const int32_t c = NextC(), lanes = Lanes(s);
    const LocalTensor<float> sums = co1_[c * c_size_];
    for (int32_t key = 0; key < s.keys; key += t_.chunk) {
      const int32_t keys = Min(t_.chunk, s.keys - key);
      const bool last = key + t_.chunk >= s.keys;
      const int32_t l0 = NextL0();
      const LocalTensor<T> a2 = a2_[l0 * a_size_], b2 = b2_[l0 * b_size_];
      LoadWeights(a2, l1_weights_[slot * weights_size_], lanes, key, keys, pitch);
      LoadValues(b2, l1_values_[slot * values_size_], key, keys, pitch);
      if (last) SetFlag<HardEvent::MTE1_MTE2>(kValues + slot);
      Loaded(l0);
      Multiply(sums, a2, b2, lanes, t_.dv, keys, key == 0);
      SetFlag<HardEvent::M_MTE1>(l0);
      if (!last && (lanes / kFractal) * (t_.dv / kFractal) < kSmallTile) AscendC::PipeBarrier<PIPE_M>();
    }
    SetFlag<HardEvent::M_FIX>(c);
    WaitFlag<HardEvent::M_FIX>(c);
    GlobalTensor<float> out;
    out.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(workspace_ + ring_.Sums(s.number)));
    StoreFloats(out, sums, lanes, t_.dv, t_.dv);
    SetFlag<HardEvent::FIX_M>(c);
  }

  __aicore__ inline int32_t NextL0() {
    const int32_t l0 = l0_count_++ % 2;
    WaitFlag<HardEvent::M_MTE1>(l0);
    return l0;
  }
  __aicore__ inline void Loaded(int32_t l0) {
    SetFlag<HardEvent::MTE1_M>(l0);
    WaitFlag<HardEvent::MTE1_M>(l0);
  }
  __aicore__ inline int32_t NextC() {
    const int32_t c = c_count_++ % 2;
    WaitFlag<HardEvent::FIX_M>(c);
    return c;
  }

  __aicore__ inline void Multiply(const LocalTensor<float>& c, const LocalTensor<T>& a,
                                  const LocalTensor<T>& b, int32_t m, int32_t n, int32_t k, bool from_zero) {
    AscendC::MmadParams p;
    p.m = static_cast<uint16_t>(m);
    p.n = static_cast<uint16_t>(n);
    p.k = static_cast<uint16_t>(k);
    p.cmatrixInitVal = from_zero;
    AscendC::Mmad(c, a, b, p);
  }

  // Rows key.. of K, `rows` of them, -> L0A as [rows, dk].
  __aicore__ inline void LoadRows(const LocalTensor<T>& dst, const LocalTensor<T>& src, int32_t key,
                                  int32_t rows, int32_t pitch) {
    const int32_t columns = t_.dk / kFractal;
    AscendC::LoadData2DParams p;
    p.repeatTimes = static_cast<uint8_t>(columns);
    p.srcStride = static_cast<uint16_t>(pitch / kFractal);
    for (int32_t i = 0; i < rows / kFractal; ++i)
      AscendC::LoadData(dst[i * columns * kFractalElements], src[(key / kFractal + i) * kFractalElements], p);
  }
  // Q -> L0B as [dk, queries]: the fractals already lie as the cube wants.
  __aicore__ inline void LoadQueries(const LocalTensor<T>& dst, const LocalTensor<T>& src, int32_t queries) {
    AscendC::LoadData2DParams p;
    p.repeatTimes = static_cast<uint8_t>(t_.dk / kFractal * (queries / kFractal));
    p.srcStride = 1;
    AscendC::LoadData(dst, src, p);
  }
  // Keys key.. of P^T -> L0A as [lanes, keys]; fractals are square and transpose by themselves.
  __aicore__ inline void LoadWeights(const LocalTensor<T>& dst, const LocalTensor<T>& src, int32_t lanes,
                                     int32_t key, int32_t keys, int32_t pitch) {
    const int32_t columns = CeilDiv(keys, kFractal);
    AscendC::LoadData2DParams p;
    p.ifTranspose = true;
    p.repeatTimes = static_cast<uint8_t>(columns);
    p.srcStride = 1;
    for (int32_t i = 0; i < lanes / kFractal; ++i)
      AscendC::LoadData(dst[i * columns * kFractalElements], src[(i * pitch + key) * kFractal], p);
  }
  // Rows key.. of V -> L0B as [keys, dv].
  __aicore__ inline void LoadValues(const LocalTensor<T>& dst, const LocalTensor<T>& src, int32_t key,
                                    int32_t keys, int32_t pitch) {
    const int32_t columns = t_.dv / kFractal;
    AscendC::LoadData2DParams p;
    p.ifTranspose = true;
    p.repeatTimes = static_cast<uint8_t>(columns);
    p.srcStride = static_cast<uint16_t>(pitch / kFractal);
    for (int32_t i = 0; i < CeilDiv(keys, kFractal); ++i)
      AscendC::LoadData(dst[i * columns * kFractalElements], src[(key / kFractal + i) * kFractalElements], p);
  }

  const TwAttentionTiling& t_;
  const Workspace ring_;
  GM_ADDR workspace_ = nullptr;
  GlobalTensor<T> q_, k_, v_;
  LocalTensor<T> l1_keys_, l1_queries_, l1_values_, l1_weights_, a2_, b2_;
  LocalTensor<float> co1_;
  int32_t keys_size_, queries_size_, values_size_, weights_size_, a_size_, b_size_, c_size_;  // of one buffer
  uint32_t l0_count_ = 0, c_count_ = 0;
};

}  // namespace tw_attention
