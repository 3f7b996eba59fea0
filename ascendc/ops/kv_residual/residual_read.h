// Codes, masks and pools back to floats. A tile is all 16 tokens of some heads of a page; codes become fp32
// by shifts on lanes of 16 bits and casts. What selected vectors have beyond their codes is decoded a batch
// of pool rows at a time and added to their rows; rows that stayed in float are put in place.
#pragma once

#include "../_kv/lanes.h"
#include "residual.h"

namespace tw_kv {

template <typename In>
class ResidualReader {
 public:
  __aicore__ inline ResidualReader() {}

  __aicore__ inline void Init(const ResidualArguments& a, const TwKvResidualTiling& tiling) {
    t_ = tiling;
    a_ = a;
    four_ = t_.kv >= kTwKv4Value;
    split_ = !four_ && t_.dim % kBlock != 0;
    block_ = static_cast<int32_t>(AscendC::GetBlockIdx());
    tiles_ = CeilDiv(t_.heads, t_.tile_heads);
    y_ = Global<In>(a.x);
    cache_.Init(a.codes, t_.page_stride, t_.within_stride, t_.nz != 0);
    staged_ = Global<int8_t>(a.workspace)[StagedAt(t_, block_)];
    Allocate();
  }

  __aicore__ inline void Process() {
    const Share units = ShareOf(t_.pages * tiles_, t_.blocks, block_);
    for (int32_t i = 0; i < t_.slots; ++i) {
      AscendC::SetFlag<HardEvent::V_MTE2>(i);
      AscendC::SetFlag<HardEvent::MTE3_V>(i);
    }
    AscendC::SetFlag<HardEvent::V_MTE2>(kBatch);
    for (int32_t u = units.begin; u < units.end; ++u) {
      slot_ = (u - units.begin) % t_.slots;
      head_ = u % tiles_ * t_.tile_heads;
      heads_ = Min(t_.tile_heads, t_.heads - head_);
      page_ = Global<int32_t>(a_.page_ids).GetValue(static_cast<uint64_t>(u / tiles_));
      Unit(u / tiles_);
    }
    for (int32_t i = 0; i < t_.slots; ++i) {
      AscendC::WaitFlag<HardEvent::V_MTE2>(i);
      AscendC::WaitFlag<HardEvent::MTE3_V>(i);
    }
    AscendC::WaitFlag<HardEvent::V_MTE2>(kBatch);
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  using HardEvent = AscendC::HardEvent;
  static constexpr int32_t kBatch = 2;  // event id of what a batch loads

  __aicore__ inline void Allocate() {
    const Shape s = ResidualShape(kPage, t_.tile_heads, t_.dim, four_);
    const int32_t count = s.count(), batch = t_.batch * s.row(), bytes = count + kPage * kBlock;
    const int32_t planes = 4 * PlaneSize(s), numbers = kPage * RoundUp(t_.tile_heads, kLanes);
    Room room;
    for (int32_t i = 0; i < t_.slots; ++i) {
      codes_[i] = room.Take<int8_t>(bytes);
      out_[i] = room.Take<In>(count);
      channels_[i] = room.Take<float>(s.width());
      halves_[i] = room.Take<half>(2 * s.width());
      numbers_[i] = room.Take<float>(numbers);
      more_[i] = room.Take<float>(numbers);
    }
    if (t_.nz != 0) rows8_ = room.Take<int8_t>(bytes);
    values_ = room.Take<float>(count);
    whole_ = room.Take<int16_t>(Max(count, planes));
    scale_ = room.Take<float>(Max(s.width(), numbers));
    zero_ = room.Take<float>(Max(s.width(), numbers));
    by_scale_ = room.Take<float>(numbers * kBlockFloats);
    by_zero_ = room.Take<float>(numbers * kBlockFloats);
    lanes_ = room.Take<int16_t>(t_.batch * Quarters(s).padded);
    planes_ = room.Take<int16_t>(4 * t_.batch * Quarters(s).padded);
    extra_ = room.Take<float>(batch);
    floats_ = room.Take<In>(batch);
    AscendC::Duplicate(values_, 0.0f, count);
    AscendC::Duplicate(extra_, 0.0f, batch);
    AscendC::Duplicate(floats_.template ReinterpretCast<int16_t>(), static_cast<int16_t>(0),
                       batch * static_cast<int32_t>(sizeof(In)) / 2);
    for (int32_t i = 0; i < t_.slots; ++i) {
      AscendC::Duplicate(codes_[i].template ReinterpretCast<int16_t>(), static_cast<int16_t>(0), bytes / 2);
      AscendC::Duplicate(channels_[i], 0.0f, s.width());
      AscendC::Duplicate(halves_[i], half(0.0f), 2 * s.width());
      AscendC::Duplicate(numbers_[i], 0.0f, numbers);
      AscendC::Duplicate(more_[i], 0.0f, numbers);
    }
    Fence();
  }

  __aicore__ inline void Unit(int32_t page) {
    const Shape s = ResidualShape(kPage, heads_, t_.dim, four_);
    AscendC::WaitFlag<HardEvent::V_MTE2>(slot_);
    LoadCodes();
    LoadScales(s);
    AscendC::SetFlag<HardEvent::MTE2_V>(slot_);
    AscendC::WaitFlag<HardEvent::MTE2_V>(slot_);
    Fence();
    CodesToFloats(s);
    if (t_.e3m0 == 0) Add(s);
    Scale(s);
    if (t_.e3m0 != 0) Add(s);
    AscendC::SetFlag<HardEvent::V_MTE2>(slot_);
    PutFloats(s);
    AscendC::WaitFlag<HardEvent::MTE3_V>(slot_);
    if constexpr (sizeof(In) == sizeof(float))
      AscendC::DataCopy(out_[slot_], values_, static_cast<uint32_t>(s.count()));
    else
      AscendC::Cast(out_[slot_], values_, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(s.count()));
    AscendC::SetFlag<HardEvent::V_MTE3>(slot_);
    AscendC::WaitFlag<HardEvent::V_MTE3>(slot_);
    StoreRows(y_[static_cast<uint64_t>(page) * t_.x_page + static_cast<uint64_t>(head_) * t_.x_head],
              out_[slot_], s, {t_.x_token, t_.x_head}, s.width());
    AscendC::SetFlag<HardEvent::MTE3_V>(slot_);
  }

  __aicore__ inline CodeBytes Bytes() const { return CodeBytes(t_.dim, four_, split_); }
  __aicore__ inline void LoadCodes() {
    const CodeBytes bytes = t_.nz != 0 ? CodeBytes(t_.dim, four_) : Bytes();
    cache_.Load(codes_[slot_], page_ * kPage, kPage, head_, heads_, bytes);
  }
  __aicore__ inline void LoadScales(const Shape& s) {
    if (t_.kv == kTwC8s || t_.kv == kTwKv4Key) {
      const Shape one = ResidualShape(1, heads_, t_.dim, four_);
      const Strides apart{t_.heads * t_.dim, t_.dim};
      const uint64_t head = static_cast<uint64_t>(head_) * t_.dim;
      if (t_.kv == kTwC8s) {
        LoadRows(channels_[slot_], Global<float>(a_.channel_scale)[head], one, apart, s.width());
        return;
      }
      const uint64_t at = static_cast<uint64_t>(page_) * t_.heads * t_.dim + head;
      LoadRows(halves_[slot_], Global<half>(a_.page_scale)[at], one, apart, s.width());
      LoadRows(halves_[slot_][static_cast<uint32_t>(s.width())], Global<half>(a_.page_zero)[at], one, apart,
               s.width());
      return;
    }
    const uint64_t at = static_cast<uint64_t>(page_) * kPage * t_.heads + head_;
    const Shape numbers{kPage, 1, 1, heads_, Numbers()};
    const Strides apart{t_.heads, heads_};
    if (t_.kv == kTwC8d) {
      LoadRows(numbers_[slot_], Global<float>(a_.token_scale)[at], numbers, apart, Numbers());
      return;
    }
    LoadRows(numbers_[slot_].template ReinterpretCast<half>(), Global<half>(a_.token_scale)[at], numbers,
             apart, Numbers());
    LoadRows(more_[slot_].template ReinterpretCast<half>(), Global<half>(a_.token_zero)[at], numbers, apart,
             Numbers());
  }
  // Numbers of a token in UB: whole blocks of fp32 and of fp16.
  __aicore__ inline int32_t Numbers() const {
    return RoundUp(heads_, t_.kv == kTwC8d ? kBlockFloats : kLanes);
  }

  // Codes as fp32 in values_.
  __aicore__ inline void CodesToFloats(const Shape& s) {
    LocalTensor<int8_t> rows = codes_[slot_];
    if (t_.nz != 0) {
      const CodeBytes whole(t_.dim, four_);
      const int32_t blocks = heads_ * whole.row() / kBlock;
      TurnBlocks<false>(rows8_, rows, kPage, blocks, blocks);
      Fence();
      rows = rows8_;
      if (split_) rows = Restage(blocks * kBlock);
    }
    if (four_) {
      Unpack<false>(whole_, rows.ReinterpretCast<int16_t>(), s);
      FromPlanes(values_, whole_, s);
      return;
    }
    const LocalTensor<half> halves = whole_.template ReinterpretCast<half>();
    AscendC::Cast(halves, rows, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.count()));
    Fence();
    AscendC::Cast(values_, halves, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.count()));
    Fence();
  }
  // Heads padded as a whole to quarters padded each, through global memory, into the slot's codes.
  __aicore__ inline LocalTensor<int8_t> Restage(int32_t pitch) {
    const Strides dense{heads_ * t_.dim, t_.dim};
    AscendC::WaitFlag<HardEvent::V_MTE2>(kBatch);
    AscendC::SetFlag<HardEvent::V_MTE3>(kBatch);
    AscendC::WaitFlag<HardEvent::V_MTE3>(kBatch);
    StoreRows(staged_, rows8_, CodeBytes(t_.dim, four_).shape(kPage, heads_), dense, pitch);
    AscendC::SetFlag<HardEvent::MTE3_MTE2>(0);
    AscendC::WaitFlag<HardEvent::MTE3_MTE2>(0);
    LoadRows(codes_[slot_], staged_, Bytes().shape(kPage, heads_), dense, heads_ * Bytes().row());
    AscendC::SetFlag<HardEvent::MTE2_V>(kBatch);
    AscendC::WaitFlag<HardEvent::MTE2_V>(kBatch);
    AscendC::SetFlag<HardEvent::V_MTE2>(kBatch);
    return codes_[slot_];
  }

