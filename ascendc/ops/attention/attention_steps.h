// Which queries meet which keys, in which order: the walk of one core over its steps. Cube and vector cores
// walk alike, so that they agree on every step without a word.
#pragma once

#include "attention_tiling.h"
#include "kernel_operator.h"

namespace tw_attention {

using AscendC::GlobalTensor;

constexpr int32_t kFractal = 16;  // rows of a fractal, and 16-bit elements of its row
constexpr int32_t kFractalElements = kFractal * kFractal;

// For a >= 0; nothing is added before the division, so that sizes may reach INT32_MAX.
__aicore__ inline int32_t CeilDiv(int32_t a, int32_t b) { return a > 0 ? (a - 1) / b + 1 : 0; }
__aicore__ inline int32_t RoundUp(int32_t a, int32_t b) { return CeilDiv(a, b) * b; }
__aicore__ inline int32_t Min(int32_t a, int32_t b) { return a < b ? a : b; }
__aicore__ inline int32_t Max(int32_t a, int32_t b) { return a > b ? a : b; }
__aicore__ inline int32_t Clamp(int32_t a, int32_t low, int32_t high) { return Max(low, Min(a, high)); }

// A step: a tile of queries of one head, and a block of keys.
struct Step {
  int32_t batch, head, kv_head;
  int32_t q_row, rows;    // first query, a row of the tensor, and how many
  int32_t k_row, keys;    // first key, a row of the tensor, and how many; 0: no query sees a key
  int32_t ahead;          // position of the first key less that of the first query
  uint32_t item, number;  // tiles of queries before this one, and steps before this one, on this core
  bool first, last;       // of its tile of queries
};

class Walk {
 public:
  __aicore__ inline void Start(const TwAttentionTiling* tiling, const GlobalTensor<int32_t>& cu_q,
                               const GlobalTensor<int32_t>& cu_k, int32_t core, int32_t cores) {
    t_ = tiling;
    cu_q_ = cu_q;
    cu_k_ = cu_k;
    core_ = core;
    cores_ = cores;
    round_ = 0;
    sequence_ = -1;
    before_ = items_ = 0;
    step_.item = step_.number = 0;
    NextItem();
  }

  __aicore__ inline bool Valid() const { return sequence_ < t_->sequences; }
  __aicore__ inline const Step& Now() const { return step_; }

  __aicore__ inline void Next() {
    ++step_.number;
    if (++done_ < blocks_) return SetBlock();
    ++step_.item;
    NextItem();
  }

 private:
  // Items are dealt out in rounds, every other one backwards: the heaviest of a round and the lightest of the
  // next.
  __aicore__ inline void NextItem() {
    const int64_t in_round = round_ % 2 == 0 ? core_ : cores_ - 1 - core_;
    const int64_t item = static_cast<int64_t>(round_) * cores_ + in_round;
    ++round_;
    while (item >= before_ + items_) {
      before_ += items_;
      if (++sequence_ >= t_->sequences) return;
      EnterSequence();
    }
    SetItem(static_cast<int32_t>(item - before_));
  }

  __aicore__ inline void EnterSequence() {
    q_begin_ = k_begin_ = 0;
    queries_ = t_->sq;
    keys_ = t_->sk;
    if (t_->ragged != 0) {
      q_begin_ = cu_q_.GetValue(sequence_);
      queries_ = cu_q_.GetValue(sequence_ + 1) - q_begin_;
      k_begin_ = cu_k_.GetValue(sequence_);
      keys_ = cu_k_.GetValue(sequence_ + 1) - k_begin_;
    }
    items_ = static_cast<int64_t>(CeilDiv(queries_, t_->tile_q)) * t_->hq;
  }

