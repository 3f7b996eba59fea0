// Comparison and selection (Memory矢量计算/比较与选择).
#pragma once

#include "api/vector_common.h"

namespace AscendC {

enum class SELMODE : uint8_t { VSEL_CMPMASK_SPR = 0, VSEL_TENSOR_SCALAR_MODE, VSEL_TENSOR_TENSOR_MODE };

namespace detail {

// Documented for 2201: the mask of a comparison into a tensor has no effect, all lanes are compared.
inline void CompareAllLanes(tilewright::twin::VecArgs& v, int64_t repeat, tilewright::twin::Place at) {
  SetMask(v, false, MASK_PLACEHOLDER, repeat, at);
  if (v.counter) return;
  v.repeat = static_cast<uint8_t>(repeat);
  for (int i = 0; i < 2; ++i) v.mask[i] = FirstLanes(v.lanes, i);
}

template <typename T>
inline tilewright::twin::VecArgs CompareArgs(tilewright::twin::VecOp op, CMPMODE mode) {
  auto v = MakeVector(op, LanesOf<T>());
  v.mode = static_cast<uint8_t>(mode);
  return v;
}

// arg[0]: whether the bits lie in a tensor, which is then the last operand; without, in the CMPMASK register,
// in mode 2 by their address, and in mode 1 the scalar does.
template <typename T>
inline tilewright::twin::VecArgs SelectArgs(SELMODE mode, bool bits_in_tensor) {
  auto v = MakeVector(tilewright::twin::VecOp::Select, LanesOf<T>());
  v.mode = static_cast<uint8_t>(mode);
  v.arg[0] = bits_in_tensor;
  return v;
}

}  // namespace detail

// Bits of dst: whether src0_i `cmpMode` src1_i. A whole number of repeats.
template <typename T, typename U>
inline void Compare(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,
                    CMPMODE cmpMode, uint32_t count,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::CompareArgs<T>(tilewright::twin::VecOp::Compare, cmpMode);
  detail::SetCount(v, true, count, at);
  detail::EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), src1.AsOperand(false)}, at);
}
template <typename T, typename U, bool isSetMask = true>
inline void Compare(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,
                    CMPMODE cmpMode, const detail::MaskArg&, const int32_t repeatTime,
                    const BinaryRepeatParams& repeatParams,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::CompareArgs<T>(tilewright::twin::VecOp::Compare, cmpMode);
  detail::SetStrides(v, repeatParams);
  detail::CompareAllLanes(v, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), src1.AsOperand(false)}, at);
}
// Into the CMPMASK register: one repeat.
template <typename T, bool isSetMask = true>
inline void Compare(const LocalTensor<T>& src0, const LocalTensor<T>& src1, CMPMODE cmpMode,
                    const detail::MaskArg& mask, const BinaryRepeatParams& repeatParams,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::CompareArgs<T>(tilewright::twin::VecOp::CompareToMask, cmpMode);
  detail::SetStrides(v, repeatParams);
  detail::SetMask(v, isSetMask, mask, 1, at);
  detail::EmitVector(v, {src0.AsOperand(false), src1.AsOperand(false)}, at);
}

template <typename T, typename U>
inline void Compares(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const T src1Scalar,
                     CMPMODE cmpMode, uint32_t count,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::CompareArgs<T>(tilewright::twin::VecOp::Compares, cmpMode);
  v.scalar = BitsOf(src1Scalar);
  detail::SetCount(v, true, count, at);
  detail::EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false)}, at);
}
template <typename T, typename U, bool isSetMask = true>
inline void Compares(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const T src1Scalar,
                     CMPMODE cmpMode, const detail::MaskArg&, const int32_t repeatTime,
                     const UnaryRepeatParams& repeatParams,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::CompareArgs<T>(tilewright::twin::VecOp::Compares, cmpMode);
  v.scalar = BitsOf(src1Scalar);
  detail::SetStrides(v, repeatParams);
  detail::CompareAllLanes(v, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false)}, at);
}
// The name before CANN 9.
template <typename T, typename U>
inline void CompareScalar(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const T src1Scalar,
                          CMPMODE cmpMode, uint32_t count,
                          tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  Compares(dst, src0, src1Scalar, cmpMode, count, at);
}
template <typename T, typename U, bool isSetMask = true>
inline void CompareScalar(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const T src1Scalar,
                          CMPMODE cmpMode, const detail::MaskArg& mask, const int32_t repeatTime,
                          const UnaryRepeatParams& repeatParams,
                          tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  Compares(dst, src0, src1Scalar, cmpMode, mask, repeatTime, repeatParams, at);
}

