// Largest first in UB: entries of 8 bytes, a score and its id; of equal scores the one that stood further
// left.
#pragma once

#include "../_kv/lanes.h"

namespace tw_topk {

using AscendC::LocalTensor;
using namespace tw_kv;

constexpr int32_t kSorted = 32;  // entries of a list that Sort32 makes
constexpr int32_t kEntry = 2;    // floats of an entry

struct List {
  LocalTensor<float> entries;
  int32_t length;
};

class Sorter {
 public:
  __aicore__ inline Sorter() {}
  __aicore__ inline void Init(Room& room, int32_t capacity) {
    for (int32_t i = 0; i < 2; ++i) lists_[i] = room.Take<float>(capacity * kEntry);
  }
  // Where lists may be put that Merge is to take.
  __aicore__ inline LocalTensor<float> input() const { return lists_[0]; }

  // The `keep` largest of `count` scores, in whole lists of 32; fewer where there are fewer.
  __aicore__ inline List Top(const LocalTensor<float>& scores, const LocalTensor<int32_t>& ids, int32_t count,
                             int32_t keep) {
    AscendC::Sort32(lists_[0], scores, ids.ReinterpretCast<uint32_t>(), count / kSorted);
    Fence();
    return Merge(count / kSorted, kSorted, keep);
  }

  // `count` sorted lists of `length` entries each, one behind the other, to one of the `keep` largest. Lists
  // of each level lie as far apart as if nothing had been left out.
  __aicore__ inline List Merge(int32_t count, int32_t length, int32_t keep) {
    int32_t apart = length, last = length, from = 0;
    while (count > 1) {
      Level(from, count, apart, length, last);
      Fence();
      const int32_t left = (count - 1) % kWays;
      last = Min(keep, left * length + last);
      length = Min(keep, kWays * length);
      count = CeilDiv(count, kWays);
      apart *= kWays;
      from ^= 1;
    }
    return {lists_[from], Min(last, keep)};
  }

 private:
  static constexpr int32_t kWays = 4;

  // The last of the lists may be shorter. Quads of lists without gaps are one instruction.
  __aicore__ inline void Level(int32_t from, int32_t count, int32_t apart, int32_t length, int32_t last) {
    const int32_t even = last == length ? count / kWays : (count - 1) / kWays;
    int32_t quad = 0;
    if (apart == length && even > 0) {
      Quad(from, 0, kWays, apart, length, length, even);
      quad = even;
    }
    for (; quad * kWays < count; ++quad) {
      const int32_t lists = Min(kWays, count - quad * kWays);
      const bool ends = quad * kWays + lists == count;
      Quad(from, quad, lists, apart, length, ends ? last : length, 1);
    }
  }

  __aicore__ inline void Quad(int32_t from, int32_t quad, int32_t lists, int32_t apart, int32_t length,
                              int32_t last, int32_t repeats) {
    const uint32_t step = static_cast<uint32_t>(apart * kEntry);
    const LocalTensor<float> src = lists_[from][static_cast<uint32_t>(quad * kWays) * step];
    const LocalTensor<float> dst = lists_[from ^ 1][static_cast<uint32_t>(quad * kWays) * step];
    if (lists == 1) {
      AscendC::DataCopy(dst, src, static_cast<uint32_t>(RoundUp(last * kEntry, kBlockFloats)));
      return;
    }
    AscendC::MrgSort4Info info;
    for (int32_t i = 0; i < kWays; ++i)
      info.elementLengths[i] = static_cast<uint16_t>(i + 1 < lists ? length : i + 1 == lists ? last : 0);
    info.ifExhaustedSuspension = false;
    info.validBit = static_cast<uint16_t>((1 << lists) - 1);
    info.repeatTimes = static_cast<uint8_t>(repeats);
    const uint32_t third = lists > 2 ? 2 * step : 0, fourth = lists > 3 ? 3 * step : 0;
    AscendC::MrgSort(dst, AscendC::MrgSortSrcList<float>(src, src[step], src[third], src[fourth]), info);
  }

  LocalTensor<float> lists_[2];
};

// Two lists to one; those of equal score in `first` come first.
__aicore__ inline void MergeTwo(const LocalTensor<float>& dst, const List& first, const List& second) {
  AscendC::MrgSort4Info info;
  info.elementLengths[0] = static_cast<uint16_t>(first.length);
  info.elementLengths[1] = static_cast<uint16_t>(second.length);
  info.validBit = 3;
  info.repeatTimes = 1;
  AscendC::MrgSort(
      dst, AscendC::MrgSortSrcList<float>(first.entries, second.entries, second.entries, second.entries),
      info);
}

// The scores, or the ids, of `count` entries.
__aicore__ inline void Scores(const LocalTensor<float>& dst, const LocalTensor<float>& entries,
                              int32_t count) {
  uint64_t kept = 0;
  AscendC::GatherMask(dst, entries, static_cast<uint8_t>(1), true, static_cast<uint32_t>(count * kEntry),
                      AscendC::GatherMaskParams(1, 1, 8, 0), kept);
}
__aicore__ inline void Ids(const LocalTensor<int32_t>& dst, const LocalTensor<float>& entries,
                           int32_t count) {
  uint64_t kept = 0;
  AscendC::GatherMask(dst, entries.ReinterpretCast<int32_t>(), static_cast<uint8_t>(2), true,
                      static_cast<uint32_t>(count * kEntry), AscendC::GatherMaskParams(1, 1, 8, 0), kept);
}

// dst = src op the block `by`, for `count` elements.
template <typename Op>
__aicore__ inline void ByBlock(const LocalTensor<float>& dst, const LocalTensor<float>& src,
                               const LocalTensor<float>& by, int32_t count) {
  const AscendC::BinaryRepeatParams p(1, 1, 0, 8, 8, 0);
  for (int32_t c = 0; c < count;) {
    const int32_t repeats = Min((count - c) / kFloats, kMostRepeats);
    const int32_t lanes = repeats > 0 ? kFloats : count - c;
    const uint32_t at = static_cast<uint32_t>(c);
    Op::Do(dst[at], src[at], by, static_cast<uint64_t>(lanes), static_cast<uint8_t>(Max(repeats, 1)), p);
    c += lanes * Max(repeats, 1);
  }
}

struct Div2 {
  template <typename... A>
  __aicore__ static inline void Do(const A&... a) {
    AscendC::Div(a...);
  }
};

}  // namespace tw_topk
