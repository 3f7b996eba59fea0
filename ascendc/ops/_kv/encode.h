// Floats of a tile to codes of 8 or 4 bits and their scales, bit for bit what kernels/_kv/reference.py says.
//
// What a tile needs in UB, and the steps between a loaded tile and codes that can be stored. `count` elements
// of a tile at most, `width` of a token's.
#pragma once

#include "lanes.h"

namespace tw_kv {

constexpr float kTiny = 1.1754943508222875e-38f;  // 2**-126: the reciprocal of less overflows

template <typename In>
class Encoder {
 public:
  __aicore__ inline Encoder() {}

  // `slots`: 2 where the next tile is loaded meanwhile, else 1.
  __aicore__ inline void Init(Room& room, int32_t count, int32_t width, int32_t rows, int32_t slots) {
    const int32_t wide = RoundUp(width, kWords);
    for (int32_t i = 0; i < slots; ++i) in[i] = room.Take<In>(count);
    if (sizeof(In) != sizeof(float)) floats_ = room.Take<float>(count);
    work = room.Take<float>(Max(count, rows * kFloats));
    for (int32_t i = 0; i < slots; ++i) {
      scale32[i] = room.Take<float>(kMaxRows);
      scale16[i] = room.Take<half>(Max(kMaxRows, wide));
      zero16[i] = room.Take<half>(Max(kMaxRows, wide));
    }
    high_ = room.Take<float>(Max(kMaxRows, wide));
    low_ = room.Take<float>(Max(kMaxRows, wide));
    eights_ = RoundUp(rows, 8) * kBlockFloats;
    eight_ = room.Take<float>(eights_);
    const int32_t blocks = eights_ + count / kBlockFloats;
    by_scale = room.Take<float>(blocks);
    by_zero = room.Take<float>(blocks);
    channel = room.Take<float>(wide);
    bits_ = room.Take<uint8_t>(Max(kMaxRows, wide) / 8);
    Clear(count, Max(kMaxRows, wide), slots);
  }

  // The tile of a slot as fp32: its own buffer, or in place.
  __aicore__ inline LocalTensor<float> Floats(int32_t slot, const Shape& s) {
    if constexpr (sizeof(In) == sizeof(float)) {
      return in[slot];
    } else {
      AscendC::Cast(floats_, in[slot], AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.count()));
      Fence();
      return floats_;
    }
  }

  // c8d: scale32[slot] of each row, and its reciprocal in by_scale.
  __aicore__ inline void DynamicScale(const LocalTensor<float>& x, const Shape& s, int32_t slot) {
    LargestOfRows(high_, x, work, s);
    AscendC::Muls(high_, high_, 1.0f / 127.0f, s.rows());
    Fence();
    NotTiny(scale32[slot], high_);
    Invert(low_, scale32[slot], kMaxRows);
    Fence();
    SpreadRows(by_scale, low_, s);
    Fence();
  }
  // The largest magnitude of each row whose padding is 0; `magnitude` takes a tile.
  __aicore__ inline void LargestOfRows(const LocalTensor<float>& dst, const LocalTensor<float>& x,
                                       const LocalTensor<float>& magnitude, const Shape& s) {
    const uint8_t step = static_cast<uint8_t>(s.row() / kBlockFloats);
    AscendC::Abs(magnitude, x, s.count());
    if (s.row() < kFloats) AscendC::Duplicate(eight_, 0.0f, eights_);
    Fence();
    for (int32_t c = kFloats; c < s.row(); c += kFloats) {
      AscendC::Max(magnitude, magnitude, magnitude[static_cast<uint32_t>(c)],
                   static_cast<uint64_t>(Min(kFloats, s.row() - c)), s.rows(),
                   AscendC::BinaryRepeatParams(1, 1, 1, step, step, step));
      Fence();
    }
    AscendC::BlockReduceMax(eight_, magnitude, s.rows(), static_cast<uint64_t>(Min(kFloats, s.row())), 1, 1,
                            step);
    Fence();
    AscendC::BlockReduceMax(dst, eight_, CeilDiv(s.rows(), 8), static_cast<uint64_t>(kFloats), 1, 1, 8);
    Fence();
  }
  // The same whatever the padding holds; `wide` takes 64 elements a row.
  __aicore__ inline void LargestOfValid(const LocalTensor<float>& dst, const LocalTensor<float>& x,
                                        const LocalTensor<float>& magnitude, const LocalTensor<float>& wide,
                                        const Shape& s) {
    AscendC::Abs(magnitude, x, s.count());
    RangeOfRows<Max2>(dst, magnitude, wide, eight_, s);
    Fence();
  }
  // kMaxRows scales, 1 where their reciprocal would overflow.
  __aicore__ inline void NotTiny(const LocalTensor<float>& dst, const LocalTensor<float>& scales) {
    AscendC::CompareScalar(bits_, scales, kTiny, AscendC::CMPMODE::GE, static_cast<uint32_t>(kMaxRows));
    Fence();
    AscendC::Select(dst, bits_, scales, 1.0f, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE,
                    static_cast<uint32_t>(kMaxRows));
    Fence();
  }