  // values_ = scale * values_, 4 bits: zero + that.
  __aicore__ inline void Scale(const Shape& s) {
    if (t_.kv == kTwC8s) {
      ByChannel<Mul2>(values_, values_, channels_[slot_], s);
      Fence();
      return;
    }
    if (t_.kv == kTwKv4Key) {
      const uint32_t width = static_cast<uint32_t>(s.width());
      AscendC::Cast(scale_, halves_[slot_], AscendC::RoundMode::CAST_NONE, width);
      AscendC::Cast(zero_, halves_[slot_][width], AscendC::RoundMode::CAST_NONE, width);
      Fence();
      ByChannel<Mul2>(values_, values_, scale_, s);
      Fence();
      ByChannel<Add2>(values_, values_, zero_, s);
      Fence();
      return;
    }
    const int32_t numbers = kPage * Numbers();
    if (t_.kv == kTwC8d) {
      Spread(by_scale_, numbers_[slot_], numbers);
      Fence();
      ByRowOfHeads<Mul2>(by_scale_, s);
      return;
    }
    AscendC::Cast(scale_, numbers_[slot_].template ReinterpretCast<half>(), AscendC::RoundMode::CAST_NONE,
                  static_cast<uint32_t>(numbers));
    AscendC::Cast(zero_, more_[slot_].template ReinterpretCast<half>(), AscendC::RoundMode::CAST_NONE,
                  static_cast<uint32_t>(numbers));
    Fence();
    Spread(by_scale_, scale_, numbers);
    Spread(by_zero_, zero_, numbers);
    Fence();
    ByRowOfHeads<Mul2>(by_scale_, s);
    ByRowOfHeads<Add2>(by_zero_, s);
  }
  // As ByRow, where a token's blocks are padded to whole blocks of numbers: 16 tokens of one head a time.
  template <typename Op>
  __aicore__ inline void ByRowOfHeads(const LocalTensor<float>& by, const Shape& s) {
    const uint8_t step = static_cast<uint8_t>(s.width() / kBlockFloats);
    for (int32_t h = 0; h < s.heads; ++h)
      for (int32_t c = 0; c < s.row(); c += kFloats) {
        const LocalTensor<float> part = values_[static_cast<uint32_t>(h * s.row() + c)];
        Op::Do(part, part, by[static_cast<uint32_t>(h * kBlockFloats)],
               static_cast<uint64_t>(Min(kFloats, s.row() - c)), s.tokens,
               AscendC::BinaryRepeatParams(1, 1, 0, step, step, static_cast<uint8_t>(Numbers())));
      }
    Fence();
  }

