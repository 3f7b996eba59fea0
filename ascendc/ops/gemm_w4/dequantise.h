// A vector core's part: its half of the columns of each chunk, from codes to weights of the activations'
// type.
//
// `Cast` turns 4 bits into halves, as signed numbers; flipping the highest bit of each makes these code - 8.
// What a group shares is spread to a block of 32 bytes each, and multiplies the group's blocks from there.
#pragma once

#include "../_rows/rows.h"
#include "ring.h"

namespace tw_w4 {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::WaitFlag;
using tw_kv::Fence;

constexpr int32_t kSym = 0, kAsym = 1, kMin = 2;
constexpr int32_t kEventBias = 2;
constexpr int32_t kCodesAWord = 8, kCodesABlock = 64;
constexpr int32_t kHalves = 128;      // of a repeat; 16-bit integers too
constexpr int32_t kShared = 16;       // halves of a block, of what groups share
constexpr int32_t kLineBlocks = 8;    // of a repeat
constexpr int16_t kHighest = -30584;  // 0x8888: the highest bit of each code
constexpr int16_t kLow = 0x0f0f;      // the low four bits of each byte

// Rows of a chunk in UB: `width` elements each, with `groups` groups; `pitch` places of what groups share.
struct Part {
  int32_t rows, width, groups, pitch;
  __aicore__ inline int32_t count() const { return rows * width; }
  __aicore__ inline int32_t shared() const { return rows * pitch; }
};

// dst = src op a number a group, or two of them, each in a block of its own: whole repeats of a group, a row
// or, where nothing lies between, a group after the other.
template <typename Op, typename F, typename... By>
__aicore__ inline void ByRun(const LocalTensor<F>& dst, const LocalTensor<F>& src, const Part& s,
                             int32_t group, const By&... by) {
  constexpr int32_t kEach = tw_kv::kBlock / static_cast<int32_t>(sizeof(F)), kAll = kLineBlocks * kEach;
  const uint8_t row = static_cast<uint8_t>(s.width / kEach), next = static_cast<uint8_t>(s.pitch);
  const int32_t lanes = Min(group, kAll);
  if (lanes == group && s.groups == s.pitch) {
    const uint8_t blocks = static_cast<uint8_t>(group / kEach);
    const int32_t all = s.rows * s.groups;
    for (int32_t g = 0; g < all; g += tw_kv::kMostRepeats)
      Op::Do(dst[static_cast<uint32_t>(g * group)], src[static_cast<uint32_t>(g * group)],
             static_cast<uint64_t>(lanes), Min(tw_kv::kMostRepeats, all - g), blocks, uint8_t{1},
             by[static_cast<uint32_t>(g * kEach)]...);
    return;
  }
  for (int32_t c = 0; c < s.width; c += lanes)
    Op::Do(dst[static_cast<uint32_t>(c)], src[static_cast<uint32_t>(c)], static_cast<uint64_t>(lanes), s.rows,
           row, next, by[static_cast<uint32_t>(c / group * kEach)]...);
}
// The same of halves, whose groups may be less than half a repeat: one block of each of eight groups at once.
template <typename Op>
__aicore__ inline void ByBlock(const LocalTensor<half>& dst, const LocalTensor<half>& src, const Part& s,
                               int32_t group, const LocalTensor<half>& by) {
  if (group >= kHalves) return ByRun<Op>(dst, src, s, group, by);
  const uint8_t row = static_cast<uint8_t>(s.width / kShared), next = static_cast<uint8_t>(s.pitch);
  const uint8_t blocks = static_cast<uint8_t>(group / kShared);
  for (int32_t g = 0; g < s.groups; g += kLineBlocks)
    for (int32_t i = 0; i < group; i += kShared) {
      const uint32_t at = static_cast<uint32_t>(g * group + i);
      Op::Two(dst[at], src[at], by[static_cast<uint32_t>(g * kShared)],
              static_cast<uint64_t>(Min(kLineBlocks, s.groups - g) * kShared), s.rows,
              AscendC::BinaryRepeatParams(blocks, blocks, 1, row, row, next));
    }
}
struct Times {
  template <typename... A>
  __aicore__ static inline void Two(const A&... a) {
    AscendC::Mul(a...);
  }
  template <typename F>
  __aicore__ static inline void Do(const LocalTensor<F>& dst, const LocalTensor<F>& src, uint64_t lanes,
                                   int32_t repeats, uint8_t step, uint8_t next, const LocalTensor<F>& by) {
    AscendC::Mul(dst, src, by, lanes, repeats, AscendC::BinaryRepeatParams(1, 1, 0, step, step, next));
  }
};
struct Less {
  template <typename... A>
  __aicore__ static inline void Two(const A&... a) {
    AscendC::Sub(a...);
  }
  template <typename F>
  __aicore__ static inline void Do(const LocalTensor<F>& dst, const LocalTensor<F>& src, uint64_t lanes,
                                   int32_t repeats, uint8_t step, uint8_t next, const LocalTensor<F>& by) {
    AscendC::Sub(dst, src, by, lanes, repeats, AscendC::BinaryRepeatParams(1, 1, 0, step, step, next));
  }
};
// In place. Products of codes and scales are exact, so that one rounding is left.
struct TimesPlus {
  __aicore__ static inline void Do(const LocalTensor<float>& x, const LocalTensor<float>&, uint64_t lanes,
                                   int32_t repeats, uint8_t step, uint8_t next, const LocalTensor<float>& by,
                                   const LocalTensor<float>& plus) {
    AscendC::FusedMulAdd(x, by, plus, lanes, static_cast<uint8_t>(repeats),
                         AscendC::BinaryRepeatParams(1, 0, 0, step, next, next));
  }
};

template <typename T, bool kHalf>
class Dequantiser {
 public:
  __aicore__ inline explicit Dequantiser(const TwGemmW4Tiling& tiling)
      : t_(tiling), ring_(tiling), wide_path_(!kHalf || tiling.zero == kMin) {}

