// One step of a beam search in UB: the continuations of a group's beams, ranked together by score.
//
// Scores of a beam fall in the order of its logits, so that one stable sort of all keeps to it. -inf counts
// as the lowest float there, and what is no continuation at all as -inf, so that it comes last.
#pragma once

#include "beam_topk_tiling.h"
#include "sums.h"

namespace tw_topk {

using AscendC::HardEvent;
using AscendC::SetFlag;
using AscendC::WaitFlag;

constexpr float kLowest = -kMost;                  // stands for -inf
constexpr float kAbove = -3.4028232635611926e38f;  // the next float: the least score of a finite one
constexpr int32_t kEventStep = 3;

class BeamStep {
 public:
  __aicore__ inline BeamStep() {}
  __aicore__ inline void Init(Room& room, const TwBeamTopkTiling& tiling) {
    t_ = tiling;
    pitch_ = RoundUp(t_.keep, kBlockFloats);
    all_ = RoundUp(t_.beams * pitch_, kFloats);
    out_ = RoundUp(t_.results, kFloats);
    totals_ = room.Take<float>(all_);
    places_ = room.Take<int32_t>(all_);
    ids_ = room.Take<int32_t>(all_);
    one_ = room.Take<float>(RoundUp(pitch_, kFloats));
    bits_ = room.Take<uint8_t>(Max(RoundUp(pitch_, kFloats), out_) / 8);
    scores_ = room.Take<float>(out_);
    ranked_ = room.Take<int32_t>(out_);
    beams_ = room.Take<int32_t>(out_);
    tokens_ = room.Take<int32_t>(out_);
    AscendC::CreateVecIndex(places_, static_cast<int32_t>(0), static_cast<uint32_t>(all_));
    AscendC::Duplicate(ids_, static_cast<int32_t>(0), all_);
    AscendC::Duplicate(scores_, kNone, out_);
    AscendC::Duplicate(ranked_, static_cast<int32_t>(0), out_);
    Fence();
  }

  __aicore__ inline void Begin() {
    AscendC::Duplicate(totals_, kNone, all_);
    Fence();
  }

  // A beam that goes on with the best of its row.
  __aicore__ inline void Live(int32_t beam, float score, const LocalTensor<float>& best, Sums& sums) {
    const int32_t whole = RoundUp(pitch_, kFloats);
    Ids(ids_[static_cast<uint32_t>(beam * pitch_)], best, t_.keep);
    Scores(one_, best, t_.keep);
    Fence();
    FillBehind(one_, t_.kept, whole);
    AscendC::CompareScalar(bits_, one_, kNone, AscendC::CMPMODE::GT, static_cast<uint32_t>(whole));
    Fence();
    sums.LogWeigh(one_, one_, whole);
    AscendC::Adds(one_, one_, score, whole);
    Fence();
    AscendC::Maxs(one_, one_, kAbove, whole);
    Fence();
    AscendC::Select(one_, bits_, one_, kLowest, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE,
                    static_cast<uint32_t>(whole));
    Fence();
    FillBehind(one_, t_.kept, whole);
    Put(beam);
  }
  // A beam that goes on with eos alone, or (`alive` false) not at all: its other tokens in order.
  __aicore__ inline void Still(int32_t beam, float score, bool alive) {
    const int32_t whole = RoundUp(pitch_, kFloats);
    AscendC::Duplicate(one_, kLowest, whole);
    Fence();
    FillBehind(one_, t_.kept, whole);
    Scalar();
    if (alive) one_.SetValue(0, score > kAbove ? score : kAbove);
    for (int32_t i = 0; i < t_.kept; ++i) {
      const int32_t other = i - 1 < t_.eos ? i - 1 : i;
      ids_.SetValue(static_cast<uint32_t>(beam * pitch_ + i), !alive ? i : i == 0 ? t_.eos : other);
    }
    SetFlag<HardEvent::S_V>(kEventStep);
    WaitFlag<HardEvent::S_V>(kEventStep);
    Put(beam);
  }

  // The best of all; outputs are ready to leave.
  __aicore__ inline void Rank(Sorter& sorter) {
    const int32_t count = RoundUp(t_.results, kBlock / (kEntry * 4));
    const LocalTensor<float> best =
        sorter.Top(totals_, places_, RoundUp(t_.beams * pitch_, kSorted), count).entries;
    Ids(ranked_, best, count);
    Scores(scores_, best, count);
    Fence();
    AscendC::CompareScalar(bits_, scores_, kLowest, AscendC::CMPMODE::GT, static_cast<uint32_t>(out_));
    Fence();
    AscendC::Select(scores_, bits_, scores_, kNone, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE,
                    static_cast<uint32_t>(out_));
    Fence();
    Scalar();
    for (int32_t i = 0; i < t_.results; ++i) {
      const uint32_t at = static_cast<uint32_t>(i);
      const int32_t place = ranked_.GetValue(at);
      beams_.SetValue(at, place / pitch_);
      tokens_.SetValue(at, ids_.GetValue(static_cast<uint32_t>(place)));
    }
    SetFlag<HardEvent::S_MTE3>(kEventStep);
    WaitFlag<HardEvent::S_MTE3>(kEventStep);
    SetFlag<HardEvent::V_MTE3>(kEventStep);
    WaitFlag<HardEvent::V_MTE3>(kEventStep);
  }
  __aicore__ inline LocalTensor<int32_t> beams() const { return beams_; }
  __aicore__ inline LocalTensor<int32_t> tokens() const { return tokens_; }
  __aicore__ inline LocalTensor<float> scores() const { return scores_; }

 private:
  __aicore__ inline void Scalar() {
    SetFlag<HardEvent::V_S>(kEventStep);
    WaitFlag<HardEvent::V_S>(kEventStep);
  }
  __aicore__ inline void Put(int32_t beam) {
    AscendC::Adds(totals_[static_cast<uint32_t>(beam * pitch_)], one_, 0.0f, pitch_);
    Fence();
  }

  TwBeamTopkTiling t_;
  int32_t pitch_ = 0, all_ = 0, out_ = 0;
  LocalTensor<float> totals_, one_, scores_;
  LocalTensor<int32_t> places_, ids_, ranked_, beams_, tokens_;
  LocalTensor<uint8_t> bits_;
};

}  // namespace tw_topk