  // Adds what the pool holds to the rows of selected vectors, a batch of pool rows at a time.
  __aicore__ inline void Add(const Shape& s) {
    const Quarters q(s);
    for (int32_t h = 0; h < heads_; ++h) {
      const uint64_t at = static_cast<uint64_t>(page_) * t_.heads + static_cast<uint64_t>(head_ + h);
      int32_t mask = Global<int16_t>(a_.mask).GetValue(at) & 0xffff;
      if (mask == 0) continue;
      uint64_t rank = static_cast<uint64_t>(Global<int32_t>(a_.rank).GetValue(at));
      while (mask != 0) {
        const int32_t many = Min(t_.batch, Places::Bits(mask));
        const Shape b{many, 1, s.segments, s.valid, s.padded};
        AscendC::WaitFlag<HardEvent::V_MTE2>(kBatch);
        LoadRows(lanes_, Global<int16_t>(a_.pool)[rank * q.lanes], {many, 1, 1, q.lanes, q.padded},
                 {q.lanes, q.lanes}, q.padded);
        AscendC::SetFlag<HardEvent::MTE2_V>(kBatch);
        AscendC::WaitFlag<HardEvent::MTE2_V>(kBatch);
        if (t_.e3m0 != 0)
          PowersOfTwo(b, rank);
        else
          Sixteenths(b);
        AscendC::SetFlag<HardEvent::V_MTE2>(kBatch);
        for (int32_t i = 0; i < many; ++i, mask &= mask - 1) {
          const LocalTensor<float> row = values_[static_cast<uint32_t>(RowOf(mask, h) * s.row())];
          AscendC::Add(row, row, extra_[static_cast<uint32_t>(i * s.row())], s.row());
        }
        Fence();
        rank += static_cast<uint64_t>(many);
      }
    }
  }
  // The tile's row of the lowest bit.
  __aicore__ inline int32_t RowOf(int32_t mask, int32_t head) const {
    return static_cast<int32_t>(AscendC::ScalarGetSFFValue<1>(static_cast<uint64_t>(mask))) * heads_ + head;
  }
  __aicore__ inline void Sixteenths(const Shape& b) {
    Unpack<true>(planes_, lanes_, b);
    FromPlanes(extra_, planes_, b);
    AscendC::Muls(extra_, extra_, 0.0625f, b.count());
    Fence();
  }
  // Nibbles to (-1)**sign * 2**(exponent - 7) by the bits of fp32, times the vector's scale.
  __aicore__ inline void PowersOfTwo(const Shape& b, uint64_t rank) {
    const LocalTensor<int32_t> bits = extra_.template ReinterpretCast<int32_t>();
    const LocalTensor<int32_t> sign = whole_.template ReinterpretCast<int32_t>();
    Unpack<false>(planes_, lanes_, b);
    FromPlanes(extra_, planes_, b);
    AscendC::Cast(bits, extra_, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(b.count()));
    Fence();
    // sign | 3 bits of exponent | rest: the nibble's bits 3 and 2..0 go to 31 and 25..23, and 120 is added
    // there.
    const LocalTensor<uint32_t> low = bits.template ReinterpretCast<uint32_t>(),
                                high = sign.template ReinterpretCast<uint32_t>();
    AscendC::ShiftRight(high, low, static_cast<uint32_t>(3), b.count());
    AscendC::ShiftLeft(low, low, static_cast<uint32_t>(29), b.count());
    Fence();
    AscendC::ShiftLeft(high, high, static_cast<uint32_t>(31), b.count());
    AscendC::ShiftRight(low, low, static_cast<uint32_t>(6), b.count());
    Fence();
    AscendC::Adds(bits, bits, static_cast<int32_t>(120 << 23), b.count());
    Fence();
    AscendC::Add(bits, bits, sign, b.count());
    Fence();
    for (int32_t i = 0; i < b.tokens; ++i) {
      const LocalTensor<float> row = extra_[static_cast<uint32_t>(i * b.row())];
      AscendC::Muls(row, row, Global<float>(a_.pool_scale).GetValue(rank + static_cast<uint64_t>(i)),
                    b.row());
    }
    Fence();
  }