  __aicore__ inline void Init(GM_ADDR b, GM_ADDR scale, GM_ADDR zero, GM_ADDR minimum, GM_ADDR bias,
                              GM_ADDR workspace) {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx() / 2);
    half_ = static_cast<int32_t>(AscendC::GetSubBlockIdx());
    b_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(b));
    scale_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(scale));
    zero_.SetGlobalBuffer(reinterpret_cast<__gm__ uint8_t*>(zero));
    minimum_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(minimum));
    bias_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(bias));
    workspace_ = workspace + block * ring_.slot * t_.slots;
    loading_.tiles.Init(t_, block);
    now_.tiles.Init(t_, block);
    Allocate();
  }

  __aicore__ inline void Process() {
    tw_rows::OpenSlots();
    if (t_.has_bias != 0) {
      SetFlag<HardEvent::V_MTE2>(kEventBias);
      SetFlag<HardEvent::MTE3_V>(kEventBias);
    }
    if (loading_.tiles.Valid()) Load(0);
    for (int32_t slot = 0; now_.tiles.Valid(); slot ^= 1) {
      if (loading_.tiles.Valid()) Load(slot ^ 1);
      Work(slot);
    }
    if (t_.has_bias != 0) {
      WaitFlag<HardEvent::V_MTE2>(kEventBias);
      WaitFlag<HardEvent::MTE3_V>(kEventBias);
    }
    tw_rows::CloseSlots();
  }

 private:
  // Some rows of a chunk of a tile.
  struct Place {
    Tiles tiles;
    int32_t k = 0, row = 0;
  };
  // This core's columns of a tile: where they begin, and how many.
  __aicore__ inline int32_t Begin(const Tiles& tile) const {
    return half_ * RoundUp(CeilDiv(tile.Columns(), 2), kLineBlocks);
  }
  __aicore__ inline int32_t Mine(const Tiles& tile) const {
    const int32_t all = tile.Columns(), share = RoundUp(CeilDiv(all, 2), kLineBlocks);
    const int32_t left = all - half_ * share;
    return left > 0 ? Min(share, left) : 0;
  }
  __aicore__ inline void Advance(Place& p) const {
    p.row += t_.rows;
    if (p.row < Mine(p.tiles)) return;
    p.row = 0;
    p.k += t_.chunk;
    if (p.k < t_.k) return;
    p.k = 0;
    p.tiles.Next();
  }
  __aicore__ inline int32_t Valid(const Place& p) const { return Min(t_.chunk, t_.k - p.k); }
  __aicore__ inline Part PartOf(const Place& p) const {
    const int32_t width = RoundUp(Valid(p), t_.group > kCodesABlock ? t_.group : kCodesABlock);
    return {Min(t_.rows, Mine(p.tiles) - p.row), width, width / t_.group,
            RoundUp(t_.chunk / t_.group, kShared)};
  }

  __aicore__ inline void Allocate() {
    const int32_t count = t_.rows * t_.chunk, pitch = RoundUp(t_.chunk / t_.group, kShared);
    const int32_t shared = t_.rows * pitch;
    tw_kv::Room room;
    for (int32_t i = 0; i < 2; ++i) {
      codes_[i] = room.Take<int16_t>(count / 4);
      scales_[i] = room.Take<half>(shared);
      minima_[i] = room.Take<half>(t_.zero == kMin ? shared : 0);
      zeros_[i] = room.Take<uint8_t>(t_.zero == kAsym ? t_.rows * tw_kv::kBlock : 0);
      out_[i] = room.Take<T>(count);
    }
    halves_ = room.Take<half>(count);
    wide_ = room.Take<float>(wide_path_ ? count : 0);
    floats_ = room.Take<float>(wide_path_ ? shared : 0);
    by_ = room.Take<half>(shared * kShared);
    more_ = room.Take<half>(t_.zero != kSym ? shared * kShared : 0);
    some_ = room.Take<half>(t_.zero == kAsym ? shared : 0);
    highest_ = room.Take<int16_t>(kHalves);
    low_ = room.Take<int16_t>(kHalves);
    bias_in_ = room.Take<T>(t_.has_bias != 0 ? t_.tile_n : 0);
    bias_out_ = room.Take<float>(t_.has_bias != 0 ? t_.tile_n : 0);
    AscendC::Duplicate(highest_, kHighest, kHalves);
    AscendC::Duplicate(low_, kLow, kHalves);
    // What lies behind a short row is worked on with it.
    for (int32_t i = 0; i < 2; ++i) {
      tw_rows::Clear(codes_[i], count / 4);
      tw_rows::Clear(scales_[i], shared);
      if (t_.zero == kMin) tw_rows::Clear(minima_[i], shared);
      if (t_.zero == kAsym) tw_rows::Clear(zeros_[i], t_.rows * tw_kv::kBlock);
    }
    Fence();
  }

  __aicore__ inline void Load(int32_t slot) {
    const Place& p = loading_;
    const Part s = PartOf(p);
    if (s.rows > 0) {
      const uint64_t column = static_cast<uint64_t>(p.tiles.Column() + Begin(p.tiles) + p.row);
      const int32_t words = CeilDiv(Valid(p), kCodesAWord), groups = CeilDiv(Valid(p), t_.group);
      const uint64_t first = static_cast<uint64_t>(p.k / t_.group);
      WaitFlag<HardEvent::V_MTE2>(slot);
      tw_rows::Load(codes_[slot].template ReinterpretCast<int32_t>(),
                    b_[column * t_.ldb + static_cast<uint64_t>(p.k / kCodesAWord)],
                    {s.rows, words, s.width / kCodesAWord}, t_.ldb);
      tw_rows::Load(scales_[slot], scale_[column * t_.ld_scale + first], {s.rows, groups, s.pitch},
                    t_.ld_scale);
      if (t_.zero == kAsym)
        tw_rows::Load(zeros_[slot], zero_[column * t_.ld_zero + first], {s.rows, groups, tw_kv::kBlock},
                      t_.ld_zero);
      if (t_.zero == kMin)
        tw_rows::Load(minima_[slot], minimum_[column * t_.ld_min + first], {s.rows, groups, s.pitch},
                      t_.ld_min);
      SetFlag<HardEvent::MTE2_V>(slot);
    }
    Advance(loading_);
  }

  // Some rows to the ring; the chunk is handed over with its last ones.
  __aicore__ inline void Work(int32_t slot) {
    const Place& p = now_;
    const Part s = PartOf(p);
    GM_ADDR to = workspace_ + (chunks_ % t_.slots) * ring_.slot;
    const bool with_bias = p.row == 0 && p.k == 0 && half_ == 0 && t_.has_bias != 0;
    if (s.rows > 0) {
      Weights(slot, s);
      SetFlag<HardEvent::V_MTE3>(slot);
    }
    if (with_bias) WidenBias(p.tiles);
    if (p.row == 0 && chunks_ >= t_.slots) AscendC::CrossCoreWaitFlag<2, PIPE_MTE3>(kFree);
    if (s.rows > 0) {
      GlobalTensor<T> weights;
      weights.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(to));
      WaitFlag<HardEvent::V_MTE3>(slot);
      Store(weights[static_cast<uint64_t>(Begin(p.tiles) + p.row) * t_.chunk], out_[slot], s);
      SetFlag<HardEvent::MTE3_V>(slot);
    }
    if (with_bias) StoreBias(to, p.tiles.Columns());
    if (p.row + t_.rows >= Mine(p.tiles)) {
      AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kReady);
      ++chunks_;
    }
    Advance(now_);
  }

  __aicore__ inline void Store(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const Part& s) const {
    const int32_t line = s.width / kShared, gap = (t_.chunk - s.width) / kShared;
    const bool dense = gap == 0;
    AscendC::DataCopy(dst, src,
                      AscendC::DataCopyParams(static_cast<uint16_t>(dense ? 1 : s.rows),
                                              static_cast<uint16_t>(dense ? s.rows * line : line), 0,
                                              static_cast<uint16_t>(gap)));
  }

  __aicore__ inline void WidenBias(const Tiles& tile) {
    WaitFlag<HardEvent::V_MTE2>(kEventBias);
    tw_rows::LoadRun(bias_in_, bias_[static_cast<uint64_t>(tile.Column())], tile.Columns());
    SetFlag<HardEvent::MTE2_V>(kEventBias);
    WaitFlag<HardEvent::MTE2_V>(kEventBias);
    WaitFlag<HardEvent::MTE3_V>(kEventBias);
    tw_rows::Widen(bias_out_, bias_in_, RoundUp(tile.Columns(), kShared));
    SetFlag<HardEvent::V_MTE2>(kEventBias);
    SetFlag<HardEvent::V_MTE3>(kEventBias);
  }
  __aicore__ inline void StoreBias(GM_ADDR slot, int32_t columns) {
    GlobalTensor<float> to;
    to.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(slot + ring_.weights));
    WaitFlag<HardEvent::V_MTE3>(kEventBias);
    AscendC::DataCopy(to, bias_out_, static_cast<uint32_t>(RoundUp(columns, kShared)));
    SetFlag<HardEvent::MTE3_V>(kEventBias);
  }

  __aicore__ inline void Weights(int32_t slot, const Part& s) {
    const uint32_t count = static_cast<uint32_t>(s.count());
    const int32_t repeats = CeilDiv(s.count() / 4, kHalves);
    const LocalTensor<int16_t> codes = codes_[slot];
    const LocalTensor<int16_t> with = halves_.template ReinterpretCast<int16_t>();
    const LocalTensor<int16_t> common = with[static_cast<uint32_t>(repeats * kHalves)];
    const AscendC::BinaryRepeatParams same(1, 1, 1, 8, 8, 0);
    WaitFlag<HardEvent::MTE2_V>(slot);
    // Exclusive or, of what 2201 has: what either has less what both have.
    AscendC::Or(with, codes, highest_, static_cast<uint64_t>(kHalves), repeats, same);
    AscendC::And(common, codes, highest_, static_cast<uint64_t>(kHalves), repeats, same);
    SpreadShared(slot, s);
    AscendC::Sub(codes, with, common, repeats * kHalves);
    Fence();
    AscendC::Cast(halves_, codes.template ReinterpretCast<AscendC::int4b_t>(), AscendC::RoundMode::CAST_NONE,
                  count);
    Fence();
    SetFlag<HardEvent::V_MTE2>(slot);
    if (t_.zero == kAsym) {
      ByBlock<Less>(halves_, halves_, s, t_.group, more_);
      Fence();
    }
    WaitFlag<HardEvent::MTE3_V>(slot);
    if constexpr (kHalf) {
      if (t_.zero != kMin) return ByBlock<Times>(out_[slot], halves_, s, t_.group, by_);
    }
    Wide(out_[slot], s);
  }

  // Products, and sums with minima, in fp32; rounded once.
  __aicore__ inline void Wide(const LocalTensor<T>& out, const Part& s) {
    const uint32_t count = static_cast<uint32_t>(s.count());
    if (t_.zero == kMin) {
      AscendC::Adds(halves_, halves_, half(8.0f), s.count());
      Fence();
    }
    AscendC::Cast(wide_, halves_, AscendC::RoundMode::CAST_NONE, count);
    Fence();
    const LocalTensor<float> by = by_.template ReinterpretCast<float>();
    if (t_.zero == kMin)
      ByRun<TimesPlus>(wide_, wide_, s, t_.group, by, more_.template ReinterpretCast<float>());
    else
      ByRun<Times>(wide_, wide_, s, t_.group, by);
    Fence();
    AscendC::Cast(out, wide_, AscendC::RoundMode::CAST_RINT, count);
  }

  // A block for each group's scale, and for its zero (less 8) or its minimum.
  __aicore__ inline void SpreadShared(int32_t slot, const Part& s) {
    SpreadHalves(by_, scales_[slot], s);
    if (t_.zero == kMin) {
      Fence();
      SpreadHalves(more_, minima_[slot], s);
    }
    if (t_.zero == kAsym) {
      const LocalTensor<int16_t> pairs = zeros_[slot].template ReinterpretCast<int16_t>();
      const int32_t lanes = s.rows * tw_kv::kBlock / 2;
      for (int32_t at = 0; at < lanes; at += kHalves)
        AscendC::And(pairs[static_cast<uint32_t>(at)], pairs[static_cast<uint32_t>(at)], low_,
                     Min(kHalves, lanes - at));
      Fence();
      AscendC::Cast(some_, zeros_[slot], AscendC::RoundMode::CAST_NONE, static_cast<uint64_t>(s.pitch),
                    s.rows, AscendC::UnaryRepeatParams(1, 1, static_cast<uint8_t>(s.pitch / kShared), 1));
      Fence();
      AscendC::Adds(some_, some_, half(-8.0f), s.shared());
      Fence();
      tw_kv::Spread(more_, some_, s.shared());
    }
    Fence();
  }
  __aicore__ inline void SpreadHalves(const LocalTensor<half>& blocks, const LocalTensor<half>& numbers,
                                      const Part& s) {
    if (!wide_path_) return tw_kv::Spread(blocks, numbers, s.shared());
    AscendC::Cast(floats_, numbers, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.shared()));
    Fence();
    tw_kv::Spread(blocks.template ReinterpretCast<float>(), floats_, s.shared());
  }

  const TwGemmW4Tiling& t_;
  const Ring ring_;
  const bool wide_path_;  // weights are computed in fp32, scales too
  GM_ADDR workspace_ = nullptr;
  GlobalTensor<int32_t> b_;
  GlobalTensor<half> scale_, minimum_;
  GlobalTensor<uint8_t> zero_;
  GlobalTensor<T> bias_;
  LocalTensor<int16_t> codes_[2], highest_, low_;
  LocalTensor<half> scales_[2], minima_[2], halves_, by_, more_, some_;
  LocalTensor<uint8_t> zeros_[2];
  LocalTensor<float> wide_, floats_, bias_out_;
  LocalTensor<T> out_[2], bias_in_;
  Place loading_, now_;
  int32_t half_ = 0, chunks_ = 0;
};

}  // namespace tw_w4
