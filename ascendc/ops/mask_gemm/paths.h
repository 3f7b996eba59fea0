// Which rows run in bf16: the words of the selection, and the numbers of the rows of each path in rising
// order, made by one vector core. The layout of the words is that of kernels/mask_gemm/selection.py.
#pragma once

#include "../_rows/rows.h"
#include "workspace.h"

namespace tw_mask {

using namespace tw_kv;  // fences, rows, rooms of UB
using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::WaitFlag;

// What a selection says of a layer without a look at a row's owner.
struct Selection {
  bool layer;  // every row
  uint64_t groups, requests;

  __aicore__ inline Selection(GM_ADDR selection, const TwMaskGemmTiling& t) {
    GlobalTensor<uint64_t> words;
    words.SetGlobalBuffer(reinterpret_cast<__gm__ uint64_t*>(selection));
    layer = Bit(words.GetValue(static_cast<uint64_t>(t.layer / 64)), t.layer % 64);
    groups = words.GetValue(static_cast<uint64_t>(t.words - 2));
    requests = words.GetValue(static_cast<uint64_t>(t.words - 1));
    const int32_t held = tw_gemm::CeilDiv(t.codes.m, kGroupRows);
    if (held < 64) groups &= (static_cast<uint64_t>(1) << held) - 1;
  }
  // Rows may differ.
  __aicore__ inline bool Mixed() const { return !layer && (groups != 0 || requests != 0); }
  __aicore__ inline static bool Bit(uint64_t word, int32_t bit) { return (word >> bit & 1) != 0; }
};

// The rows of each path: all of one, or what the sorting core counted.
struct Paths {
  int32_t codes, floats;
};

// counts[3]: rows in bf16, rows in int8, rows selected that are kept in int8.
class Report {
 public:
  __aicore__ inline Report(GM_ADDR counts, const TwMaskGemmTiling& t) : t_(t) {
    counts_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(counts));
  }
  __aicore__ inline void Write(Room& room, int32_t selected) const {
    const LocalTensor<int32_t> values = room.Take<int32_t>(kBlockFloats);
    const bool resident = t_.resident != 0;
    values.SetValue(kInFloats, resident ? selected : 0);
    values.SetValue(kInCodes, resident ? t_.codes.m - selected : t_.codes.m);
    values.SetValue(kKept, resident ? 0 : selected);
    SetFlag<HardEvent::S_MTE3>(0);
    WaitFlag<HardEvent::S_MTE3>(0);
    tw_rows::StoreRun(counts_, values, kCounts);
  }
  __aicore__ inline Paths Read() const { return {counts_.GetValue(kInCodes), counts_.GetValue(kInFloats)}; }

 private:
  const TwMaskGemmTiling& t_;
  GlobalTensor<int32_t> counts_;
};

class Sorter {
 public:
  __aicore__ inline Sorter(const TwMaskGemmTiling& t, Room& room)
      : t_(t), rows_(RoundUp(t.codes.m, kFloats)) {
    owner_ = room.Take<int32_t>(rows_);
    path_ = room.Take<float>(rows_);
    ramp_ = room.Take<int32_t>(rows_);
    numbers_ = room.Take<int32_t>(rows_);
    scale_ = room.Take<float>(rows_);
    bits_ = room.Take<uint8_t>(rows_ / 8);
    table_ = room.Take<float>(kTable);
  }

  // The numbers of both paths into the workspace, and the scales of the rows in int8; how many are in bf16.
  __aicore__ inline int32_t Sort(const Selection& s, GM_ADDR owner, GM_ADDR row_scale, const Workspace& to) {
    LoadOwners(owner, row_scale);
    Requests(s.requests);
    Groups(s.groups);
    AscendC::CreateVecIndex(ramp_, static_cast<int32_t>(0), static_cast<uint32_t>(rows_));
    Fence();
    const int32_t floats = Pick(AscendC::CMPMODE::GT);
    StoreNumbers(to.numbers, to.apart, floats);
    const int32_t codes = Pick(AscendC::CMPMODE::LE);
    StoreNumbers(to.numbers, 0, codes);
    StoreScales(to.scales, codes);
    return floats;
  }