  // The last queries see the most keys and come first; heads that share keys stand side by side.
  __aicore__ inline void SetItem(int32_t item) {
    const int32_t tile = CeilDiv(queries_, t_->tile_q) - 1 - item / t_->hq;
    step_.batch = t_->ragged != 0 ? 0 : sequence_;
    step_.head = item % t_->hq;
    step_.kv_head = step_.head / (t_->hq / t_->hkv);
    const int32_t q0 = tile * t_->tile_q;
    step_.q_row = q_begin_ + q0;
    step_.rows = Min(t_->tile_q, queries_ - q0);
    position_ = keys_ - queries_ + q0;
    const int32_t last = position_ + step_.rows - 1;
    int32_t begin = 0;
    end_ = keys_;
    if (t_->causal != 0)
      end_ = Min(keys_, last + 1);
    else if (t_->window > 0 && last < keys_ - t_->window)
      end_ = last + t_->window;
    if (t_->window > 0) begin = Max(0, position_ - t_->window + 1);
    begin_ = begin / t_->tile_k;
    done_ = 0;
    blocks_ = 1;
    shift_ = 0;
    if (end_ <= begin) {
      end_ = 0;  // nothing to see: one step without keys, for the outputs
      begin_ = 0;
    } else {
      blocks_ = CeilDiv(end_, t_->tile_k) - begin_;
      if (t_->stagger != 0) shift_ = static_cast<int32_t>(static_cast<int64_t>(core_) * blocks_ / cores_);
    }
    SetBlock();
  }

  __aicore__ inline void SetBlock() {
    const int32_t turn = done_ + shift_;
    const int32_t first = (begin_ + (turn < blocks_ ? turn : turn - blocks_)) * t_->tile_k;
    step_.k_row = k_begin_ + first;
    step_.keys = Clamp(end_ - first, 0, t_->tile_k);
    step_.ahead = first - position_;
    step_.first = done_ == 0;
    step_.last = done_ + 1 == blocks_;
  }

  const TwAttentionTiling* t_ = nullptr;
  GlobalTensor<int32_t> cu_q_, cu_k_;
  int32_t core_ = 0, cores_ = 1, round_ = 0;
  int32_t sequence_ = 0, q_begin_ = 0, k_begin_ = 0, queries_ = 0, keys_ = 0;
  int64_t before_ = 0, items_ = 0;  // items of the sequences before, and of this one
  int32_t position_ = 0;            // of the first query of the item
  int32_t begin_ = 0, end_ = 0, blocks_ = 0, done_ = 0, shift_ = 0;
  Step step_;
};

// Where the cube core and its two vector cores leave each other what they made. A slot is taken again so many
// steps later that who wrote it has heard of its being read.
struct Workspace {
  int64_t scores, weights, sums;             // bytes of one slot: S^T, P^T and PV
  int32_t score_slots;                       //
  static constexpr int32_t kOtherSlots = 3;  // of weights and of sums

  __aicore__ inline explicit Workspace(const TwAttentionTiling& t) {
    scores = static_cast<int64_t>(t.tile_q) * t.tile_k * 4;
    weights = static_cast<int64_t>(t.tile_q) * t.tile_k * 2;
    sums = static_cast<int64_t>(t.tile_q) * t.dv * 4;
    score_slots = t.preload + 1;
  }
  __aicore__ inline int64_t Bytes() const { return scores * score_slots + (weights + sums) * kOtherSlots; }
  __aicore__ inline int64_t Scores(uint32_t step) const { return scores * (step % score_slots); }
  __aicore__ inline int64_t Weights(uint32_t step) const {
    return scores * score_slots + weights * (step % kOtherSlots);
  }
  __aicore__ inline int64_t Sums(uint32_t step) const {
    return scores * score_slots + weights * kOtherSlots + sums * (step % kOtherSlots);
  }
};

// Flags between a cube core and its vector cores, each set and waited for once a step. Where a step has
// nothing to do, the pipe that sets waits for the one that has waited, lest flags be set again before they
// are heard of; ids by step, as one pipe may be so many steps ahead of the other.
constexpr uint16_t kScoresReady = 0, kWeightsReady = 1, kSumsReady = 2;
constexpr int32_t kAhead = 4;

}  // namespace tw_attention
