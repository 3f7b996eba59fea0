// Vector instructions of two sources (Memory矢量计算/基础算术, 逻辑计算, 复合计算).
#pragma once

#include "api/vector_common.h"

namespace AscendC {

namespace detail {

// Those whose destination is a source too read it as a last operand.
template <typename T, typename U>
inline void EmitBinary(const tilewright::twin::VecArgs& v, const LocalTensor<T>& dst,
                       const LocalTensor<U>& src0, const LocalTensor<U>& src1, bool reads_dst,
                       tilewright::twin::Place at) {
  if (reads_dst)
    EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), src1.AsOperand(false), dst.AsOperand(false)},
               at);
  else
    EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), src1.AsOperand(false)}, at);
}

template <tilewright::twin::VecOp op, bool reads_dst = false, typename T, typename U>
inline void BinaryCount(const LocalTensor<T>& dst, const LocalTensor<U>& src0, const LocalTensor<U>& src1,
                        bool isSetMask, int64_t count, tilewright::twin::Place at) {
  auto v = MakeVector<T, U>(op);
  v.scalar = twi_state()->deq_scale;
  SetCount(v, isSetMask, count, at);
  EmitBinary(v, dst, src0, src1, reads_dst, at);
}

template <tilewright::twin::VecOp op, bool reads_dst = false, typename T, typename U>
inline void BinaryRepeat(const LocalTensor<T>& dst, const LocalTensor<U>& src0, const LocalTensor<U>& src1,
                         bool isSetMask, const MaskArg& mask, int64_t repeat, const BinaryRepeatParams& p,
                         tilewright::twin::Place at) {
  auto v = MakeVector<T, U>(op);
  v.scalar = twi_state()->deq_scale;
  SetStrides(v, p);
  SetMask(v, isSetMask, mask, repeat, at);
  EmitBinary(v, dst, src0, src1, reads_dst, at);
}

}  // namespace detail

// Only a macro can define functions whose names differ.
#define TW_BINARY(name, op, reads_dst)                                                                   \
  template <typename T, bool isSetMask = true>                                                           \
  inline void name(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,    \
                   const int32_t& count, tilewright::twin::Place at = tilewright::twin::Place::Here()) { \
    detail::BinaryCount<tilewright::twin::VecOp::op, reads_dst>(dst, src0, src1, isSetMask, count, at);  \
  }                                                                                                      \
  template <typename T, bool isSetMask = true>                                                           \
  inline void name(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,    \
                   const detail::MaskArg& mask, const int32_t repeatTime,                                \
                   const BinaryRepeatParams& repeatParams,                                               \
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {                       \
    detail::BinaryRepeat<tilewright::twin::VecOp::op, reads_dst>(dst, src0, src1, isSetMask, mask,       \
                                                                 repeatTime, repeatParams, at);          \
  }
TW_BINARY(Add, Add, false)
TW_BINARY(Sub, Sub, false)
TW_BINARY(Mul, Mul, false)
TW_BINARY(Div, Div, false)
TW_BINARY(Max, Max, false)
TW_BINARY(Min, Min, false)
TW_BINARY(And, And, false)
TW_BINARY(Or, Or, false)
TW_BINARY(AddRelu, AddRelu, false)
TW_BINARY(SubRelu, SubRelu, false)
TW_BINARY(FusedMulAdd, FusedMulAdd, true)
TW_BINARY(FusedMulAddRelu, FusedMulAddRelu, true)
TW_BINARY(MulAddRelu, FusedMulAddRelu, true)
#undef TW_BINARY

// dst and sources of two types.
#define TW_BINARY_TO(name, reads_dst)                                                                     \
  template <typename T, typename U, bool isSetMask = true>                                                \
  inline void name(const LocalTensor<T>& dst, const LocalTensor<U>& src0, const LocalTensor<U>& src1,     \
                   const int32_t& count, tilewright::twin::Place at = tilewright::twin::Place::Here()) {  \
    detail::BinaryCount<tilewright::twin::VecOp::name, reads_dst>(dst, src0, src1, isSetMask, count, at); \
  }                                                                                                       \
  template <typename T, typename U, bool isSetMask = true>                                                \
  inline void name(const LocalTensor<T>& dst, const LocalTensor<U>& src0, const LocalTensor<U>& src1,     \
                   const detail::MaskArg& mask, const int32_t repeatTime,                                 \
                   const BinaryRepeatParams& repeatParams,                                                \
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {                        \
    detail::BinaryRepeat<tilewright::twin::VecOp::name, reads_dst>(dst, src0, src1, isSetMask, mask,      \
                                                                   repeatTime, repeatParams, at);         \
  }
TW_BINARY_TO(MulAddDst, true)
TW_BINARY_TO(AddReluCast, false)
TW_BINARY_TO(SubReluCast, false)
TW_BINARY_TO(MulCast, false)
TW_BINARY_TO(AddDeqRelu, false)
#undef TW_BINARY_TO

// As documented for AddDeqRelu alone: the types are fixed, so isSetMask may come first.
template <bool isSetMask>
inline void AddDeqRelu(const LocalTensor<half>& dst, const LocalTensor<int32_t>& src0,
                       const LocalTensor<int32_t>& src1, const detail::MaskArg& mask,
                       const int32_t repeatTime, const BinaryRepeatParams& repeatParams,
                       tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::BinaryRepeat<tilewright::twin::VecOp::AddDeqRelu>(dst, src0, src1, isSetMask, mask, repeatTime,
                                                            repeatParams, at);
}

namespace detail {

// The whole destination; for a comparison all elements compared.
template <typename D, typename T, tilewright::twin::VecOp op>
inline void Assign(const LocalTensor<D>& dst, const BinaryExpression<T, op>& e) {
  if constexpr (op == tilewright::twin::VecOp::Compare) {
    auto v = MakeVector(op, LanesOf<T>());
    v.mode = static_cast<uint8_t>(e.mode);
    SetCount(v, true, e.src0.GetSize(), e.at);
    EmitBinary(v, dst, e.src0, e.src1, false, e.at);
  } else {
    BinaryCount<op>(dst, e.src0, e.src1, true, dst.GetSize(), e.at);
  }
}

}  // namespace detail

}  // namespace AscendC
