// Partial results of the splits of a sequence, put together by their log-sum-exps on all vector cores.
#pragma once

#include "paged_rows.h"
#include "paged_vector.h"

namespace tw_paged {

constexpr int32_t kMergeRows = 8;
constexpr int32_t kMostSplits = 128;

template <typename T>
class Merge {
 public:
  __aicore__ inline void Init(const Arguments& a, const TwPagedTiling& tiling, int32_t tasks) {
    t_ = tiling;
    first_record_ = t_.cores + 1 + tasks * static_cast<int32_t>(sizeof(TwPagedTask) / sizeof(int32_t));
    plan_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(a.plan));
    o_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a.o));
    lse_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.lse));
    parts_ = Part<float>(a.workspace, t_.parts, 0, 0);
    part_lse_ = Part<float>(a.workspace, t_.part_lse, 0, 0);
    AscendC::TPipe pipe;
    weight_ = Take<TPosition::VECIN, float>(pipe, kMostSplits * kMergeRows * kBlock);
    for (int32_t i = 0; i < 2; ++i) part_[i] = Take<TPosition::VECIN, float>(pipe, kMergeRows * t_.dv);
    most_ = Take<TPosition::VECCALC, float>(pipe, kMergeRows * kBlock);
    sum_ = Take<TPosition::VECCALC, float>(pipe, kMergeRows * kBlock);
    total_ = Take<TPosition::VECCALC, float>(pipe, kMergeRows * t_.dv);
    out_ = Take<TPosition::VECOUT, T>(pipe, kMergeRows * t_.dv);
    lse_out_ = Take<TPosition::VECOUT, float>(pipe, kMergeRows * kBlock);
    pipe.Destroy();
  }

  // Rows of one (kv head, query) pair at a time, dealt round.
  __aicore__ inline void Process() {
    const int32_t cores = 2 * t_.cores;
    int32_t turn = static_cast<int32_t>(AscendC::GetBlockIdx());
    for (int32_t i = 0; i < 3; ++i) SetFlag<HardEvent::V_MTE2>(i);
    SetFlag<HardEvent::MTE3_V>(0);
    for (int32_t i = 0; i < t_.merges; ++i) {
      TwPagedMerge m;
      int32_t* fields = reinterpret_cast<int32_t*>(&m);
      constexpr int32_t kWords = sizeof(TwPagedMerge) / sizeof(int32_t);
      for (int32_t w = 0; w < kWords; ++w)
        fields[w] = plan_.GetValue(static_cast<uint64_t>(first_record_) + i * kWords + w);
      const int32_t pairs = t_.tile_heads * m.queries;
      for (; turn < pairs; turn += cores)
        for (int32_t row = 0; row < t_.group; row += kMergeRows)
          Rows(m, turn, row, Min(kMergeRows, t_.group - row));
      turn -= pairs;
    }
    for (int32_t i = 0; i < 3; ++i) WaitFlag<HardEvent::V_MTE2>(i);
    WaitFlag<HardEvent::MTE3_V>(0);
  }

 private:
  __aicore__ inline void Rows(const TwPagedMerge& m, int32_t pair, int32_t row, int32_t n) {
    const int32_t from = m.part + pair * t_.group + row, lanes = n * kBlock;
    AscendC::Duplicate(most_, kNone, lanes);
    AscendC::Duplicate(sum_, 0.0f, lanes);
    AscendC::Duplicate(total_, 0.0f, n * t_.dv);
    VectorBarrier();
    if (m.splits > 0) Weights(m, from, n);
    for (int32_t i = 0; i < m.splits; ++i) {
      const int32_t slot = static_cast<int32_t>(loaded_++ % 2);
      WaitFlag<HardEvent::V_MTE2>(slot);
      AscendC::DataCopy(part_[slot], parts_[(static_cast<int64_t>(from) + i * m.stride) * t_.dv],
                        static_cast<uint32_t>(n * t_.dv));
      SetFlag<HardEvent::MTE2_V>(slot);
      WaitFlag<HardEvent::MTE2_V>(slot);
      MulRows(part_[slot], weight_[i * lanes], n, t_.dv, t_.dv);
      VectorBarrier();
      AscendC::Add(total_, total_, part_[slot], n * t_.dv);
      VectorBarrier();
      SetFlag<HardEvent::V_MTE2>(slot);
    }
    if (m.splits > 0) SetFlag<HardEvent::V_MTE2>(2);
    WaitFlag<HardEvent::MTE3_V>(0);
    AscendC::Ln(lse_out_, sum_, lanes);
    AscendC::Maxs(sum_, sum_, kTiny, lanes);
    VectorBarrier();
    AscendC::Add(lse_out_, lse_out_, most_, lanes);
    DivRows(total_, sum_, n, t_.dv, t_.dv);
    VectorBarrier();
    Narrow(out_, total_, n * t_.dv);
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    const int32_t head = (m.head + pair / m.queries) * t_.group + row;
    const int64_t at = static_cast<int64_t>(m.row + pair % m.queries) * t_.heads + head;
    AscendC::DataCopy(o_[at * t_.dv], out_, static_cast<uint32_t>(n * t_.dv));
    if (t_.has_lse != 0)
      AscendC::DataCopyPad(lse_[at], lse_out_,
                           AscendC::DataCopyExtParams(static_cast<uint16_t>(n), sizeof(float), 0, 0, 0));
    SetFlag<HardEvent::MTE3_V>(0);
    VectorBarrier();
  }

  // exp(lse - largest lse) of every split, and their sum.
  __aicore__ inline void Weights(const TwPagedMerge& m, int32_t from, int32_t n) {
    const int32_t lanes = n * kBlock;
    WaitFlag<HardEvent::V_MTE2>(2);
    AscendC::DataCopy(weight_, part_lse_[static_cast<int64_t>(from) * kBlock],
                      AscendC::DataCopyParams(static_cast<uint16_t>(m.splits), static_cast<uint16_t>(n),
                                              static_cast<uint16_t>(m.stride - n), 0));
    SetFlag<HardEvent::MTE2_V>(2);
    WaitFlag<HardEvent::MTE2_V>(2);
    for (int32_t i = 0; i < m.splits; ++i) {
      AscendC::Max(most_, most_, weight_[i * lanes], lanes);
      VectorBarrier();
    }
    for (int32_t i = 0; i < m.splits; ++i) AscendC::Sub(weight_[i * lanes], weight_[i * lanes], most_, lanes);
    VectorBarrier();
    AscendC::Exp(weight_, weight_, m.splits * lanes);
    VectorBarrier();
    for (int32_t i = 0; i < m.splits; ++i) {
      AscendC::Add(sum_, sum_, weight_[i * lanes], lanes);
      VectorBarrier();
    }
  }

  TwPagedTiling t_;
  GlobalTensor<int32_t> plan_;
  GlobalTensor<T> o_;
  GlobalTensor<float> lse_, parts_, part_lse_;
  LocalTensor<float> weight_, part_[2], most_, sum_, total_, lse_out_;
  LocalTensor<T> out_;
  int32_t first_record_;
  uint32_t loaded_ = 0;
};

}  // namespace tw_paged