  // c8: codes of products x * r, rows `pitch` bytes apart from token to token. Casts to integers saturate, so
  // that these are bounded; with scales of the very rows (`bounded`) they are within reach already. `whole`
  // holds integers on the way.
  __aicore__ inline void Codes8(const LocalTensor<int8_t>& codes, int32_t pitch, const LocalTensor<float>& x,
                                const LocalTensor<int16_t>& whole, const Shape& s, bool bounded) {
    AscendC::Cast(whole, x, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(s.count()));
    Fence();
    if (!bounded) Bound(whole, -127, 127, s.count());
    Narrow(codes, pitch, whole, s);
  }

  // kv4 of values: scale and zero of each row, fp16 to be stored, fp32 (the scale's reciprocal) to use.
  __aicore__ inline void RangeByRow(const LocalTensor<float>& x, const Shape& s, int32_t slot) {
    RangeOfRows<Max2>(high_, x, work, eight_, s);
    Fence();
    RangeOfRows<Min2>(low_, x, work, eight_, s);
    Fence();
    Range4(slot, kMaxRows);
    SpreadRows(by_zero, low_, s);
    SpreadRows(by_scale, high_, s);
    Fence();
  }
  // kv4 of keys: the same of each channel over 16 tokens.
  __aicore__ inline void RangeByChannel(const LocalTensor<float>& x, const Shape& s, int32_t slot) {
    RangeOfChannels<Max2>(high_, x, work, s.width());
    Fence();
    RangeOfChannels<Min2>(low_, x, work, s.width());
    Fence();
    Range4(slot, RoundUp(s.width(), kWords));
  }
  // What RangeByChannel left: zeros, and reciprocals of scales. Otherwise free between tiles.
  __aicore__ inline LocalTensor<float> zeros() const { return low_; }
  __aicore__ inline LocalTensor<float> reciprocals() const { return high_; }

  // kv4: codes of products (x - zero) * r, four a lane.
  __aicore__ inline void Codes4(const LocalTensor<int8_t>& codes, int32_t pitch, const LocalTensor<float>& x,
                                const LocalTensor<int16_t>& planes, const Shape& s) {
    ToPlanes(planes, x, s);
    Bound(planes, 0, 15, 4 * PlaneSize(s));
    Pack(codes, pitch, planes, s);
  }
  // The work tensor as integers of 16 bits.
  __aicore__ inline LocalTensor<int16_t> words() const { return work.template ReinterpretCast<int16_t>(); }

  LocalTensor<In> in[2];
  LocalTensor<float> work;
  LocalTensor<float> scale32[2];            // c8d, to be stored
  LocalTensor<half> scale16[2], zero16[2];  // kv4, to be stored
  LocalTensor<float> by_scale, by_zero;     // a block a row: reciprocals, zeros
  LocalTensor<float> channel;               // c8s: reciprocals of a token's width

 private:
  // What is read before anything was written: ends of groups of rows, padding between segments.
  __aicore__ inline void Clear(int32_t count, int32_t wide, int32_t slots) {
    for (int32_t i = 0; i < slots; ++i)
      AscendC::Duplicate(in[i].template ReinterpretCast<int16_t>(), static_cast<int16_t>(0),
                         count * static_cast<int32_t>(sizeof(In)) / 2);
    AscendC::Duplicate(high_, 0.0f, wide);
    AscendC::Duplicate(low_, 0.0f, wide);
    AscendC::Duplicate(eight_, 0.0f, eights_);
    Fence();
  }

  // high_ and low_ to reciprocals of scales and zeros.
  __aicore__ inline void Range4(int32_t slot, int32_t count) {
    const uint32_t many = static_cast<uint32_t>(count);
    AscendC::Sub(high_, high_, low_, count);
    AscendC::Cast(zero16[slot], low_, AscendC::RoundMode::CAST_RINT, many);
    Fence();
    AscendC::Muls(high_, high_, 1.0f / 15.0f, count);
    AscendC::Cast(low_, zero16[slot], AscendC::RoundMode::CAST_NONE, many);
    Fence();
    AscendC::Cast(scale16[slot], high_, AscendC::RoundMode::CAST_RINT, many);
    Fence();
    AscendC::CompareScalar(bits_, scale16[slot], half(0.0f), AscendC::CMPMODE::NE, many);
    Fence();
    AscendC::Select(scale16[slot], bits_, scale16[slot], half(1.0f),
                    AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, many);
    Fence();
    AscendC::Cast(wide_scale(), scale16[slot], AscendC::RoundMode::CAST_NONE, many);
    Fence();
    Invert(high_, wide_scale(), count);
    Fence();
  }
  // fp32 of the scales; what was worked out there is done with.
  __aicore__ inline LocalTensor<float> wide_scale() const { return work; }

  LocalTensor<float> floats_, high_, low_, eight_;
  LocalTensor<uint8_t> bits_;
  int32_t eights_;
};

}  // namespace tw_kv
