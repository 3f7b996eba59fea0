// A vector core's part: the online softmax of its half of the queries, and the running sum of PV. Scores come
// with a query in each lane, so that maxima and sums over keys are those of whole rows, and what belongs to a
// query is a row.
#pragma once

#include "attention_repair.h"

namespace tw_attention {

using AscendC::TBuf;
using AscendC::TPosition;

constexpr int32_t kMostParts = 4;  // event ids: parts of the scores (of the weights), then sums (outputs)
constexpr int32_t kGroup = 64;     // rows that a maximum or a sum over rows keeps before it folds them
constexpr int32_t kRow = 64;       // floats of one repeat, and of a row of what belongs to queries
constexpr int32_t kSlots = Workspace::kOtherSlots;  // of what a step or an item leaves for its sums
constexpr uint32_t kDelay = kSlots - 1;             // steps between weights and their sums

template <typename T>
class Vector {
 public:
  __aicore__ inline Vector(const TwAttentionTiling& tiling)
      : t_(tiling),
        ring_(tiling),
        lanes_(tiling.tile_q / 2),
        half_(static_cast<int32_t>(AscendC::GetSubBlockIdx())) {}

  __aicore__ inline void Init(GM_ADDR v, GM_ADDR alibi, GM_ADDR o, GM_ADDR lse, GM_ADDR workspace) {
    v_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(v));
    alibi_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(alibi));
    o_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(o));
    lse_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(lse));
    workspace_ = workspace + AscendC::GetBlockIdx() / 2 * ring_.Bytes();
    AllocateBuffers();
  }

  // The sums of a step are added two steps later, so that the cube core has time for them.
  __aicore__ inline void Process(const Walk& start) {
    Walk scores = start, weights = start, loads = start, sums = start;
    Release();
    if (scores.Valid()) LoadScores(scores);
    for (uint32_t turn = 0; sums.Valid(); ++turn) {
      if (turn >= kDelay) LoadSums(loads);
      if (weights.Valid()) {
        Weights(weights.Now());
        weights.Next();
        if (scores.Valid()) LoadScores(scores);
      }
      if (turn >= kDelay) {
        AddSums(sums.Now());
        sums.Next();
      }
    }
    Drain();
  }

 private:
  __aicore__ inline LocalTensor<float> Floats(int32_t count) {
    const LocalTensor<float> tensor = ub_.template GetWithOffset<float>(count, taken_);
    taken_ += RoundUp(count * static_cast<int32_t>(sizeof(float)), 32);
    return tensor;
  }

  __aicore__ inline void AllocateBuffers() {
    AscendC::TPipe pipe;
    const int32_t half_bytes = 2;
    const int32_t weights = lanes_ / kFractal * (t_.tile_k + 1) * 32;
    const int32_t scratch = Max(kGroup * lanes_ * 4, lanes_ * t_.dv * half_bytes);
    const int32_t scores = t_.tile_k * lanes_ * 4, sums = lanes_ * t_.dv * 4;
    // Scores and scratch are read together: the scratch begins in the other half of the bank groups.
    const int32_t scratch_at = RoundUp(scores + weights + 2 * sums, 512) + 256;
    pipe.InitBuffer(ub_, static_cast<uint32_t>(scratch_at + scratch + kSmall));
    scores_ = Floats(t_.tile_k * lanes_);
    weights_ = ub_.template GetWithOffset<T>(weights / half_bytes, taken_);
    taken_ += weights;
    total_ = Floats(lanes_ * t_.dv);
    sums_ = Floats(lanes_ * t_.dv);
    taken_ = scratch_at;
    scratch_ = Floats(scratch / 4);
    output_ = scratch_.template ReinterpretCast<T>();
    scale_ = Floats(kRow);
    negative_ = Floats(kRow);
    peak_ = Floats(kRow);
    index_ = Floats(kRow);
    twos_ = Floats(kRow);
    for (int32_t i = 0; i < kSlots; ++i) {
      most_[i] = Floats(kRow);
      mass_[i] = Floats(kRow);
      shrink_[i] = Floats(kRow);
    }
    bits_ = Floats(lanes_ * lanes_ / 32).template ReinterpretCast<uint8_t>();
    spread_ = Floats(kRow * 8);
    lse_out_ = Floats(kRow * 8);
    pipe.Destroy();  // events are this kernel's own
    AscendC::Duplicate(scale_, t_.prescale != 0 ? 1.0f : t_.scale, lanes_);
    AscendC::Duplicate(twos_, 2.0f, lanes_);
    AscendC::CreateVecIndex(index_, 0.0f, static_cast<uint32_t>(lanes_));
  }

  // Scores are copied, and become weights, in parts: the pairs that a fold begins with, then so many rows
  // each.
  __aicore__ inline int32_t PartEnd(int32_t begin) const {
    return begin == 0 ? 2 * kGroup : begin + (t_.tile_k > 4 * kGroup ? 2 * kGroup : kGroup);
  }
  __aicore__ inline int32_t Parts(int32_t rows) const {
    int32_t parts = 0;
    for (int32_t row = 0; row < rows; row = PartEnd(row)) ++parts;
    return parts;
  }

  __aicore__ inline void Release() {
    for (int32_t i = 0; i < Parts(t_.tile_k); ++i) SetFlag<HardEvent::V_MTE2>(i);
    SetFlag<HardEvent::V_MTE2>(kMostParts);
    SetFlag<HardEvent::MTE3_V>(0);
  }
  __aicore__ inline void Drain() {
    for (int32_t i = 0; i < Parts(t_.tile_k); ++i) WaitFlag<HardEvent::V_MTE2>(i);
    WaitFlag<HardEvent::V_MTE2>(kMostParts);
    WaitFlag<HardEvent::MTE3_V>(0);
    WaitForOutput();
  }
  // Outputs leave from the scratch; whoever needs it first waits for them.
  __aicore__ inline void WaitForOutput() {
    if (leaving_) WaitFlag<HardEvent::MTE3_V>(kMostParts);
    leaving_ = false;
  }

  // Queries of a step that are this core's.
  __aicore__ inline int32_t Mine(const Step& s) const { return Clamp(s.rows - half_ * lanes_, 0, lanes_); }
  // Rows that the folds work on: those beyond the keys hold nothing visible.
  __aicore__ inline int32_t Padded(int32_t keys) const {
    if (keys > kGroup) return RoundUp(keys, keys > 2 * kGroup ? kGroup : 2 * kGroup);
    int32_t rows = kFractal;
    while (rows < keys) rows *= 2;
    return rows;
  }

  __aicore__ inline void LoadScores(Walk& walk) {
    const Step& s = walk.Now();
    AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kScoresReady);
    if (Mine(s) == 0 || s.keys == 0) {
      SetFlag<HardEvent::MTE2_MTE3>(s.number % kAhead);
    } else {
      GlobalTensor<float> from;
      from.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(workspace_ + ring_.Scores(s.number)) +
                           half_ * t_.tile_k * lanes_);
      for (int32_t i = 0, row = 0; row < s.keys; ++i, row = PartEnd(row)) {
        WaitFlag<HardEvent::V_MTE2>(i);
        AscendC::DataCopy(scores_[row * lanes_], from[row * lanes_],
                          static_cast<uint32_t>((Min(PartEnd(row), s.keys) - row) * lanes_));
        SetFlag<HardEvent::MTE2_V>(i);
      }
    }
    walk.Next();
  }

  // exp(s - max), into fractals of the compute type: column blocks of 16 queries, a key a row.
  __aicore__ inline void Weights(const Step& s) {
    if (Mine(s) > 0) {
      const LocalTensor<float>&most = most_[s.item % kSlots], &mass = mass_[s.item % kSlots];
      Ordered();
      if (s.first) {
        AscendC::Duplicate(most, kLowest, lanes_);
        AscendC::Duplicate(mass, 0.0f, lanes_);
      }
      if (s.keys > 0) {
        const int32_t padded = Padded(s.keys);
        WaitForOutput();
        Peaks(s, padded);
        Shrink(most, mass, shrink_[s.number % kSlots]);
        Exponents(s, padded);
        FoldScratch<false>(Min(padded, 2 * kGroup) / 2);
        AscendC::Add(mass, mass, scratch_, lanes_);
      }
    }
    if (Mine(s) == 0 || s.keys == 0) WaitFlag<HardEvent::MTE2_MTE3>(s.number % kAhead);
    AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kWeightsReady);
  }

  __aicore__ inline Scores OfScores() const { return {t_, scores_, scratch_, index_, twos_, bits_}; }

  // The maximum over keys -> row 0 of the scratch.
  __aicore__ inline void Peaks(const Step& s, int32_t padded) {
    const Scores block = OfScores();
    const int32_t ahead = s.ahead - half_ * lanes_;
    if (block.Plain(s.keys, padded, ahead)) {
      for (int32_t i = 0, row = 0; row < s.keys; ++i, row = PartEnd(row)) {
        WaitFlag<HardEvent::MTE2_V>(i);
        Join<true>(row, Min(PartEnd(row), padded));
      }
    } else {
      for (int32_t i = 0; i < Parts(s.keys); ++i) WaitFlag<HardEvent::MTE2_V>(i);
      block.Prepare(s.keys, padded, ahead, t_.has_alibi != 0 ? alibi_.GetValue(s.head) : 0.0f);
      Ordered();
      for (int32_t row = 0; row < s.keys; row = PartEnd(row)) Join<true>(row, Min(PartEnd(row), padded));
    }
    FoldScratch<true>(Min(padded, 2 * kGroup) / 2);
  }

  // The new maximum, and what it makes of all before it.
  __aicore__ inline void Shrink(const LocalTensor<float>& most, const LocalTensor<float>& mass,
                                const LocalTensor<float>& shrink) {
    AscendC::Mul(peak_, scratch_, scale_, lanes_);
    Ordered();
    AscendC::Max(peak_, peak_, most, lanes_);
    Ordered();
    AscendC::Sub(shrink, most, peak_, lanes_);
    AscendC::Muls(negative_, peak_, -1.0f, lanes_);
    Ordered();
    AscendC::Exp(shrink, shrink, lanes_);
    AscendC::Adds(most, peak_, 0.0f, lanes_);
    Ordered();
    AscendC::Mul(mass, mass, shrink, lanes_);
  }

  // Part by part, so that the next scores may come and these weights leave while others are still worked on.
  __aicore__ inline void Exponents(const Step& s, int32_t padded) {
    const int32_t keys = RoundUp(s.keys, kFractal);
    const uint8_t line = static_cast<uint8_t>(lanes_ / 8);
    // An odd distance between column blocks keeps their writes in different banks.
    const uint16_t pitch = static_cast<uint16_t>(keys + 1);
    GlobalTensor<T> to;
    to.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(workspace_ + ring_.Weights(s.number)) +
                       half_ * lanes_ * t_.tile_k);
    WaitFlag<HardEvent::MTE3_V>(0);
    for (int32_t i = 0, row = 0; row < s.keys; ++i, row = PartEnd(row)) {
      const int32_t end = Min(PartEnd(row), padded), rows = Min(end, keys) - row;
      const LocalTensor<float> part = scores_[row * lanes_];
      AscendC::FusedMulAdd(part, scale_, negative_, static_cast<uint64_t>(lanes_),
                           static_cast<uint8_t>(end - row), {1, 1, 1, line, 0, 0});
      Ordered();
      AscendC::Exp(part, part, (end - row) * lanes_);
      Ordered();
      AscendC::Cast(weights_[row * kFractal], part, AscendC::RoundMode::CAST_RINT,
                    static_cast<uint64_t>(lanes_), rows, {pitch, 1, 1, line});
      SetFlag<HardEvent::V_MTE3>(i);
      Join<false>(row, end);
      SetFlag<HardEvent::V_MTE2>(i);
      WaitFlag<HardEvent::V_MTE3>(i);
      AscendC::DataCopy(
          to[row * kFractal], weights_[row * kFractal],
          AscendC::DataCopyParams(static_cast<uint16_t>(lanes_ / kFractal), static_cast<uint16_t>(rows),
                                  static_cast<uint16_t>(pitch - rows), static_cast<uint16_t>(keys - rows)));
    }
    SetFlag<HardEvent::MTE3_V>(0);
  }

  // The maximum, or the sum, of rows of scores begins in the scratch or joins what is there. Rows of nothing
  // change no bit: pairs first (neighbours lie in different bank groups), then the rest onto them, in the end
  // halves onto halves.
  template <bool kMaximum>
  __aicore__ inline void Join(int32_t begin, int32_t end) {
    if (begin == 0) return Combine<kMaximum>(scores_, scores_[lanes_], end / 2, 2);
    for (int32_t row = begin; row < end; row += kGroup)
      Combine<kMaximum>(scratch_, scores_[row * lanes_], kGroup, 1);
  }
  template <bool kMaximum>
  __aicore__ inline void FoldScratch(int32_t rows) {
    for (rows /= 2; rows > 0; rows /= 2) Combine<kMaximum>(scratch_, scratch_[rows * lanes_], rows, 1);
  }
  template <bool kMaximum>
  __aicore__ inline void Combine(const LocalTensor<float>& a, const LocalTensor<float>& b, int32_t rows,
                                 int32_t step) {
    const uint8_t line = static_cast<uint8_t>(lanes_ / 8), from = static_cast<uint8_t>(line * step);
    const AscendC::BinaryRepeatParams p(1, 1, 1, line, from, from);
    if constexpr (kMaximum)
      AscendC::Max(scratch_, a, b, static_cast<uint64_t>(lanes_), static_cast<uint8_t>(rows), p);
    else
      AscendC::Add(scratch_, a, b, static_cast<uint64_t>(lanes_), static_cast<uint8_t>(rows), p);
    Ordered();
  }

  // PV of a step on its way; asked for early, as the sums of two steps ago are there.
  __aicore__ inline void LoadSums(Walk& walk) {
    const Step& s = walk.Now();
    AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kSumsReady);
    if (Mine(s) > 0 && s.keys > 0) {
      const int32_t count = lanes_ * t_.dv;
      GlobalTensor<float> from;
      from.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(workspace_ + ring_.Sums(s.number)) +
                           half_ * count);
      WaitFlag<HardEvent::V_MTE2>(kMostParts);
      AscendC::DataCopy(sums_, from, static_cast<uint32_t>(count));
      SetFlag<HardEvent::MTE2_V>(kMostParts);
    }
    walk.Next();
  }

  // total = total * shrink + PV of a step.
  __aicore__ inline void AddSums(const Step& s) {
    if (Mine(s) == 0) return;
    const int32_t count = lanes_ * t_.dv;
    Ordered();
    if (s.keys > 0) {
      if (!s.first) {
        Rows<false>(shrink_[s.number % kSlots]);
        Ordered();
      }
      WaitFlag<HardEvent::MTE2_V>(kMostParts);
      if (OfScores().Hides(s.keys, s.ahead - half_ * lanes_)) Mend(s);
      if (s.first)
        AscendC::Adds(total_, sums_, 0.0f, count);
      else
        AscendC::Add(total_, total_, sums_, count);
      SetFlag<HardEvent::V_MTE2>(kMostParts);
    } else {
      AscendC::Duplicate(total_, 0.0f, count);
    }
    if (s.last) Finish(s);
  }

  __aicore__ inline void Mend(const Step& s) {
    WaitForOutput();
    Block<T> block;
    block.values = v_[At(s.batch, t_.v_b, s.k_row, t_.v_s, s.kv_head, t_.v_h)];
    block.weights.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(workspace_ + ring_.Weights(s.number)) +
                                  half_ * lanes_ * t_.tile_k);
    block.lanes = lanes_;
    block.mine = Mine(s);
    block.keys = s.keys;
    block.dv = t_.dv;
    block.ahead = s.ahead - half_ * lanes_;
    block.value_step = t_.v_s;
    Repair<T>(t_, scratch_, spread_, peak_).Mend(sums_, block);
    Ordered();
  }

  // Every row of the total times, or through, its query's value.
  template <bool kDivide>
  __aicore__ inline void Rows(const LocalTensor<float>& values) {
    AscendC::Brcb(spread_, values, static_cast<uint8_t>(lanes_ / 8), {1, 8});
    Ordered();
    const uint8_t row = static_cast<uint8_t>(t_.dv / 8);
    const AscendC::BinaryRepeatParams p(1, 1, 0, row, row, 1);
    for (int32_t at = 0; at < t_.dv; at += kRow) {
      const uint64_t mask = static_cast<uint64_t>(Min(kRow, t_.dv - at));
      if constexpr (kDivide)
        AscendC::Div(total_[at], total_[at], spread_, mask, static_cast<uint8_t>(lanes_), p);
      else
        AscendC::Mul(total_[at], total_[at], spread_, mask, static_cast<uint8_t>(lanes_), p);
    }
  }

  // The outputs of a tile of queries. A query that sees nothing has a mass of 0, and a total of 0 over
  // something.
  __aicore__ inline void Finish(const Step& s) {
    const LocalTensor<float>&most = most_[s.item % kSlots], &mass = mass_[s.item % kSlots];
    const int32_t rows = Mine(s), first = s.q_row + half_ * lanes_;
    WaitForOutput();
    Ordered();
    if (t_.has_lse != 0) {
      AscendC::Ln(peak_, mass, lanes_);
      Ordered();
      AscendC::Add(peak_, peak_, most, lanes_);
      Ordered();
      AscendC::Brcb(lse_out_, peak_, static_cast<uint8_t>(lanes_ / 8), {1, 8});
    }
    AscendC::Maxs(mass, mass, 1e-30f, lanes_);
    Ordered();
    Rows<true>(mass);
    Ordered();
    AscendC::Cast(output_, total_, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(lanes_ * t_.dv));
    SetFlag<HardEvent::V_MTE3>(kMostParts);
    WaitFlag<HardEvent::V_MTE3>(kMostParts);
    const uint16_t count = static_cast<uint16_t>(rows);
    AscendC::DataCopyExtParams p(count, static_cast<uint32_t>(t_.dv * 2), 0,
                                 static_cast<uint32_t>((t_.o_s - t_.dv) * 2), 0);
    AscendC::DataCopyPad(o_[At(s.batch, t_.o_b, first, t_.o_s, s.head, t_.o_h)], output_, p);
    if (t_.has_lse != 0) {
      AscendC::DataCopyExtParams one(count, sizeof(float), 0, static_cast<uint32_t>((t_.lse_s - 1) * 4), 0);
      AscendC::DataCopyPad(lse_[At(s.batch, t_.lse_b, first, t_.lse_s, s.head, t_.lse_h)], lse_out_, one);
    }
    SetFlag<HardEvent::MTE3_V>(kMostParts);
    leaving_ = true;
  }

  __aicore__ inline static uint64_t At(int32_t b, int32_t b_step, int32_t s, int32_t s_step, int32_t h,
                                       int32_t h_step) {
    return static_cast<uint64_t>(b) * b_step + static_cast<uint64_t>(s) * s_step +
           static_cast<uint64_t>(h) * h_step;
  }

  static constexpr int32_t kSmall = 9 * 1024;  // bytes of what belongs to queries, in all

  const TwAttentionTiling& t_;
  const Workspace ring_;
  const int32_t lanes_, half_;
  int32_t taken_ = 0;
  bool leaving_ = false;
  GM_ADDR workspace_ = nullptr;
  GlobalTensor<float> alibi_, lse_;
  GlobalTensor<T> v_, o_;
  TBuf<TPosition::VECCALC> ub_;
  LocalTensor<float> scores_, total_, sums_, scratch_, scale_, negative_, peak_, index_, twos_, spread_,
      lse_out_;
  LocalTensor<float> most_[kSlots], mass_[kSlots], shrink_[kSlots];
  LocalTensor<T> weights_, output_;
  LocalTensor<uint8_t> bits_;
};

}  // namespace tw_attention
