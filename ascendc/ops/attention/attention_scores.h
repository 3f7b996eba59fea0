// What happens to a block of scores in UB before its softmax: keys beyond the end, scale, softcap, ALiBi,
// masks. A row of the block is a key, a lane a query of this vector core.
#pragma once

#include "attention_steps.h"

namespace tw_attention {

using AscendC::LocalTensor;

constexpr int32_t kMostRepeats = 255;
constexpr float kLowest = -3.4028234e38f;  // below every score: the maximum of nothing, and still finite

__aicore__ inline float MinusInfinity() { return -__builtin_inff(); }
__aicore__ inline void Ordered() { AscendC::PipeBarrier<PIPE_V>(); }

// Whether a query sees a key that lies `behind` positions before it.
__aicore__ inline bool Sees(const TwAttentionTiling& t, int32_t behind) {
  if (t.causal != 0 && behind < 0) return false;
  return t.window == 0 || (behind < t.window && behind > -t.window);
}

class Scores {
 public:
  // `index` holds 0, 1, 2, .. ; `scratch` `lanes` rows; `bits` a bit for each of its elements.
  __aicore__ inline Scores(const TwAttentionTiling& t, const LocalTensor<float>& scores,
                           const LocalTensor<float>& scratch, const LocalTensor<float>& index,
                           const LocalTensor<float>& twos, const LocalTensor<uint8_t>& bits)
      : t_(t),
        lanes_(t.tile_q / 2),
        scores_(scores),
        scratch_(scratch),
        index_(index),
        twos_(twos),
        bits_(bits) {}

  // Whether some lane does not see some key.
  __aicore__ inline bool Hides(int32_t keys, int32_t ahead) const {
    return !Sees(t_, 1 - keys - ahead) || !Sees(t_, lanes_ - 1 - ahead);
  }
  // Whether there is nothing to prepare.
  __aicore__ inline bool Plain(int32_t keys, int32_t padded, int32_t ahead) const {
    return t_.prescale == 0 && padded == keys && !Hides(keys, ahead);
  }

  // `ahead`: position of the first key less that of lane 0. `padded`: rows that the softmax works on.
  __aicore__ inline void Prepare(int32_t keys, int32_t padded, int32_t ahead, float slope) const {
    if (t_.prescale != 0) {
      Ordered();
      AscendC::Muls(scores_, scores_, t_.softcap > 0 ? 2.0f * t_.scale / t_.softcap : t_.scale,
                    keys * lanes_);
    }
    if (t_.softcap > 0) SoftCap(keys);
    if (t_.has_alibi != 0) Alibi(keys, ahead, slope);
    const int32_t window = t_.window;
    if (t_.causal != 0)
      HideAfter(keys, ahead);
    else if (window > 0 && ahead > -kFar)
      HideAfter(keys, ahead > kFar - window ? kFar : ahead - window + 1);
    if (window > 0 && ahead < kFar - window) HideBefore(keys, ahead + window - 1);
    if (padded > keys) {
      Ordered();
      AscendC::Duplicate(scores_[keys * lanes_], MinusInfinity(), (padded - keys) * lanes_);
    }
  }

 private:
  static constexpr int32_t kFar = 1 << 30;  // further than any key from any query

  // cap * tanh(s / cap) = cap - 2 cap / (1 + exp(2 s / cap)), of 2 s / cap; exact at both ends of the scale.
  __aicore__ inline void SoftCap(int32_t keys) const {
    const int32_t count = keys * lanes_;
    Ordered();
    AscendC::Exp(scores_, scores_, count);
    Ordered();
    AscendC::Adds(scores_, scores_, 1.0f, count);
    Ordered();
    const uint8_t row = static_cast<uint8_t>(lanes_ / 8);
    for (int32_t at = 0; at < keys; at += kMostRepeats)
      AscendC::Div(scores_[at * lanes_], twos_, scores_[at * lanes_], static_cast<uint64_t>(lanes_),
                   Min(kMostRepeats, keys - at), {1, 1, 1, row, 0, row});
    Ordered();
    AscendC::Muls(scores_, scores_, -t_.softcap, count);
    Ordered();
    AscendC::Adds(scores_, scores_, t_.softcap, count);
  }

  // scratch[r][i] = i - r + from, for `lanes` rows: each half of it is the half above, less its height.
  __aicore__ inline void Differences(float from) const {
    Ordered();
    AscendC::Adds(scratch_, index_, from, lanes_);
    for (int32_t rows = 1; rows < lanes_; rows *= 2) {
      Ordered();
      AscendC::Adds(scratch_[rows * lanes_], scratch_, static_cast<float>(-rows), rows * lanes_);
    }
    Ordered();
  }

  // Minus slope times the distance from key to query.
  __aicore__ inline void Alibi(int32_t keys, int32_t ahead, float slope) const {
    for (int32_t row = 0; row < keys; row += lanes_) {
      const int32_t count = Min(lanes_, keys - row) * lanes_;
      Differences(static_cast<float>(-ahead - row));
      if (t_.causal == 0) {
        AscendC::Abs(scratch_, scratch_, count);
        Ordered();
      }
      AscendC::Axpy(scores_[row * lanes_], scratch_, -slope, count);
    }
  }

  // Key row r is hidden from lane i unless i - r >= least.
  __aicore__ inline void HideAfter(int32_t keys, int32_t least) const {
    const int32_t some = Clamp(1 - least, 0, keys), all = Clamp(lanes_ - least, 0, keys);
    Hide(some, all, least, AscendC::CMPMODE::GE);
    HideAll(all, keys);
  }
  // Key row r is hidden from lane i unless i - r <= most.
  __aicore__ inline void HideBefore(int32_t keys, int32_t most) const {
    const int32_t some = Clamp(-most, 0, keys), none = Clamp(lanes_ - 1 - most, 0, keys);
    HideAll(0, some);
    Hide(some, none, most, AscendC::CMPMODE::LE);
  }

  __aicore__ inline void HideAll(int32_t begin, int32_t end) const {
    if (begin >= end) return;
    Ordered();
    AscendC::Duplicate(scores_[begin * lanes_], MinusInfinity(), (end - begin) * lanes_);
  }
  // At most `lanes` rows, of which some lanes see each. What is hidden may be NaN: it is replaced, not added
  // to.
  __aicore__ inline void Hide(int32_t begin, int32_t end, int32_t limit, AscendC::CMPMODE visible) const {
    if (begin >= end) return;
    Differences(static_cast<float>(-begin - limit));
    AscendC::CompareScalar(bits_, scratch_, 0.0f, visible, static_cast<uint32_t>(lanes_ * lanes_));
    Ordered();
    const LocalTensor<float> rows = scores_[begin * lanes_];
    AscendC::Select(rows, bits_, rows, MinusInfinity(), AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE,
                    static_cast<uint32_t>((end - begin) * lanes_));
  }

  const TwAttentionTiling& t_;
  const int32_t lanes_;
  const LocalTensor<float> scores_, scratch_, index_, twos_;
  const LocalTensor<uint8_t> bits_;
};

}  // namespace tw_attention
