// The largest of a tile. Groups of 8 elements are ranked by their maxima first: what is among the k largest
// lies in the groups of the k largest maxima, of equal ones the first. Only elements of these are sorted.
#pragma once

#include "beam_topk_tiling.h"
#include "sums.h"

namespace tw_topk {

constexpr int32_t kGroup = kBlockFloats;       // elements of which the largest stands for all
constexpr int32_t kGroups = kSorted * kGroup;  // elements of a sorted list of maxima

class Survivors {
 public:
  __aicore__ inline Survivors() {}
  __aicore__ inline void Init(Room& room, const TwBeamTopkTiling& tiling) {
    t_ = tiling;
    const int32_t ramp = Max(t_.direct, t_.groups > 0 ? t_.tile / kGroup : 0);
    ramp_ = room.Take<int32_t>(ramp);
    names_ = room.Take<int32_t>(Max(t_.direct, t_.groups * kGroup));
    if (t_.groups > 0) {
      most_ = room.Take<float>(t_.tile / kGroup);
      some_ = room.Take<float>(t_.groups * kGroup);
      chosen_ = room.Take<int32_t>(t_.groups);
      offsets_ = room.Take<int32_t>(t_.groups);
      order_ = room.Take<float>(t_.groups);
    }
    sorter_.Init(room, t_.capacity);
    AscendC::CreateVecIndex(ramp_, static_cast<int32_t>(0), static_cast<uint32_t>(ramp));
    Fence();
  }
  __aicore__ inline Sorter& sorter() { return sorter_; }

  // Elements of a tile that must be set, -inf behind its valid ones.
  __aicore__ inline int32_t Filled(int32_t valid) const {
    return RoundUp(valid, valid > t_.direct ? kGroups : kFloats);
  }
  // The largest of x, whose first element has the id `base`.
  __aicore__ inline List Of(const LocalTensor<float>& x, int32_t valid, int32_t base) {
    return valid > t_.direct ? OfGroups(x, valid, base) : OfAll(x, valid, base);
  }
  // Ids of a list in rising order, -id as their scores; `order` takes `count`, whole lists.
  __aicore__ inline void Rise(const LocalTensor<int32_t>& ids, const LocalTensor<float>& order, int32_t valid,
                              int32_t count) {
    AscendC::Cast(order, ids, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(valid));
    Fence();
    AscendC::Muls(order, order, -1.0f, valid);
    Fence();
    if (valid < count) FillBehind(order, valid, count);
    Ids(ids, sorter_.Top(order, ids, count, count).entries, count);
    Fence();
  }

 private:
  __aicore__ inline List OfAll(const LocalTensor<float>& x, int32_t valid, int32_t base) {
    const int32_t count = RoundUp(valid, kSorted);
    if (base == 0) return sorter_.Top(x, ramp_, count, t_.keep);
    AscendC::Adds(names_, ramp_, base, count);
    Fence();
    return sorter_.Top(x, names_, count, t_.keep);
  }

  __aicore__ inline List OfGroups(const LocalTensor<float>& x, int32_t valid, int32_t base) {
    constexpr int32_t kRepeats = kMostRepeats / kGroup * kGroup;
    const int32_t all = RoundUp(valid, kGroups) / kGroup, groups = t_.groups;
    for (int32_t at = 0; at < all; at += kRepeats * kGroup)
      AscendC::BlockReduceMax(most_[static_cast<uint32_t>(at)], x[static_cast<uint32_t>(at * kGroup)],
                              Min(kRepeats, (all - at) / kGroup), kFloats, 1, 1, 8);
    Fence();
    Ids(chosen_, sorter_.Top(most_, ramp_, all, groups).entries, groups);
    Fence();
    Rise(chosen_, order_, groups, groups);  // as they stand in memory, so that of equal ones the first wins
    AscendC::ShiftLeft(offsets_, chosen_, 5, groups);  // bytes of a group
    AscendC::ShiftLeft(chosen_, chosen_, 3, groups);   // elements of a group
    Fence();
    const uint8_t repeats = static_cast<uint8_t>(groups / kGroup);
    AscendC::Gatherb(some_.ReinterpretCast<uint32_t>(), x.ReinterpretCast<uint32_t>(),
                     offsets_.ReinterpretCast<uint32_t>(), repeats, AscendC::GatherRepeatParams(1, 8));
    AscendC::Adds(chosen_, chosen_, base, groups);
    Fence();
    AscendC::Brcb(names_, chosen_, repeats, AscendC::BrcbRepeatParams(1, 8));
    Fence();
    AscendC::Add(names_, names_, ramp_, static_cast<uint64_t>(kFloats), repeats,
                 AscendC::BinaryRepeatParams(1, 1, 0, 8, 8, 0));
    Fence();
    return sorter_.Top(some_, names_, groups * kGroup, t_.keep);
  }

  TwBeamTopkTiling t_;
  LocalTensor<int32_t> ramp_, names_, chosen_, offsets_;
  LocalTensor<float> most_, some_, order_;
  Sorter sorter_;
};

}  // namespace tw_topk
