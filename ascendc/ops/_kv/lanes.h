// Codes between fp32 tiles and what is stored: bytes, and lanes of 16 bits that hold four codes each. Nibble
// j of lane i is element j * (D/4) + i, so quarters of a row become planes of integers.
#pragma once

#include "fractals.h"
#include "vector.h"

namespace tw_kv {

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

// Where the four elements lie whose codes share a lane.
struct Quarters {
  int32_t lanes, padded;  // of a row; padded ones fill whole blocks
  int32_t step;           // fp32 elements from one quarter of a row to the next
  __aicore__ inline explicit Quarters(const Shape& s)
      : lanes(s.head() / 4),
        padded(RoundUp(s.head() / 4, kLanes)),
        step(s.segments == 4 ? s.padded : s.head() / 4) {}
};
__aicore__ inline int32_t PlaneSize(const Shape& s) { return s.rows() * Quarters(s).padded; }
__aicore__ inline LocalTensor<int16_t> PlaneOf(const LocalTensor<int16_t>& planes, const Shape& s,
                                               int32_t j) {
  return planes[static_cast<uint32_t>(j * PlaneSize(s))];
}

// Integers into low <= x <= high.
__aicore__ inline void Bound(const LocalTensor<int16_t>& x, int16_t low, int16_t high, int32_t count) {
  AscendC::Mins(x, x, high, count);
  Fence();
  AscendC::Maxs(x, x, low, count);
  Fence();
}
// Into low <= x <= high.
__aicore__ inline void Bound(const LocalTensor<float>& dst, const LocalTensor<float>& x, float low,
                             float high, int32_t count) {
  AscendC::Mins(dst, x, high, count);
  Fence();
  AscendC::Maxs(dst, dst, low, count);
  Fence();
}

// int16 within -128..127 to bytes, rows `pitch` bytes apart from token to token; `whole` is lost.
__aicore__ inline void Narrow(const LocalTensor<int8_t>& codes, int32_t pitch,
                              const LocalTensor<int16_t>& whole, const Shape& s) {
  const LocalTensor<half> halves = whole.ReinterpretCast<half>();
  AscendC::Cast(halves, whole, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.count()));
  Fence();
  if (pitch == s.width()) {
    AscendC::Cast(codes, halves, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.count()));
    Fence();
    return;
  }
  const AscendC::UnaryRepeatParams p(1, 1, static_cast<uint8_t>(pitch / kBlock),
                                     static_cast<uint8_t>(s.width() / kLanes));
  for (int32_t c = 0; c < s.width(); c += kWords)
    AscendC::Cast(codes[static_cast<uint32_t>(c)], halves[static_cast<uint32_t>(c)],
                  AscendC::RoundMode::CAST_NONE, static_cast<uint64_t>(Min(kWords, s.width() - c)), s.tokens,
                  p);
  Fence();
}

// Each quarter of the rows, rounded, as a plane of integers. Padding of lanes is 0.
__aicore__ inline void ToPlanes(const LocalTensor<int16_t>& planes, const LocalTensor<float>& x,
                                const Shape& s) {
  const Quarters q(s);
  if (q.lanes != q.padded) {
    AscendC::Duplicate(planes, static_cast<int16_t>(0), 4 * PlaneSize(s));
    Fence();
  }
  const AscendC::UnaryRepeatParams p(1, 1, static_cast<uint8_t>(q.padded / kLanes),
                                     static_cast<uint8_t>(s.row() / kBlockFloats));
  for (int32_t j = 0; j < 4; ++j)
    for (int32_t c = 0; c < q.lanes; c += kFloats)
      AscendC::Cast(PlaneOf(planes, s, j)[static_cast<uint32_t>(c)], x[static_cast<uint32_t>(j * q.step + c)],
                    AscendC::RoundMode::CAST_RINT, static_cast<uint64_t>(Min(kFloats, q.lanes - c)), s.rows(),
                    p);
  Fence();
}
// Planes of integers back to quarters of rows.
__aicore__ inline void FromPlanes(const LocalTensor<float>& x, const LocalTensor<int16_t>& planes,
                                  const Shape& s) {
  const Quarters q(s);
  const AscendC::UnaryRepeatParams p(1, 1, static_cast<uint8_t>(s.row() / kBlockFloats),
                                     static_cast<uint8_t>(q.padded / kLanes));
  for (int32_t j = 0; j < 4; ++j)
    for (int32_t c = 0; c < q.lanes; c += kFloats)
      AscendC::Cast(x[static_cast<uint32_t>(j * q.step + c)], PlaneOf(planes, s, j)[static_cast<uint32_t>(c)],
                    AscendC::RoundMode::CAST_NONE, static_cast<uint64_t>(Min(kFloats, q.lanes - c)), s.rows(),
                    p);
  Fence();
}

