// Vector instructions of one source and a scalar (Memory矢量计算/基础算术, 逻辑计算, 复合计算).
#pragma once

#include "api/vector_common.h"

namespace AscendC {

namespace detail {

template <tilewright::twin::VecOp op, typename T, typename U>
inline tilewright::twin::VecArgs ScalarArgs(const U& scalar) {
  auto v = MakeVector<T, U>(op);
  v.scalar = BitsOf(scalar);
  return v;
}

}  // namespace detail

// Only a macro can define functions whose names differ.
#define TW_SCALAR(name)                                                                                  \
  template <typename T, bool isSetMask = true>                                                           \
  inline void name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue,           \
                   const int32_t& count, tilewright::twin::Place at = tilewright::twin::Place::Here()) { \
    auto v = detail::ScalarArgs<tilewright::twin::VecOp::name, T>(scalarValue);                          \
    detail::SetCount(v, isSetMask, count, at);                                                           \
    detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);                              \
  }                                                                                                      \
  template <typename T, bool isSetMask = true>                                                           \
  inline void name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue,           \
                   const detail::MaskArg& mask, const int32_t repeatTime,                                \
                   const UnaryRepeatParams& repeatParams,                                                \
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {                       \
    auto v = detail::ScalarArgs<tilewright::twin::VecOp::name, T>(scalarValue);                          \
    detail::SetStrides(v, repeatParams);                                                                 \
    detail::SetMask(v, isSetMask, mask, repeatTime, at);                                                 \
    detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);                              \
  }
TW_SCALAR(Adds)
TW_SCALAR(Muls)
TW_SCALAR(Maxs)
TW_SCALAR(Mins)
TW_SCALAR(LeakyRelu)
TW_SCALAR(ShiftLeft)
#undef TW_SCALAR

// roundEn adds the last bit shifted out, for signed sources.
template <typename T, bool isSetMask = true>
inline void ShiftRight(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue,
                       const int32_t& count, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::ScalarArgs<tilewright::twin::VecOp::ShiftRight, T>(scalarValue);
  detail::SetCount(v, isSetMask, count, at);
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}
template <typename T, bool isSetMask = true>
inline void ShiftRight(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue,
                       const detail::MaskArg& mask, const int32_t repeatTime,
                       const UnaryRepeatParams& repeatParams, bool roundEn = false,
                       tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::ScalarArgs<tilewright::twin::VecOp::ShiftRight, T>(scalarValue);
  v.mode = roundEn ? 1 : 0;
  detail::SetStrides(v, repeatParams);
  detail::SetMask(v, isSetMask, mask, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}

// dst_i += src_i * scalarValue.
template <typename T, typename U, bool isSetMask = true>
inline void Axpy(const LocalTensor<T>& dst, const LocalTensor<U>& src, const U& scalarValue,
                 const int32_t& count, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::ScalarArgs<tilewright::twin::VecOp::Axpy, T>(scalarValue);
  detail::SetCount(v, isSetMask, count, at);
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false), dst.AsOperand(false)}, at);
}
template <typename T, typename U, bool isSetMask = true>
inline void Axpy(const LocalTensor<T>& dst, const LocalTensor<U>& src, const U& scalarValue,
                 const detail::MaskArg& mask, const int32_t repeatTime, const UnaryRepeatParams& repeatParams,
                 tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::ScalarArgs<tilewright::twin::VecOp::Axpy, T>(scalarValue);
  detail::SetStrides(v, repeatParams);
  detail::SetMask(v, isSetMask, mask, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false), dst.AsOperand(false)}, at);
}

}  // namespace AscendC
