// Floats of a tile to codes of 8 or 4 bits and their scales, bit for bit what kernels/_kv/reference.py says.
//
// What a tile needs in UB, and the steps between a loaded tile and codes that can be stored. `count` elements
// of a tile at most, `width` of a token's.
#pragma once

#include "fractals.h"
#include "vector.h"

namespace tw_kv {

constexpr float kTiny = 1.1754943508222875e-38f;  // 2**-126: the reciprocal of less overflows

// Tensors one after the other in UB.
class Room {
 public:
  __aicore__ inline Room() {}
  template <typename T>
  __aicore__ inline LocalTensor<T> Take(int32_t count) {
    const uint32_t bytes = static_cast<uint32_t>(RoundUp(count * static_cast<int32_t>(sizeof(T)), kBlock));
    const LocalTensor<T> taken(AscendC::TPosition::VECCALC, at_, bytes / static_cast<uint32_t>(sizeof(T)));
    at_ += bytes;
    return taken;
  }

 private:
  uint32_t at_ = 0;
};

// Where the four elements lie whose codes share a lane of 16 bits.
struct Quarters {
  int32_t lanes, padded;  // of a row; padded ones fill whole blocks
  int32_t step;           // fp32 elements from one quarter of a row to the next
  __aicore__ inline explicit Quarters(const Shape& s) {
    lanes = s.head() / 4;
    padded = RoundUp(lanes, kLanes);
    step = s.segments == 4 ? s.padded : lanes;
  }
};

template <typename In>
class Encoder {
 public:
  __aicore__ inline Encoder() {}

  __aicore__ inline void Init(Room& room, int32_t count, int32_t width) {
    const int32_t wide = RoundUp(width, kWords);
    for (int32_t i = 0; i < 2; ++i) in[i] = room.Take<In>(count);
    if (sizeof(In) != sizeof(float)) floats_ = room.Take<float>(count);
    work = room.Take<float>(Max(count, kMaxRows * kFloats));
    for (int32_t i = 0; i < 2; ++i) {
      scale32[i] = room.Take<float>(kMaxRows);
      scale16[i] = room.Take<half>(Max(kMaxRows, wide));
      zero16[i] = room.Take<half>(Max(kMaxRows, wide));
    }
    high_ = room.Take<float>(Max(kMaxRows, wide));
    low_ = room.Take<float>(Max(kMaxRows, wide));
    eight_ = room.Take<float>(kMaxRows * kBlockFloats);
    by_scale = room.Take<float>(kMaxRows * kBlockFloats);
    by_zero = room.Take<float>(kMaxRows * kBlockFloats);
    channel = room.Take<float>(wide);
    bits_ = room.Take<uint8_t>(Max(kMaxRows, wide) / 8);
    Clear(count, Max(kMaxRows, wide));
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
    const uint8_t step = static_cast<uint8_t>(s.row() / kBlockFloats);
    AscendC::Abs(work, x, s.count());
    if (s.row() < kFloats) AscendC::Duplicate(eight_, 0.0f, kMaxRows * kBlockFloats);
    Fence();
    for (int32_t c = kFloats; c < s.row(); c += kFloats) {
      AscendC::Max(work, work, work[static_cast<uint32_t>(c)],
                   static_cast<uint64_t>(Min(kFloats, s.row() - c)), s.rows(),
                   AscendC::BinaryRepeatParams(1, 1, 1, step, step, step));
      Fence();
    }
    AscendC::BlockReduceMax(eight_, work, s.rows(), static_cast<uint64_t>(Min(kFloats, s.row())), 1, 1, step);
    Fence();
    AscendC::BlockReduceMax(high_, eight_, CeilDiv(s.rows(), 8), static_cast<uint64_t>(kFloats), 1, 1, 8);
    Fence();
    AscendC::Muls(high_, high_, 1.0f / 127.0f, s.rows());
    Fence();
    AscendC::CompareScalar(bits_, high_, kTiny, AscendC::CMPMODE::GE, static_cast<uint32_t>(kMaxRows));
    Fence();
    AscendC::Select(scale32[slot], bits_, high_, 1.0f, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE,
                    static_cast<uint32_t>(kMaxRows));
    Fence();
    Invert(low_, scale32[slot], kMaxRows);
    Fence();
    Spread(by_scale, low_, s.rows());
    Fence();
  }