 private:
  static constexpr int32_t kTable = 72;  // no request, and 64 of them, in whole blocks

  __aicore__ inline void LoadOwners(GM_ADDR owner, GM_ADDR row_scale) {
    GlobalTensor<int32_t> owners;
    GlobalTensor<float> scales;
    owners.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(owner));
    scales.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(row_scale));
    tw_rows::Clear(owner_, rows_);
    tw_rows::Clear(scale_, rows_);
    tw_rows::Clear(numbers_, rows_);
    SetFlag<HardEvent::V_MTE2>(0);
    WaitFlag<HardEvent::V_MTE2>(0);
    tw_rows::LoadRun(owner_, owners, t_.codes.m);
    tw_rows::LoadRun(scale_, scales, t_.codes.m);
    SetFlag<HardEvent::MTE2_V>(0);
  }

  // 1 for rows of a request that is selected, 0 for others: a table by owner, of which -1 is the first.
  __aicore__ inline void Requests(uint64_t requests) {
    AscendC::Duplicate(table_, 0.0f, kTable);
    SetFlag<HardEvent::V_S>(0);
    WaitFlag<HardEvent::V_S>(0);
    for (int32_t i = 0; i < 64; ++i)
      if (Selection::Bit(requests, i)) table_.SetValue(static_cast<uint32_t>(i + 1), 1.0f);
    SetFlag<HardEvent::S_V>(0);
    WaitFlag<HardEvent::S_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
    AscendC::Adds(owner_, owner_, 1, rows_);
    Fence();
    AscendC::ShiftLeft(owner_, owner_, 2, rows_);  // bytes
    Fence();
    AscendC::Gather(path_, table_, owner_.ReinterpretCast<uint32_t>(), 0, static_cast<uint32_t>(rows_));
    Fence();
  }
  __aicore__ inline void Groups(uint64_t groups) {
    for (int32_t i = 0; i * kGroupRows < t_.codes.m; ++i)
      if (Selection::Bit(groups, i))
        AscendC::Duplicate(path_[static_cast<uint32_t>(i * kGroupRows)], 1.0f, kGroupRows);
    Fence();
  }

  // The numbers of the rows whose path is above, or not above, a half.
  __aicore__ inline int32_t Pick(AscendC::CMPMODE mode) {
    AscendC::CompareScalar(bits_, path_, 0.5f, mode, static_cast<uint32_t>(rows_));
    Fence();
    uint64_t kept = 0;
    AscendC::GatherMask(numbers_, ramp_, bits_.ReinterpretCast<uint32_t>(), true,
                        static_cast<uint32_t>(t_.codes.m), AscendC::GatherMaskParams(1, 1, 8, 0), kept);
    Fence();
    return static_cast<int32_t>(kept);
  }
  __aicore__ inline void StoreNumbers(GM_ADDR to, int32_t at, int32_t count) {
    if (count == 0) return;
    GlobalTensor<int32_t> dst;
    dst.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(to));
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    tw_rows::StoreRun(dst[static_cast<uint32_t>(at)], numbers_, count);
    SetFlag<HardEvent::MTE3_V>(0);
    WaitFlag<HardEvent::MTE3_V>(0);
  }
  __aicore__ inline void StoreScales(GM_ADDR to, int32_t count) {
    if (count == 0) return;
    GlobalTensor<float> dst;
    dst.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(to));
    AscendC::ShiftLeft(owner_, numbers_, 2, RoundUp(count, kBlockFloats));  // bytes
    Fence();
    AscendC::Gather(path_, scale_, owner_.ReinterpretCast<uint32_t>(), 0, static_cast<uint32_t>(count));
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    tw_rows::StoreRun(dst, path_, count);
  }

  const TwMaskGemmTiling& t_;
  const int32_t rows_;  // in whole repeats
  LocalTensor<int32_t> owner_, ramp_, numbers_;
  LocalTensor<float> path_, scale_, table_;
  LocalTensor<uint8_t> bits_;
};

}  // namespace tw_mask
