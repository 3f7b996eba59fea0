// Vector instructions of one source (Memory矢量计算/基础算术, 逻辑计算) and those that fill (数据填充).
#pragma once

#include "api/vector_common.h"

namespace AscendC {

namespace detail {

template <tilewright::twin::VecOp op, typename T>
inline void UnaryCount(const LocalTensor<T>& dst, const LocalTensor<T>& src, bool isSetMask, int64_t count,
                       tilewright::twin::Place at) {
  auto v = MakeVector(op, LanesOf<T>());
  SetCount(v, isSetMask, count, at);
  EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}

template <tilewright::twin::VecOp op, typename T>
inline void UnaryRepeat(const LocalTensor<T>& dst, const LocalTensor<T>& src, bool isSetMask,
                        const MaskArg& mask, int64_t repeat, const UnaryRepeatParams& p,
                        tilewright::twin::Place at) {
  auto v = MakeVector(op, LanesOf<T>());
  SetStrides(v, p);
  SetMask(v, isSetMask, mask, repeat, at);
  EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}

}  // namespace detail

// Only a macro can define functions whose names differ.
#define TW_UNARY(name)                                                                                      \
  template <typename T, bool isSetMask = true>                                                              \
  inline void name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t& count,              \
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {                          \
    detail::UnaryCount<tilewright::twin::VecOp::name>(dst, src, isSetMask, count, at);                      \
  }                                                                                                         \
  template <typename T, bool isSetMask = true>                                                              \
  inline void name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const detail::MaskArg& mask,       \
                   const int32_t repeatTime, const UnaryRepeatParams& repeatParams,                         \
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {                          \
    detail::UnaryRepeat<tilewright::twin::VecOp::name>(dst, src, isSetMask, mask, repeatTime, repeatParams, \
                                                       at);                                                 \
  }
TW_UNARY(Abs)
TW_UNARY(Exp)
TW_UNARY(Ln)
TW_UNARY(Sqrt)
TW_UNARY(Rsqrt)
TW_UNARY(Reciprocal)
TW_UNARY(Relu)
TW_UNARY(Not)
#undef TW_UNARY

// dst_i = scalarValue.
template <typename T, bool isSetMask = true>
inline void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, const int32_t& count,
                      tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::Duplicate, detail::LanesOf<T>());
  v.scalar = BitsOf(scalarValue);
  detail::SetCount(v, isSetMask, count, at);
  detail::EmitVector(v, {dst.AsOperand(true)}, at);
}
template <typename T, bool isSetMask = true>
inline void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, const detail::MaskArg& mask,
                      const int32_t repeatTime, const uint16_t dstBlockStride, const uint8_t dstRepeatStride,
                      tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::Duplicate, detail::LanesOf<T>());
  v.scalar = BitsOf(scalarValue);
  v.block_stride[0] = dstBlockStride;
  v.repeat_stride[0] = dstRepeatStride;
  detail::SetMask(v, isSetMask, mask, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true)}, at);
}

// dst_i = firstValue + i, i counting the lanes of all repeats.
template <typename T>
inline void CreateVecIndex(const LocalTensor<T>& dst, const T& firstValue, uint32_t count,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::CreateVecIndex, detail::LanesOf<T>());
  v.scalar = BitsOf(firstValue);
  detail::SetCount(v, true, count, at);
  detail::EmitVector(v, {dst.AsOperand(true)}, at);
}
template <typename T>
inline void CreateVecIndex(const LocalTensor<T>& dst, const T& firstValue, const detail::MaskArg& mask,
                           const int32_t repeatTime, uint16_t dstBlkStride, uint8_t dstRepStride,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::CreateVecIndex, detail::LanesOf<T>());
  v.scalar = BitsOf(firstValue);
  v.block_stride[0] = dstBlkStride;
  v.repeat_stride[0] = dstRepStride;
  detail::SetMask(v, true, mask, repeatTime, at);
  detail::EmitVector(v, {dst.AsOperand(true)}, at);
}

}  // namespace AscendC