  // c8: codes of products x * r. What bounds and then rounds also rounds and then bounds. Rows of bytes
  // `pitch` apart from token to token; the products are lost.
  __aicore__ inline void Codes8(const LocalTensor<int8_t>& codes, int32_t pitch, const LocalTensor<float>& x,
                                const Shape& s) {
    AscendC::Mins(x, x, 127.0f, s.count());
    Fence();
    AscendC::Maxs(x, x, -127.0f, s.count());
    Fence();
    const LocalTensor<int16_t> whole = work.template ReinterpretCast<int16_t>();
    AscendC::Cast(whole, x, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(s.count()));
    Fence();
    Narrow(codes, pitch, whole, s);
  }

  // kv4 of values: scale and zero of each row, fp16 to be stored, fp32 (the scale's reciprocal) to use.
  __aicore__ inline void RangeByRow(const LocalTensor<float>& x, const Shape& s, int32_t slot) {
    RangeOfRows<Max2>(high_, x, work, eight_, s);
    Fence();
    RangeOfRows<Min2>(low_, x, work, eight_, s);
    Fence();
    Range4(slot, kMaxRows);
    Spread(by_zero, low_, s.rows());
    Spread(by_scale, high_, s.rows());
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
  // What RangeByChannel left: zeros, and reciprocals of scales.
  __aicore__ inline LocalTensor<float> zeros() const { return low_; }
  __aicore__ inline LocalTensor<float> reciprocals() const { return high_; }

  // kv4: codes of products (x - zero) * r, four a lane. The products are lost.
  __aicore__ inline void Codes4(const LocalTensor<int8_t>& codes, int32_t pitch, const LocalTensor<float>& x,
                                const Shape& s) {
    AscendC::Mins(x, x, 15.0f, s.count());
    Fence();
    AscendC::Maxs(x, x, 0.0f, s.count());
    Fence();
    Planes(x, s, 0);
    Pack(codes, pitch, s, 0);
  }

  // Each quarter of the rows as integers of its own, the tile's `set`-th in the work tensor.
  __aicore__ inline void Planes(const LocalTensor<float>& x, const Shape& s, int32_t set) {
    const Quarters q(s);
    if (q.lanes != q.padded) {
      AscendC::Duplicate(Plane(s, set, 0), static_cast<int16_t>(0), 4 * s.rows() * q.padded);
      Fence();
    }
    const AscendC::UnaryRepeatParams p(1, 1, static_cast<uint8_t>(q.padded / kLanes),
                                       static_cast<uint8_t>(s.row() / kBlockFloats));
    for (int32_t j = 0; j < 4; ++j)
      for (int32_t c = 0; c < q.lanes; c += kFloats)
        AscendC::Cast(Plane(s, set, j)[static_cast<uint32_t>(c)], x[static_cast<uint32_t>(j * q.step + c)],
                      AscendC::RoundMode::CAST_RINT, static_cast<uint64_t>(Min(kFloats, q.lanes - c)),
                      s.rows(), p);
    Fence();
  }
  __aicore__ inline LocalTensor<int16_t> Plane(const Shape& s, int32_t set, int32_t j) const {
    const Quarters q(s);
    return work
        .template ReinterpretCast<int16_t>()[static_cast<uint32_t>((4 * set + j) * s.rows() * q.padded)];
  }
  // Planes of 0..15 to lanes.
  __aicore__ inline void Pack(const LocalTensor<int8_t>& codes, int32_t pitch, const Shape& s, int32_t set) {
    const int32_t each = s.rows() * Quarters(s).padded;
    for (int32_t j = 1; j < 4; ++j) ShiftUp(Plane(s, set, j), 4 * j, each);
    Join(codes, pitch, s, set);
  }
  // The low 4 bits of planes of any integers to lanes.
  __aicore__ inline void PackLow(const LocalTensor<int8_t>& codes, int32_t pitch, const Shape& s,
                                 int32_t set) {
    const int32_t each = s.rows() * Quarters(s).padded;
    ShiftUp(Plane(s, set, 0), 12, 4 * each);
    Fence();
    for (int32_t j = 0; j < 3; ++j) {
      const LocalTensor<uint16_t> plane = Plane(s, set, j).template ReinterpretCast<uint16_t>();
      AscendC::ShiftRight(plane, plane, static_cast<uint16_t>(12 - 4 * j), each);
    }
    Join(codes, pitch, s, set);
  }

  // int16 in the work tensor, all within -128..127, to bytes.
  __aicore__ inline void Narrow(const LocalTensor<int8_t>& codes, int32_t pitch,
                                const LocalTensor<int16_t>& whole, const Shape& s) {
    const LocalTensor<half> halves = whole.template ReinterpretCast<half>();
    AscendC::Cast(halves, whole, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.count()));
    Fence();
    const AscendC::UnaryRepeatParams p(1, 1, static_cast<uint8_t>(pitch / kBlock),
                                       static_cast<uint8_t>(s.width() / kLanes));
    for (int32_t c = 0; c < s.width(); c += kWords)
      AscendC::Cast(codes[static_cast<uint32_t>(c)], halves[static_cast<uint32_t>(c)],
                    AscendC::RoundMode::CAST_NONE, static_cast<uint64_t>(Min(kWords, s.width() - c)),
                    s.tokens, p);
    Fence();
  }

