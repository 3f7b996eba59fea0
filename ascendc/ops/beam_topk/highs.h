// The largest logit of each row, found before all else: a number of each share of a row in the workspace,
// each in a block of its own.
#pragma once

#include "sums.h"

namespace tw_topk {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::SetFlag;
using AscendC::WaitFlag;

constexpr int32_t kEventHigh = 2;

class Highs {
 public:
  __aicore__ inline Highs() {}
  __aicore__ inline void Init(Room& room, __gm__ float* at, int32_t parts) {
    all_.SetGlobalBuffer(at);
    parts_ = parts;
    high_ = room.Take<float>(kFloats);
  }
  // In every lane of a block.
  __aicore__ inline LocalTensor<float> high() const { return high_; }

  // `count` of x to the largest of a share; `one` and `work`, which takes x, are lost.
  __aicore__ inline void Add(const LocalTensor<float>& x, int32_t count, const LocalTensor<float>& one,
                             const LocalTensor<float>& work, bool first) {
    AscendC::ReduceMax(one, x, work, count);
    Fence();
    AscendC::Brcb(work, one, 1, AscendC::BrcbRepeatParams(1, 8));
    Fence();
    if (first)
      AscendC::Adds(high_, work, 0.0f, kBlockFloats);
    else
      AscendC::Max(high_, high_, work, kBlockFloats);
    Fence();
  }
  // To the workspace.
  __aicore__ inline void Leave(int32_t share) {
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    AscendC::DataCopy(all_[static_cast<uint64_t>(share) * kBlockFloats], high_,
                      static_cast<uint32_t>(kBlockFloats));
    SetFlag<HardEvent::MTE3_V>(kEventHigh);
    WaitFlag<HardEvent::MTE3_V>(kEventHigh);
  }
  // Of all shares of a row; `shares` takes a block of each.
  __aicore__ inline void Load(int32_t row, const LocalTensor<float>& shares) {
    SetFlag<HardEvent::V_MTE2>(kEventHigh);
    WaitFlag<HardEvent::V_MTE2>(kEventHigh);
    AscendC::DataCopy(shares, all_[static_cast<uint64_t>(row * parts_) * kBlockFloats],
                      static_cast<uint32_t>(parts_ * kBlockFloats));
    SetFlag<HardEvent::MTE2_V>(kEventHigh);
    WaitFlag<HardEvent::MTE2_V>(kEventHigh);
    AscendC::Maxs(high_, shares, -kMost, kBlockFloats);
    Fence();
    for (int32_t i = 1; i < parts_; ++i) {
      AscendC::Max(high_, high_, shares[static_cast<uint32_t>(i * kBlockFloats)], kBlockFloats);
      Fence();
    }
  }

 private:
  GlobalTensor<float> all_;
  LocalTensor<float> high_;
  int32_t parts_ = 1;
};

}  // namespace tw_topk
