// Conversions of type (Memory矢量计算/类型转换, 复合计算/CastDequant) and the scale they use.
#pragma once

#include "api/vector_common.h"

namespace AscendC {

// Sixteen scales, one for each element of a block.
struct VdeqInfo {
  VdeqInfo() = default;
  VdeqInfo(const float scale[16], const int16_t offset[16], const bool signMode[16]) {
    for (int i = 0; i < 16; ++i) {
      vdeqScale[i] = scale[i];
      vdeqOffset[i] = offset[i];
      vdeqSignMode[i] = signMode[i];
    }
  }
  float vdeqScale[16] = {};
  int16_t vdeqOffset[16] = {};
  bool vdeqSignMode[16] = {};
};

namespace detail {

// The DEQSCALE register: scale in bits 0..31, offset in 37..45, sign in 46.
inline uint64_t DeqBits(float scale, int16_t offset, bool signMode) {
  return BitsOf(scale) | (static_cast<uint64_t>(offset) & 0x1ff) << 37 | uint64_t{signMode} << 46;
}

template <typename T, typename U>
inline tilewright::twin::VecArgs CastArgs(RoundMode mode) {
  auto v = MakeVector<T, U>(tilewright::twin::VecOp::Cast);
  v.mode = static_cast<uint8_t>(mode);
  v.scalar = twi_state()->deq_scale;
  return v;
}

template <typename T, typename U>
inline tilewright::twin::VecArgs DeqArgs(bool half, bool vector) {
  auto v = MakeVector<T, U>(tilewright::twin::VecOp::CastDeq);
  if (sizeof(T) == 1) v.repeat_stride[0] = DEFAULT_REPEAT_STRIDE;  // every block is half filled
  v.scalar = twi_state()->deq_scale;
  v.arg[0] = half && sizeof(T) == 1;
  v.arg[1] = vector && sizeof(T) == 1;
  return v;
}

template <typename T, typename U>
inline void EmitDeq(const tilewright::twin::VecArgs& v, const LocalTensor<T>& dst, const LocalTensor<U>& src,
                    tilewright::twin::Place at) {
  if (v.arg[1] == 0) return EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
  const auto scales = LocalTensor<uint64_t>::FromBuffer(TPosition::VECCALC, v.scalar, 0, 0);
  EmitVector(v, {dst.AsOperand(true), src.AsOperand(false), scales.AsOperand(false)}, at);
}

}  // namespace detail

template <typename T, typename U>
inline void Cast(const LocalTensor<T>& dst, const LocalTensor<U>& src, const RoundMode& roundMode,
                 const uint32_t count, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::CastArgs<T, U>(roundMode);
  detail::SetCount(v, true, count, at);
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}
template <typename T, typename U, bool isSetMask = true>
inline void Cast(const LocalTensor<T>& dst, const LocalTensor<U>& src, const RoundMode& roundMode,
                 const detail::MaskArg& mask, const int32_t repeatTime, const UnaryRepeatParams& repeatParams,
                 tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::CastArgs<T, U>(roundMode);
  detail::SetStrides(v, repeatParams);
  detail::SetMask(v, isSetMask, mask, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}

inline void SetDeqScale(half scale) { twi_state()->deq_scale = scale.bits; }
inline void SetDeqScale(float scale, int16_t offset, bool signMode) {
  twi_state()->deq_scale = detail::DeqBits(scale, offset, signMode);
}
// Writes the sixteen scales to `vdeq`, as the scalar unit does, and remembers where.
template <typename T>
inline void SetDeqScale(const LocalTensor<T>& vdeq, const VdeqInfo& vdeqInfo,
                        tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  for (uint32_t i = 0; i < 16; ++i)
    vdeq.SetValue(i, detail::DeqBits(vdeqInfo.vdeqScale[i], vdeqInfo.vdeqOffset[i], vdeqInfo.vdeqSignMode[i]),
                  at);
  twi_state()->deq_scale = vdeq.GetPhyAddr();
}

// int16 -> 8 bits: a block of 16 results fills half of a block, the second one with halfBlock.
template <typename T, typename U, bool isVecDeq = true, bool halfBlock = true>
inline void CastDequant(const LocalTensor<T>& dst, const LocalTensor<U>& src, const uint32_t count,
                        tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::DeqArgs<T, U>(halfBlock, isVecDeq);
  detail::SetCount(v, true, count, at);
  detail::EmitDeq(v, dst, src, at);
}
template <typename T, typename U, bool isSetMask = true, bool isVecDeq = true, bool halfBlock = true>
inline void CastDequant(const LocalTensor<T>& dst, const LocalTensor<U>& src, const detail::MaskArg& mask,
                        const int32_t repeatTime, const UnaryRepeatParams& repeatParams,
                        tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::DeqArgs<T, U>(halfBlock, isVecDeq);
  detail::SetStrides(v, repeatParams);
  detail::SetMask(v, isSetMask, mask, repeatTime, at);
  detail::EmitDeq(v, dst, src, at);
}

// The name before CANN 9.
template <typename T, typename U, bool isVecDeq = true, bool halfBlock = true>
inline void CastDeq(const LocalTensor<T>& dst, const LocalTensor<U>& src, const uint32_t count,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  CastDequant<T, U, isVecDeq, halfBlock>(dst, src, count, at);
}
template <typename T, typename U, bool isSetMask = true, bool isVecDeq = true, bool halfBlock = true>
inline void CastDeq(const LocalTensor<T>& dst, const LocalTensor<U>& src, const detail::MaskArg& mask,
                    const int32_t repeatTime, const UnaryRepeatParams& repeatParams,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  CastDequant<T, U, isSetMask, isVecDeq, halfBlock>(dst, src, mask, repeatTime, repeatParams, at);
}

}  // namespace AscendC
