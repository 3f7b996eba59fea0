// Where some queries of a block do not see a key whose value is NaN or infinite: the cube multiplies it by
// their weight of 0, and gives NaN. Then the block's sums are made again, key by key, for those who see it.
#pragma once

#include "attention_scores.h"

namespace tw_attention {

using AscendC::HardEvent;
using AscendC::SetFlag;
using AscendC::WaitFlag;

constexpr int32_t kRepair = 5;     // event id between MTE2 and V, and of the scalar unit
constexpr int32_t kSumLanes = 64;  // floats of one repeat

// A block of one vector core: its values [keys, dv], the weights in fractals [lanes / 16][rows][16], and how
// far the first key is ahead of lane 0's query.
template <typename T>
struct Block {
  GlobalTensor<T> values, weights;
  int32_t lanes, mine, keys, dv, ahead;
  int32_t value_step;  // elements from one value to the next
};

template <typename T>
class Repair {
 public:
  // `scratch`: half of the sums, `line`: 512 floats, `row`: 64 floats; both are used anew by whoever comes
  // next.
  __aicore__ inline Repair(const TwAttentionTiling& t, const LocalTensor<float>& scratch,
                           const LocalTensor<float>& line, const LocalTensor<float>& row)
      : t_(t), scratch_(scratch), line_(line), row_(row) {}

  // Redoes the sums [lanes, dv] where they hold anything that is not finite.
  __aicore__ inline void Mend(const LocalTensor<float>& sums, const Block<T>& b) const {
    if (Finite(sums, b.lanes * b.dv)) return;
    AscendC::Duplicate(sums, 0.0f, b.lanes * b.dv);
    for (int32_t key = 0; key < b.keys; ++key) AddKey(sums, b, key);
  }

 private:
  // 0 times a number is 0, and NaN otherwise: so is the sum of all these.
  __aicore__ inline bool Finite(const LocalTensor<float>& sums, int32_t count) const {
    const int32_t half = count / 2, repeats = half / kSumLanes;
    Ordered();
    AscendC::Muls(scratch_, sums, 0.0f, half);
    AscendC::Duplicate(line_, 0.0f, 2 * kSumLanes);
    Ordered();
    AscendC::Axpy(scratch_, sums[half], 0.0f, half);
    Ordered();
    AscendC::WholeReduceSum(line_, scratch_, kSumLanes, repeats, 1, 1, 8);
    Ordered();
    AscendC::WholeReduceSum(row_, line_, kSumLanes, 2, 1, 1, 8);
    SetFlag<HardEvent::V_S>(kRepair);
    WaitFlag<HardEvent::V_S>(kRepair);
    const float zero = row_.GetValue(0) + row_.GetValue(1);
    Return();
    return zero == 0.0f;
  }

  // The scalar unit has read the row; vector instructions may write it again.
  __aicore__ inline void Return() const {
    SetFlag<HardEvent::S_V>(kRepair);
    WaitFlag<HardEvent::S_V>(kRepair);
  }

  __aicore__ inline void AddKey(const LocalTensor<float>& sums, const Block<T>& b, int32_t key) const {
    const LocalTensor<T> value = scratch_.template ReinterpretCast<T>(), weight = value[b.dv];
    SetFlag<HardEvent::V_MTE2>(kRepair);
    WaitFlag<HardEvent::V_MTE2>(kRepair);
    AscendC::DataCopy(value, b.values[static_cast<uint64_t>(key) * b.value_step],
                      static_cast<uint32_t>(b.dv));
    const int32_t rows = RoundUp(b.keys, kFractal);
    AscendC::DataCopy(weight, b.weights[key * kFractal],
                      AscendC::DataCopyParams(static_cast<uint16_t>(b.lanes / kFractal), 1,
                                              static_cast<uint16_t>(rows - 1), 0));
    SetFlag<HardEvent::MTE2_V>(kRepair);
    WaitFlag<HardEvent::MTE2_V>(kRepair);
    AscendC::Cast(line_, value, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(b.dv));
    AscendC::Cast(row_, weight, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(b.lanes));
    Ordered();
    SetFlag<HardEvent::V_S>(kRepair);
    WaitFlag<HardEvent::V_S>(kRepair);
    for (int32_t lane = 0; lane < b.mine; ++lane)
      if (Sees(t_, lane - key - b.ahead)) AscendC::Axpy(sums[lane * b.dv], line_, row_.GetValue(lane), b.dv);
    Return();
    Ordered();
  }

  const TwAttentionTiling& t_;
  const LocalTensor<float> scratch_, line_, row_;
};

}  // namespace tw_attention