  LocalTensor<In> in[2];
  LocalTensor<float> work;
  LocalTensor<float> scale32[2];            // c8d, to be stored
  LocalTensor<half> scale16[2], zero16[2];  // kv4, to be stored
  LocalTensor<float> by_scale, by_zero;     // a block a row: reciprocals, zeros
  LocalTensor<float> channel;               // c8s: reciprocals of a token's width

 private:
  // What is read before anything was written: ends of groups of rows, padding between segments.
  __aicore__ inline void Clear(int32_t count, int32_t wide) {
    for (int32_t i = 0; i < 2; ++i)
      AscendC::Duplicate(in[i].template ReinterpretCast<int16_t>(), static_cast<int16_t>(0),
                         count * static_cast<int32_t>(sizeof(In)) / 2);
    AscendC::Duplicate(high_, 0.0f, wide);
    AscendC::Duplicate(low_, 0.0f, wide);
    AscendC::Duplicate(eight_, 0.0f, kMaxRows * kBlockFloats);
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

  // As bits: the shift of signed numbers keeps the sign.
  __aicore__ inline static void ShiftUp(const LocalTensor<int16_t>& plane, int32_t by, int32_t count) {
    const LocalTensor<uint16_t> bits = plane.template ReinterpretCast<uint16_t>();
    AscendC::ShiftLeft(bits, bits, static_cast<uint16_t>(by), count);
  }

  __aicore__ inline void Join(const LocalTensor<int8_t>& codes, int32_t pitch, const Shape& s, int32_t set) {
    const Quarters q(s);
    const int32_t each = s.rows() * q.padded, width = s.heads * q.padded;
    const LocalTensor<int16_t> low = Plane(s, set, 0), high = Plane(s, set, 2);
    Fence();
    AscendC::Or(low, low, Plane(s, set, 1), each);
    AscendC::Or(high, high, Plane(s, set, 3), each);
    Fence();
    const LocalTensor<int16_t> lanes = codes.template ReinterpretCast<int16_t>();
    const uint8_t step = static_cast<uint8_t>(width / kLanes);
    for (int32_t c = 0; c < width; c += kWords)
      AscendC::Or(lanes[static_cast<uint32_t>(c)], low[static_cast<uint32_t>(c)],
                  high[static_cast<uint32_t>(c)], static_cast<uint64_t>(Min(kWords, width - c)), s.tokens,
                  AscendC::BinaryRepeatParams(1, 1, 1, static_cast<uint8_t>(pitch / kBlock), step, step));
    Fence();
  }

  LocalTensor<float> floats_, high_, low_, eight_;
  LocalTensor<uint8_t> bits_;
};

}  // namespace tw_kv