// As bits: shifts of signed numbers keep the sign.
__aicore__ inline void ShiftUp(const LocalTensor<int16_t>& dst, const LocalTensor<int16_t>& src, int32_t by,
                               int32_t count) {
  AscendC::ShiftLeft(dst.ReinterpretCast<uint16_t>(), src.ReinterpretCast<uint16_t>(),
                     static_cast<uint16_t>(by), count);
}
__aicore__ inline void ShiftDown(const LocalTensor<int16_t>& dst, const LocalTensor<int16_t>& src, int32_t by,
                                 int32_t count) {
  AscendC::ShiftRight(dst.ReinterpretCast<uint16_t>(), src.ReinterpretCast<uint16_t>(),
                      static_cast<uint16_t>(by), count);
}

// Planes that hold their nibble at its place, all other bits 0, to lanes, `pitch` bytes apart from token to
// token.
__aicore__ inline void Join(const LocalTensor<int8_t>& codes, int32_t pitch,
                            const LocalTensor<int16_t>& planes, const Shape& s) {
  const int32_t each = PlaneSize(s), width = s.heads * Quarters(s).padded;
  const LocalTensor<int16_t> low = planes, high = PlaneOf(planes, s, 2);
  Fence();
  AscendC::Or(low, low, PlaneOf(planes, s, 1), each);
  AscendC::Or(high, high, PlaneOf(planes, s, 3), each);
  Fence();
  const LocalTensor<int16_t> lanes = codes.ReinterpretCast<int16_t>();
  const uint8_t step = static_cast<uint8_t>(width / kLanes);
  for (int32_t c = 0; c < width; c += kWords)
    AscendC::Or(lanes[static_cast<uint32_t>(c)], low[static_cast<uint32_t>(c)],
                high[static_cast<uint32_t>(c)], static_cast<uint64_t>(Min(kWords, width - c)), s.tokens,
                AscendC::BinaryRepeatParams(1, 1, 1, static_cast<uint8_t>(pitch / kBlock), step, step));
  Fence();
}
// Planes of 0..15, which are lost.
__aicore__ inline void Pack(const LocalTensor<int8_t>& codes, int32_t pitch,
                            const LocalTensor<int16_t>& planes, const Shape& s) {
  for (int32_t j = 1; j < 4; ++j) {
    const LocalTensor<int16_t> plane = PlaneOf(planes, s, j);
    ShiftUp(plane, plane, 4 * j, PlaneSize(s));
  }
  Join(codes, pitch, planes, s);
}
// The low 4 bits of planes of any integers, which are lost.
__aicore__ inline void PackLow(const LocalTensor<int8_t>& codes, int32_t pitch,
                               const LocalTensor<int16_t>& planes, const Shape& s) {
  ShiftUp(planes, planes, 12, 4 * PlaneSize(s));
  Fence();
  for (int32_t j = 0; j < 3; ++j) {
    const LocalTensor<int16_t> plane = PlaneOf(planes, s, j);
    ShiftDown(plane, plane, 12 - 4 * j, PlaneSize(s));
  }
  Join(codes, pitch, planes, s);
}
// Lanes one row after the other to planes of 0..15, or of -8..7.
template <bool kSigned>
__aicore__ inline void Unpack(const LocalTensor<int16_t>& planes, const LocalTensor<int16_t>& lanes,
                              const Shape& s) {
  const int32_t each = PlaneSize(s);
  for (int32_t j = 0; j < 4; ++j) ShiftUp(PlaneOf(planes, s, j), lanes, 12 - 4 * j, each);
  Fence();
  if (kSigned)
    AscendC::ShiftRight(planes, planes, static_cast<int16_t>(12), 4 * each);
  else
    ShiftDown(planes, planes, 12, 4 * each);
  Fence();
}

}  // namespace tw_kv