  // Rows that stayed in float.
  __aicore__ inline void PutFloats(const Shape& s) {
    for (int32_t h = 0; h < heads_; ++h) {
      const uint64_t at = static_cast<uint64_t>(page_) * t_.heads + static_cast<uint64_t>(head_ + h);
      int32_t mask = Global<int16_t>(a_.fmask).GetValue(at) & 0xffff;
      if (mask == 0) continue;
      uint64_t rank = static_cast<uint64_t>(Global<int32_t>(a_.frank).GetValue(at));
      while (mask != 0) {
        const int32_t many = Min(t_.batch, Places::Bits(mask));
        AscendC::WaitFlag<HardEvent::V_MTE2>(kBatch);
        LoadRows(floats_, Global<In>(a_.fpool)[rank * static_cast<uint64_t>(t_.dim)],
                 {many, 1, s.segments, s.valid, s.padded}, {t_.dim, t_.dim}, s.row());
        AscendC::SetFlag<HardEvent::MTE2_V>(kBatch);
        AscendC::WaitFlag<HardEvent::MTE2_V>(kBatch);
        for (int32_t i = 0; i < many; ++i, mask &= mask - 1) {
          const LocalTensor<float> row = values_[static_cast<uint32_t>(RowOf(mask, h) * s.row())];
          const LocalTensor<In> from = floats_[static_cast<uint32_t>(i * s.row())];
          if constexpr (sizeof(In) == sizeof(float))
            AscendC::DataCopy(row, from, static_cast<uint32_t>(s.row()));
          else
            AscendC::Cast(row, from, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.row()));
        }
        AscendC::SetFlag<HardEvent::V_MTE2>(kBatch);
        rank += static_cast<uint64_t>(many);
      }
    }
    Fence();
  }

  TwKvResidualTiling t_;
  ResidualArguments a_;
  bool four_, split_;
  AscendC::GlobalTensor<In> y_;
  AscendC::GlobalTensor<int8_t> staged_;
  Cache cache_;
  LocalTensor<int8_t> codes_[2], rows8_;
  LocalTensor<In> out_[2], floats_;
  LocalTensor<float> channels_[2], numbers_[2], more_[2];
  LocalTensor<half> halves_[2];
  LocalTensor<float> values_, scale_, zero_, by_scale_, by_zero_, extra_;
  LocalTensor<int16_t> whole_, lanes_, planes_;
  int32_t block_, tiles_, slot_ = 0, head_ = 0, heads_ = 0, page_ = 0;
};

}  // namespace tw_kv
