// Scales of quantised caches, folded in where they cost least: channel scales into the queries and the
// outputs, token scales into the scores and the weights; all in fp32 and normalised by the largest, so that
// no half loses its range.
#pragma once

#include "paged_rows.h"

namespace tw_paged {

constexpr int32_t kOnce = 5;       // event id of what is loaded and used at once
constexpr int32_t kQueryRows = 8;  // queries folded at once
constexpr int32_t kWorkFloats = 4096;

// T: of queries.
template <typename T>
class Factors {
 public:
  __aicore__ inline void Init(const Arguments& a, const TwPagedTiling& tiling, int32_t core, int32_t side,
                              AscendC::TPipe& pipe, int32_t capacity) {
    t_ = tiling;
    side_ = side;
    q_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a.q));
    table_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(a.block_table));
    scale_[0].SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.k_scale));
    scale_[1].SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.v_scale));
    query_slot_ = static_cast<int64_t>(t_.row_blocks) * t_.group * t_.dk;
    queries_ = Part<half>(a.workspace, t_.queries, core, kSlots * query_slot_);
    for (int32_t i = 0; i < 2; ++i) {
      factor_[i] = Take<TPosition::VECCALC, float>(pipe, capacity);
      most_value_[i] = Take<TPosition::VECCALC, float>(pipe, kBlock * kBlock);
    }
    work_ = Take<TPosition::VECCALC, float>(pipe, kWorkFloats);
    once_ = Take<TPosition::VECIN, T>(pipe, kPage * Max(t_.dk, t_.dv));
    query_out_ = Take<TPosition::VECOUT, half>(pipe, kQueryRows * t_.dk);
    spread_ = Take<TPosition::VECCALC, float>(pipe, capacity * kBlock);
    most_ = Take<TPosition::VECCALC, float>(pipe, kBlock);
    if (t_.codes == 1) {
      channels_ = Take<TPosition::VECIN, float>(pipe, t_.tile_heads * Max(t_.dk, t_.dv));
    } else {
      by_token_ = Take<TPosition::VECIN, float>(pipe, t_.step_tokens * kBlock);
      key_scale_ = Take<TPosition::VECCALC, float>(pipe, t_.tile_heads * t_.step_tokens);
      value_scale_ = Take<TPosition::VECCALC, float>(pipe, t_.tile_heads * t_.step_tokens);
      offsets_ = Take<TPosition::VECCALC, int32_t>(pipe, t_.step_tokens);
    }
  }

  __aicore__ inline void Release() {
    SetFlag<HardEvent::V_MTE2>(kOnce);
    SetFlag<HardEvent::MTE3_V>(kOnce);
    AscendC::Duplicate(most_, 0.0f, kBlock);
    for (int32_t i = 0; i < 2; ++i)
      AscendC::Duplicate(factor_[i], 0.0f, static_cast<int32_t>(factor_[i].GetSize()));
    if (t_.codes == 2) {
      AscendC::CreateVecIndex(offsets_, 0, static_cast<uint32_t>(t_.step_tokens));
      VectorBarrier();
      AscendC::ShiftLeft(offsets_, offsets_, 5, t_.step_tokens);  // a token's scales take 32 bytes
    }
    VectorBarrier();
  }
  __aicore__ inline void Finish() {
    WaitFlag<HardEvent::V_MTE2>(kOnce);
    WaitFlag<HardEvent::MTE3_V>(kOnce);
  }

  // Queries times channel scales, as half of at most 1 in each row; what that divides them by is kept, times
  // the scale of scores.
  __aicore__ inline void FoldQueries(const Step& s) {
    const int32_t all = t_.tile_heads * s.task.queries, first = side_ == 0 ? 0 : CeilDiv(all, 2);
    const int32_t rows = (side_ == 0 ? CeilDiv(all, 2) : all / 2) * t_.group, dk = t_.dk;
    const LocalTensor<float> factor = factor_[s.task_number % 2], x = work_, size = work_[kQueryRows * dk],
                             fold = work_[2 * kQueryRows * dk];
    const float scale = t_.softcap != 0 ? 2 * t_.scale / t_.softcap : t_.scale;
    if (t_.codes == 1)
      LoadOnce(channels_, scale_[0], static_cast<int64_t>(s.task.head) * dk, t_.tile_heads * dk);
    if (t_.codes == 1) FreeOnce();
    for (int32_t own = 0; own < rows; own += kQueryRows) {
      const int32_t n = Min(kQueryRows, rows - own), row = first * t_.group + own;
      WaitFlag<HardEvent::V_MTE2>(kOnce);
      for (int32_t from = row; from < row + n;) {
        const int32_t block = from / t_.group, to = Min((block + 1) * t_.group, row + n);
        const int32_t head = s.task.head + block / s.task.queries, query = block % s.task.queries;
        const int64_t at =
            static_cast<int64_t>(s.task.row + query) * t_.heads + head * t_.group + from % t_.group;
        AscendC::DataCopy(once_[(from - row) * dk], q_[at * dk], static_cast<uint32_t>((to - from) * dk));
        from = to;
      }
      SetFlag<HardEvent::MTE2_V>(kOnce);
      WaitFlag<HardEvent::MTE2_V>(kOnce);
      Widen(x, once_, n * dk);
      VectorBarrier();
      if (t_.codes == 1) {
        ByHead(x, channels_, dk, s, row, n, dk, dk);
        VectorBarrier();
      }
      FreeOnce();
      AscendC::Abs(size, x, n * dk);
      VectorBarrier();
      RowMax(factor[own], size, fold, n, dk, dk);
      VectorBarrier();
      AscendC::Maxs(factor[own], factor[own], 1e-37f, n);
      VectorBarrier();
      Spread(spread_, factor[own], n);
      VectorBarrier();
      DivRows(x, spread_, n, dk, dk);
      AscendC::Muls(factor[own], factor[own], scale, n);
      VectorBarrier();
      WaitFlag<HardEvent::MTE3_V>(kOnce);
      Narrow(query_out_, x, n * dk);
      SetFlag<HardEvent::V_MTE3>(kOnce);
      WaitFlag<HardEvent::V_MTE3>(kOnce);
      AscendC::DataCopy(queries_[(s.task_number % kSlots) * query_slot_ + static_cast<int64_t>(row) * dk],
                        query_out_, static_cast<uint32_t>(n * dk));
      SetFlag<HardEvent::MTE3_V>(kOnce);
    }
  }

  // Token scales of a step's tokens, a row for each head; those of values relative to the largest.
  __aicore__ inline void LoadFactors(const Step& s) {
    if (t_.codes != 2) return;
    const int32_t whole = RoundUp(s.count, kLanes), heads = t_.tile_heads;
    for (int32_t kind = 0; kind < 2; ++kind) {
      const LocalTensor<float> dst = kind == 0 ? key_scale_ : value_scale_;
      const int32_t tokens = RoundUp(s.count, kPage);
      WaitFlag<HardEvent::V_MTE2>(kOnce);
      for (int32_t i = 0; i < tokens; i += kPage) {
        const int64_t from = static_cast<int64_t>(PageOf(s, i)) * kPage * t_.kv_heads + s.task.head;
        AscendC::DataCopyPad(
            by_token_[i * kBlock], scale_[kind][from],
            AscendC::DataCopyExtParams(kPage, static_cast<uint32_t>(heads * sizeof(float)),
                                       static_cast<uint32_t>((t_.kv_heads - heads) * sizeof(float)), 0, 0),
            AscendC::DataCopyPadExtParams<float>(false, 0, 0, 0));
      }
      SetFlag<HardEvent::MTE2_V>(kOnce);
      WaitFlag<HardEvent::MTE2_V>(kOnce);
      for (int32_t head = 0; head < heads; ++head)
        AscendC::Gather(dst[head * t_.step_tokens], by_token_, offsets_.template ReinterpretCast<uint32_t>(),
                        static_cast<uint32_t>(head * static_cast<int32_t>(sizeof(float))),
                        static_cast<uint32_t>(tokens));
      FreeOnce();
    }
    const LocalTensor<float> most = most_value_[s.number % 2];
    VectorBarrier();
    FillFrom(value_scale_, s.count, 0.0f, heads, whole, t_.step_tokens);
    if (s.begin == 0) FillFirst(value_scale_, s.task.skip, 0.0f, heads, t_.step_tokens);
    VectorBarrier();
    RowMax(most_, value_scale_, work_, heads, whole, t_.step_tokens);
    VectorBarrier();
    AscendC::Maxs(most_, most_, 1e-37f, heads);
    VectorBarrier();
    Spread(most, most_, heads);
    VectorBarrier();
    DivRows(value_scale_, most, heads, whole, t_.step_tokens);
    VectorBarrier();
  }

  // `row`: of the task; `own`: of this core's rows.
  __aicore__ inline void ScaleScores(const LocalTensor<float>& x, const Step& s, int32_t row, int32_t own,
                                     int32_t n) {
    Spread(spread_, factor_[s.task_number % 2][own], n);
    VectorBarrier();
    MulRows(x, spread_, n, s.count, t_.step_tokens);
    if (t_.codes != 2) return;
    VectorBarrier();
    ByHead(x, key_scale_, t_.step_tokens, s, row, n, s.count, t_.step_tokens);
  }
  __aicore__ inline void ScaleWeights(const LocalTensor<float>& x, const Step& s, int32_t row, int32_t n) {
    if (t_.codes != 2) return;
    ByHead(x, value_scale_, t_.step_tokens, s, row, n, RoundUp(s.count, kLanes), t_.step_tokens);
    VectorBarrier();
  }
  __aicore__ inline void ScaleValues(const LocalTensor<float>& x, const Step& s, int32_t row, int32_t n) {
    if (t_.codes != 2) return;
    const LocalTensor<float> most = most_value_[s.number % 2];
    const int32_t per_head = s.task.queries * t_.group;
    for (int32_t from = row; from < row + n;) {
      const int32_t head = from / per_head, to = Min((head + 1) * per_head, row + n);
      const AscendC::BinaryRepeatParams p(1, 1, 0, Blocks(t_.dv), Blocks(t_.dv), 0);
      for (int32_t c = 0; c < t_.dv; c += kLanes)
        AscendC::Mul(x[(from - row) * t_.dv + c], x[(from - row) * t_.dv + c], most[head * kBlock],
                     static_cast<uint64_t>(Min(kLanes, t_.dv - c)), to - from, p);
      from = to;
    }
    VectorBarrier();
  }
  __aicore__ inline void ScaleChannels(const LocalTensor<float>& x, const Step& s, int32_t row, int32_t n) {
    if (t_.codes != 1) return;
    const int32_t values = t_.tile_heads * t_.dv;
    LoadOnce(channels_, scale_[1], static_cast<int64_t>(s.task.head) * t_.dv, values);
    ByHead(x, channels_, t_.dv, s, row, n, t_.dv, t_.dv);
    FreeOnce();
    VectorBarrier();
  }

 protected:
  __aicore__ inline int32_t PageOf(const Step& s, int32_t token) const {
    return table_.GetValue(static_cast<uint64_t>(s.task.sequence) * t_.table_width + s.task.page +
                           (s.begin + token) / kPage);
  }

  __aicore__ inline void LoadOnce(const LocalTensor<float>& dst, const GlobalTensor<float>& src, int64_t from,
                                  int32_t count) {
    WaitFlag<HardEvent::V_MTE2>(kOnce);
    AscendC::DataCopy(dst, src[from], static_cast<uint32_t>(count));
    SetFlag<HardEvent::MTE2_V>(kOnce);
    WaitFlag<HardEvent::MTE2_V>(kOnce);
  }
  // After the last use of what was loaded.
  __aicore__ inline void FreeOnce() { SetFlag<HardEvent::V_MTE2>(kOnce); }

  // Rows row..row+n of the task times the values of their head.
  __aicore__ inline void ByHead(const LocalTensor<float>& x, const LocalTensor<float>& values, int32_t stride,
                                const Step& s, int32_t row, int32_t n, int32_t columns, int32_t pitch) {
    const int32_t per_head = s.task.queries * t_.group;
    for (int32_t from = row; from < row + n;) {
      const int32_t head = from / per_head, to = Min((head + 1) * per_head, row + n);
      MulColumns(x[(from - row) * pitch], values[head * stride], to - from, columns, pitch);
      from = to;
    }
  }

  TwPagedTiling t_;
  int32_t side_;  // 0: this core dequantises keys, 1: values
  GlobalTensor<T> q_;
  GlobalTensor<int32_t> table_;
  GlobalTensor<float> scale_[2];  // of keys and of values
  LocalTensor<float> work_;
  LocalTensor<T> once_;

 private:
  GlobalTensor<half> queries_;
  LocalTensor<half> query_out_;
  LocalTensor<float> factor_[2], most_value_[2];
  LocalTensor<float> spread_, most_, channels_, by_token_, key_scale_, value_scale_;
  LocalTensor<int32_t> offsets_;
  int64_t query_slot_;
};

}  // namespace tw_paged