template <typename T>
inline void SetCmpMask(const LocalTensor<T>& src,
                       tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::SetCmpMask, 128);
  v.repeat = 1;
  detail::EmitVector(v, {src.AsOperand(false)}, at);
}
template <typename T>
inline void GetCmpMask(const LocalTensor<T>& dst,
                       tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::GetCmpMask, 128);
  v.repeat = 1;
  detail::EmitVector(v, {dst.AsOperand(true)}, at);
}

// dst_i = the bit is set ? src0_i : src1_i.
template <typename T, typename U>
inline void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0,
                   const LocalTensor<T>& src1, SELMODE selMode, uint32_t count,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::SelectArgs<T>(selMode, true);
  detail::SetCount(v, true, count, at);
  detail::EmitVector(
      v, {dst.AsOperand(true), src0.AsOperand(false), src1.AsOperand(false), selMask.AsOperand(false)}, at);
}
template <typename T, typename U, bool isSetMask = true>
inline void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0,
                   const LocalTensor<T>& src1, SELMODE selMode, const detail::MaskArg& mask,
                   const int32_t repeatTime, const BinaryRepeatParams& repeatParams,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::SelectArgs<T>(selMode, true);
  detail::SetStrides(v, repeatParams);
  detail::SetMask(v, isSetMask, mask, repeatTime, at);
  detail::EmitVector(
      v, {dst.AsOperand(true), src0.AsOperand(false), src1.AsOperand(false), selMask.AsOperand(false)}, at);
}
template <typename T, typename U>
inline void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0,
                   T src1, SELMODE selMode, uint32_t count,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::SelectArgs<T>(selMode, true);
  v.scalar = BitsOf(src1);
  detail::SetCount(v, true, count, at);
  detail::EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), selMask.AsOperand(false)}, at);
}
template <typename T, typename U, bool isSetMask = true>
inline void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0,
                   T src1, SELMODE selMode, const detail::MaskArg& mask, const int32_t repeatTime,
                   const BinaryRepeatParams& repeatParams,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::SelectArgs<T>(selMode, true);
  v.scalar = BitsOf(src1);
  detail::SetStrides(v, repeatParams);
  detail::SetMask(v, isSetMask, mask, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), selMask.AsOperand(false)}, at);
}
// With what SetVectorMask and SetCmpMask left: the bits (mode 0) or their address (mode 2) in CMPMASK, ...
template <typename T, SELMODE selMode>
inline void Select(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,
                   int32_t repeatTime, const BinaryRepeatParams& repeatParams,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::SelectArgs<T>(selMode, false);
  detail::SetStrides(v, repeatParams);
  detail::SetMask(v, false, MASK_PLACEHOLDER, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), src1.AsOperand(false)}, at);
}
// ... or the scalar of mode 1 there and the bits in `selMask`.
template <typename T, typename U>
inline void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0,
                   int32_t repeatTime, const BinaryRepeatParams& repeatParams,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::SelectArgs<T>(SELMODE::VSEL_TENSOR_SCALAR_MODE, true);
  v.arg[1] = 1;  // the scalar comes from the register
  detail::SetStrides(v, repeatParams);
  detail::SetMask(v, false, MASK_PLACEHOLDER, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), selMask.AsOperand(false)}, at);
}

}  // namespace AscendC
