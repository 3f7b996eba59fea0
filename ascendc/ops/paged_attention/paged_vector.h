// A vector core: the softmax of its half of a task's rows, and what comes of them.
#pragma once

#include "paged_keys.h"
#include "paged_rows.h"

namespace tw_paged {

constexpr float kNone = -1e37f;  // the maximum of no score; above kMasked, so that exp(kMasked - it) is 0
constexpr float kMasked = -3e38f;
constexpr float kTiny = 1e-37f;
// Event ids: two passes of scores 0 and 1, values and results 2; paged_keys.h has the others.
constexpr int32_t kResult = 2;

// T: of queries and outputs; `kCodes` as in paged_cube.h, whose operands are then half.
template <typename T, bool kCodes>
class Vector {
 public:
  using W = std::conditional_t<kCodes, half, T>;  // of weights

  __aicore__ inline void Init(const Arguments& a, const TwPagedTiling& tiling) {
    t_ = tiling;
    side_ = static_cast<int32_t>(AscendC::GetSubBlockIdx());
    core_ = static_cast<int32_t>(AscendC::GetBlockIdx()) / 2;
    rows_ = t_.row_blocks * t_.group;
    capacity_ = RoundUp(CeilDiv(t_.row_blocks, 2) * t_.group, kBlock);
    o_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a.o));
    lse_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.lse));
    alibi_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.alibi));
    const int64_t step = static_cast<int64_t>(rows_) * t_.step_tokens;
    scores_ = Part<float>(a.workspace, t_.scores, core_, kSlots * step);
    weights_ = Part<W>(a.workspace, t_.weights, core_, kSlots * step);
    values_ = Part<float>(a.workspace, t_.values, core_, static_cast<int64_t>(kSlots) * rows_ * t_.dv);
    parts_ = Part<float>(a.workspace, t_.parts, 0, 0);
    part_lse_ = Part<float>(a.workspace, t_.part_lse, 0, 0);
    walk_.Init(a.plan, core_, t_.cores, t_.step_tokens);
    ahead_.Init(a.plan, core_, t_.cores, t_.step_tokens);
    Allocate();
    if constexpr (kCodes) keys_.Init(a, t_, core_, side_, pipe_, capacity_);
    pipe_.Destroy();  // events are this kernel's own
  }

  __aicore__ inline void Process() {
    Release();
    Step now, before, next;
    before.valid = false;
    if constexpr (kCodes) {
      ahead_.First(next);
      if (next.valid) keys_.Prepare(next);
      ahead_.Next(next);
    }
    for (walk_.First(now); now.valid; walk_.Next(now)) {
      if constexpr (kCodes) {
        if (next.valid) keys_.Prepare(next);
        ahead_.Next(next);
      }
      Softmax(now);
      if (before.valid) Update(before);
      before = now;
    }
    if (before.valid) Update(before);
    Finish();
  }

 private:
  __aicore__ inline void Allocate() {
    const int32_t pass = t_.pass_rows * t_.step_tokens;
    for (int32_t i = 0; i < 2; ++i) {
      score_[i] = Take<TPosition::VECIN, float>(pipe_, pass);
      weight_[i] = Take<TPosition::VECOUT, W>(pipe_, pass);
      max_[i] = Take<TPosition::VECCALC, float>(pipe_, capacity_);
      sum_[i] = Take<TPosition::VECCALC, float>(pipe_, capacity_);
      decay_[i] = Take<TPosition::VECCALC, float>(pipe_, capacity_);
    }
    fold_ = Take<TPosition::VECCALC, float>(pipe_, t_.pass_rows * kLanes);
    fresh_ = Take<TPosition::VECCALC, float>(pipe_, capacity_);
    spread_ = Take<TPosition::VECCALC, float>(pipe_, capacity_ * kBlock);
    total_ = Take<TPosition::VECCALC, float>(pipe_, capacity_ * t_.dv);
    value_ = Take<TPosition::VECIN, float>(pipe_, capacity_ * t_.dv);
    out_ = Take<TPosition::VECOUT, T>(pipe_, capacity_ * t_.dv);
    lse_out_ = Take<TPosition::VECOUT, float>(pipe_, capacity_ * kBlock);
    if (t_.softcap != 0) one_ = Take<TPosition::VECCALC, float>(pipe_, kBlock);
    if (t_.has_alibi != 0) {
      index_ = Take<TPosition::VECCALC, float>(pipe_, t_.step_tokens);
      distance_ = Take<TPosition::VECCALC, float>(pipe_, kLanes);
      slope_ = Take<TPosition::VECCALC, float>(pipe_, capacity_ * kBlock);
    }
  }

  // Every buffer starts free, and is waited for once more at the end, so that no flag is left set.
  __aicore__ inline void Release() {
    for (int32_t i = 0; i < 3; ++i) {
      SetFlag<HardEvent::V_MTE2>(i);
      SetFlag<HardEvent::MTE3_V>(i);
    }
    for (int32_t i = 0; i < 2; ++i) {
      AscendC::Duplicate(max_[i], kNone, capacity_);
      AscendC::Duplicate(sum_[i], 0.0f, capacity_);
      AscendC::Duplicate(decay_[i], 0.0f, capacity_);
    }
    AscendC::Duplicate(fresh_, 0.0f, capacity_);
    if (t_.softcap != 0) AscendC::Duplicate(one_, 1.0f, kBlock);
    if (t_.has_alibi != 0) AscendC::CreateVecIndex(index_, 0.0f, static_cast<uint32_t>(t_.step_tokens));
    VectorBarrier();
    if constexpr (kCodes) keys_.Release();
  }
  __aicore__ inline void Finish() {
    for (int32_t i = 0; i < 3; ++i) {
      WaitFlag<HardEvent::V_MTE2>(i);
      WaitFlag<HardEvent::MTE3_V>(i);
    }
    if constexpr (kCodes) keys_.Finish();
  }

  // This core's (head, query) pairs: the first half or the second.
  __aicore__ inline int32_t FirstBlock(const Step& s) const {
    return side_ == 0 ? 0 : CeilDiv(t_.tile_heads * s.task.queries, 2);
  }
  __aicore__ inline int32_t BlockCount(const Step& s) const {
    const int32_t all = t_.tile_heads * s.task.queries;
    return side_ == 0 ? CeilDiv(all, 2) : all / 2;
  }

  __aicore__ inline void Softmax(const Step& s) {
    const int32_t rows = BlockCount(s) * t_.group, first_row = FirstBlock(s) * t_.group;
    AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kScores);
    if (rows == 0) {  // nothing to do but to keep step
      const int32_t id = static_cast<int32_t>(s.number % 2);
      SetFlag<HardEvent::MTE2_MTE3>(id);
      WaitFlag<HardEvent::MTE2_MTE3>(id);
      AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kWeights);
      return;
    }
    const int32_t task = static_cast<int32_t>(s.task_number % 2);
    if (s.first) Begin(s, task);
    if constexpr (kCodes) keys_.LoadFactors(s);
    const int64_t base = (static_cast<int64_t>(s.number % kSlots) * rows_ + first_row) * t_.step_tokens;
    const int32_t columns = RoundUp(s.count, kPage);
    for (int32_t row = 0; row < rows; row += t_.pass_rows) {
      const int32_t n = Min(t_.pass_rows, rows - row);
      const int32_t slot = static_cast<int32_t>(passes_++ % 2);
      const int64_t at = base + static_cast<int64_t>(row) * t_.step_tokens;
      const uint16_t gap = static_cast<uint16_t>((t_.step_tokens - columns) / kBlock);
      WaitFlag<HardEvent::V_MTE2>(slot);
      AscendC::DataCopy(score_[slot], scores_[at],
                        AscendC::DataCopyParams(static_cast<uint16_t>(n),
                                                static_cast<uint16_t>(columns / kBlock), gap, gap));
      SetFlag<HardEvent::MTE2_V>(slot);
      WaitFlag<HardEvent::MTE2_V>(slot);
      Logits(score_[slot], s, first_row + row, row, n);
      Weigh(score_[slot], s, task, row, n);
      if constexpr (kCodes) keys_.ScaleWeights(score_[slot], s, first_row + row, n);
      WaitFlag<HardEvent::MTE3_V>(slot);
      const int32_t whole = RoundUp(s.count, kLanes);
      ToWeights(weight_[slot], score_[slot], n, whole);
      SetFlag<HardEvent::V_MTE2>(slot);
      SetFlag<HardEvent::V_MTE3>(slot);
      WaitFlag<HardEvent::V_MTE3>(slot);
      constexpr int32_t kPer = 32 / static_cast<int32_t>(sizeof(W));
      const uint16_t skip = static_cast<uint16_t>((t_.step_tokens - columns) / kPer);
      AscendC::DataCopy(weights_[at], weight_[slot],
                        AscendC::DataCopyParams(static_cast<uint16_t>(n),
                                                static_cast<uint16_t>(columns / kPer), skip, skip));
      SetFlag<HardEvent::MTE3_V>(slot);
    }
    AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kWeights);
  }

  __aicore__ inline void Begin(const Step& s, int32_t task) {
    VectorBarrier();
    AscendC::Duplicate(max_[task], kNone, capacity_);
    AscendC::Duplicate(sum_[task], 0.0f, capacity_);
    if (t_.has_alibi != 0) {
      const int32_t rows = BlockCount(s) * t_.group, first = FirstBlock(s);
      for (int32_t row = 0; row < rows; ++row) {
        const int32_t head = s.task.head + (first + row / t_.group) / s.task.queries;
        const float slope = alibi_.GetValue(static_cast<uint64_t>(head) * t_.group + row % t_.group);
        AscendC::Duplicate(slope_[row * kBlock], slope, kBlock);
      }
    }
    VectorBarrier();
  }

  // Scores become logits, and kMasked where a query does not see a token. `row`: of the task; `own`: of this
  // core's rows.
  __aicore__ inline void Logits(const LocalTensor<float>& x, const Step& s, int32_t row, int32_t own,
                                int32_t n) {
    const int32_t pitch = t_.step_tokens;
    if constexpr (kCodes) {
      keys_.ScaleScores(x, s, row, own, n);
    } else {
      Scale(x, t_.softcap != 0 ? 2 * t_.scale / t_.softcap : t_.scale, n, s.count, pitch);
    }
    VectorBarrier();
    if (t_.softcap != 0) {  // cap tanh(x / cap) = cap - 2 cap / (exp(2 x / cap) + 1)
      Exponentials(x, n, s.count, pitch);
      VectorBarrier();
      Shift(x, 1.0f, n, s.count, pitch);
      VectorBarrier();
      Reciprocals(x, one_, n, s.count, pitch);
      VectorBarrier();
      Scale(x, -2 * t_.softcap, n, s.count, pitch);
      VectorBarrier();
      Shift(x, t_.softcap, n, s.count, pitch);
      VectorBarrier();
    }
    const bool together = s.AllVisible();
    const int32_t whole = RoundUp(s.count, kLanes), last = row + n;
    for (int32_t from = row; from < last;) {
      const int32_t query = from / t_.group % s.task.queries;
      const int32_t to = together && t_.has_alibi == 0 ? last : Min((from / t_.group + 1) * t_.group, last);
      const LocalTensor<float> rows = x[(from - row) * pitch];
      if (t_.has_alibi != 0) {
        Bias(rows, slope_[(own + from - row) * kBlock], static_cast<float>(s.begin - s.task.position - query),
             to - from, s.count);
      }
      FillFrom(rows, together ? s.count : s.Visible(query), kMasked, to - from, whole, pitch);
      from = to;
    }
    if (s.begin == 0) FillFirst(x, s.task.skip, kMasked, n, pitch);
    VectorBarrier();
  }

  // x += slope * (distance of the first token + column); distances are whole numbers, exact in float.
  __aicore__ inline void Bias(const LocalTensor<float>& x, const LocalTensor<float>& slopes, float start,
                              int32_t rows, int32_t columns) {
    const AscendC::BinaryRepeatParams p(1, 0, 1, Blocks(t_.step_tokens), 1, 0);
    for (int32_t c = 0; c < columns; c += kLanes) {
      AscendC::Adds(distance_, index_[c], start, kLanes);
      VectorBarrier();
      AscendC::MulAddDst(x[c], slopes, distance_, static_cast<uint64_t>(Min(kLanes, columns - c)), rows, p);
      VectorBarrier();
    }
  }

  // Online softmax: logits become exp(logit - maximum so far), `decay` is what earlier sums shrink by.
  __aicore__ inline void Weigh(const LocalTensor<float>& x, const Step& s, int32_t task, int32_t row,
                               int32_t n) {
    const int32_t pitch = t_.step_tokens, whole = RoundUp(s.count, kLanes);
    const LocalTensor<float> most = max_[task][row], sum = sum_[task][row], fresh = fresh_[row],
                             decay = decay_[s.number % 2][row];
    RowMax(fresh, x, fold_, n, whole, pitch);
    VectorBarrier();
    AscendC::Max(fresh, fresh, most, n);
    VectorBarrier();
    AscendC::Sub(decay, most, fresh, n);
    Spread(spread_, fresh, n);
    VectorBarrier();
    AscendC::Exp(decay, decay, n);
    AscendC::Muls(most, fresh, 1.0f, n);
    SubRows(x, spread_, n, whole, pitch);
    VectorBarrier();
    Exponentials(x, n, whole, pitch);
    AscendC::Mul(sum, sum, decay, n);
    VectorBarrier();
    RowSum(fresh, x, fold_, n, whole, pitch);
    VectorBarrier();
    AscendC::Add(sum, sum, fresh, n);
    VectorBarrier();
  }

  __aicore__ inline void ToWeights(const LocalTensor<W>& dst, const LocalTensor<float>& x, int32_t rows,
                                   int32_t columns) {
    const int32_t pitch = t_.step_tokens;
    if constexpr (sizeof(W) == sizeof(float)) {
      const AscendC::UnaryRepeatParams p(1, 1, Blocks(pitch), Blocks(pitch));
      for (int32_t c = 0; c < columns; c += kLanes) AscendC::Muls(dst[c], x[c], 1.0f, kLanes, rows, p);
    } else {
      const AscendC::UnaryRepeatParams p(1, 1, static_cast<uint8_t>(pitch / 16), Blocks(pitch));
      for (int32_t c = 0; c < columns; c += kLanes)
        AscendC::Cast(dst[c], x[c], AscendC::RoundMode::CAST_RINT, kLanes, rows, p);
    }
  }

  // Adds a step's values to the total, and gives away what a finished task comes to.
  __aicore__ inline void Update(const Step& s) {
    const int32_t blocks = BlockCount(s), rows = blocks * t_.group, first = FirstBlock(s);
    AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kValues);
    if (rows == 0) return;
    const int64_t at = (static_cast<int64_t>(s.number % kSlots) * rows_ + first * t_.group) * t_.dv;
    WaitFlag<HardEvent::V_MTE2>(kResult);
    AscendC::DataCopy(value_, values_[at], static_cast<uint32_t>(rows * t_.dv));
    SetFlag<HardEvent::MTE2_V>(kResult);
    WaitFlag<HardEvent::MTE2_V>(kResult);
    const int32_t block_size = t_.group * t_.dv;
    if (!s.AllVisible()) {
      for (int32_t i = 0; i < blocks; ++i)  // the cube has left these alone
        if (s.Visible((first + i) % s.task.queries) == 0)
          AscendC::Duplicate(value_[i * block_size], 0.0f, block_size);
      VectorBarrier();
    }
    if constexpr (kCodes) keys_.ScaleValues(value_, s, first * t_.group, rows);
    if (s.first) {
      WaitFlag<HardEvent::MTE3_V>(kResult);
      AscendC::Muls(total_, value_, 1.0f, rows * t_.dv);
    } else {
      Spread(spread_, decay_[s.number % 2], rows);
      VectorBarrier();
      MulRows(total_, spread_, rows, t_.dv, t_.dv);
      VectorBarrier();
      AscendC::Add(total_, total_, value_, rows * t_.dv);
    }
    VectorBarrier();
    SetFlag<HardEvent::V_MTE2>(kResult);
    if (s.last) Give(s, blocks, first);
  }

  __aicore__ inline void Give(const Step& s, int32_t blocks, int32_t first) {
    const int32_t rows = blocks * t_.group, task = static_cast<int32_t>(s.task_number % 2);
    AscendC::Maxs(fresh_, sum_[task], kTiny, rows);
    AscendC::Ln(sum_[task], sum_[task], rows);
    VectorBarrier();
    Spread(spread_, fresh_, rows);
    AscendC::Add(sum_[task], sum_[task], max_[task], rows);
    VectorBarrier();
    DivRows(total_, spread_, rows, t_.dv, t_.dv);
    Spread(lse_out_, sum_[task], rows);
    VectorBarrier();
    if constexpr (kCodes) keys_.ScaleChannels(total_, s, first * t_.group, rows);
    if (s.task.part < 0) Narrow(out_, total_, rows * t_.dv);
    SetFlag<HardEvent::V_MTE3>(kResult);
    WaitFlag<HardEvent::V_MTE3>(kResult);
    if (s.task.part >= 0) {
      const int64_t row = s.task.part + first * t_.group;
      AscendC::DataCopy(parts_[row * t_.dv], total_, static_cast<uint32_t>(rows * t_.dv));
      AscendC::DataCopy(part_lse_[row * kBlock], lse_out_, static_cast<uint32_t>(rows * kBlock));
    } else {
      for (int32_t i = 0; i < blocks; ++i) {
        const int32_t head = s.task.head + (first + i) / s.task.queries, query = (first + i) % s.task.queries;
        const int64_t row = static_cast<int64_t>(s.task.row + query) * t_.heads + head * t_.group;
        AscendC::DataCopy(o_[row * t_.dv], out_[i * t_.group * t_.dv],
                          static_cast<uint32_t>(t_.group * t_.dv));
        if (t_.has_lse != 0)
          AscendC::DataCopyPad(
              lse_[row], lse_out_[i * t_.group * kBlock],
              AscendC::DataCopyExtParams(static_cast<uint16_t>(t_.group), sizeof(float), 0, 0, 0));
      }
    }
    SetFlag<HardEvent::MTE3_V>(kResult);
  }

  TwPagedTiling t_;
  AscendC::TPipe pipe_;
  Walk walk_, ahead_;
  Keys<T> keys_;
  GlobalTensor<T> o_;
  GlobalTensor<W> weights_;
  GlobalTensor<float> lse_, alibi_, scores_, values_, parts_, part_lse_;
  LocalTensor<float> score_[2], max_[2], sum_[2], decay_[2];
  LocalTensor<float> fold_, fresh_, spread_, total_, value_, lse_out_, one_, slope_, index_, distance_;
  LocalTensor<W> weight_[2];
  LocalTensor<T> out_;
  int32_t side_, core_, rows_, capacity_;
  uint32_t passes_ = 0;
};

}  // namespace tw_paged
