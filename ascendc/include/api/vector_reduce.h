// Reductions (documented under Memory矢量计算/归约计算), under the names of CANN 8 and of CANN 9.
#pragma once

#include "api/vector_common.h"

namespace AscendC {

enum class ReduceOrder : uint8_t {
  ORDER_VALUE_INDEX = 0,
  ORDER_INDEX_VALUE,
  ORDER_ONLY_VALUE,
  ORDER_ONLY_INDEX,
};
enum class ReduceType : uint8_t { SUM = 0, MAX, MIN };

namespace detail {

// One result, or a group of them, a repeat. The destination's repeat stride counts results.
template <typename T, bool isSetMask>
inline void EmitReduce(tilewright::twin::VecOp op, const LocalTensor<T>& dst, const LocalTensor<T>& src,
                       const MaskArg& mask, int32_t repeatTime, int32_t dstRepStride, int32_t srcBlkStride,
                       int32_t srcRepStride, ReduceOrder order, tilewright::twin::Place at) {
  auto v = MakeVector(op, LanesOf<T>());
  for (const int32_t stride : {dstRepStride, srcBlkStride, srcRepStride})
    if (stride < 0 || stride > 65535)
      return RejectParameter(at, "a stride is %lld, allowed are 0..65535", stride);
  v.mode = static_cast<uint8_t>(order);
  v.repeat_stride[0] = static_cast<uint16_t>(dstRepStride);
  v.block_stride[1] = static_cast<uint16_t>(srcBlkStride);
  v.repeat_stride[1] = static_cast<uint16_t>(srcRepStride);
  SetMask(v, isSetMask, mask, repeatTime, at);
  EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}

constexpr tilewright::twin::VecOp Choose(ReduceType type, tilewright::twin::VecOp sum,
                                         tilewright::twin::VecOp max, tilewright::twin::VecOp min) {
  return type == ReduceType::SUM ? sum : type == ReduceType::MAX ? max : min;
}
constexpr tilewright::twin::VecOp WholeOf(ReduceType type) {
  using Op = tilewright::twin::VecOp;
  return Choose(type, Op::WholeReduceSum, Op::WholeReduceMax, Op::WholeReduceMin);
}
constexpr tilewright::twin::VecOp BlockOf(ReduceType type) {
  using Op = tilewright::twin::VecOp;
  return Choose(type, Op::BlockReduceSum, Op::BlockReduceMax, Op::BlockReduceMin);
}

// One result of all repeats: over the first `count` elements, or with a mask and more repeats than a byte
// counts.
template <typename T>
inline tilewright::twin::VecArgs CountedAll(tilewright::twin::VecOp op, bool isSetMask, int32_t count,
                                            tilewright::twin::Place at) {
  auto v = MakeVector(op, LanesOf<T>());
  SetCount(v, isSetMask, count, at);
  return v;
}
template <typename T>
inline tilewright::twin::VecArgs MaskedAll(tilewright::twin::VecOp op, const MaskArg& mask,
                                           int32_t repeatTime, int32_t srcRepStride,
                                           tilewright::twin::Place at) {
  auto v = MakeVector(op, LanesOf<T>());
  if (repeatTime < 0 || srcRepStride < 0 || srcRepStride > 65535)
    RejectParameter(
        at,
        "repeatTime is %lld and srcRepStride %lld; neither may be negative, nor srcRepStride beyond 65535",
        repeatTime, srcRepStride);
  v.repeat_stride[1] = static_cast<uint16_t>(srcRepStride);
  SetMask(v, true, mask, 1, at);
  if (!v.counter && v.repeat != 0) v.repeat = repeatTime < 0 ? 0 : static_cast<uint32_t>(repeatTime);
  return v;
}

template <typename T>
inline void EmitAll(tilewright::twin::VecArgs v, uint8_t mode, const LocalTensor<T>& dst,
                    const LocalTensor<T>& src, const LocalTensor<T>& work, tilewright::twin::Place at) {
  v.mode = mode;
  EmitVector(v, {dst.AsOperand(true), src.AsOperand(false), work.AsOperand(true)}, at);
}

inline uint64_t ReadState(tilewright::twin::StateWord word, tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::ReadState, tilewright::twin::Pipe::S, at);
  r.state.what = static_cast<uint8_t>(word);
  twi_emit(&r);
  return r.state.bits;
}

}  // namespace detail

// CANN 9: one name each for the three kinds. U is the source's type; on 2201 it equals T.
template <ReduceType reduceType, typename T, typename U, bool isSetMask = true>
inline void ReduceRepeat(const LocalTensor<T>& dst, const LocalTensor<U>& src, const detail::MaskArg& mask,
                         const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                         const int32_t srcRepStride, ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX,
                         tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  static_assert(std::is_same_v<T, U>, "on 2201 source and destination have one type");
  detail::EmitReduce<T, isSetMask>(detail::WholeOf(reduceType), dst, src, mask, repeatTime, dstRepStride,
                                   srcBlkStride, srcRepStride, order, at);
}
template <ReduceType reduceType, typename T, typename U, bool isSetMask = true>
inline void ReduceDataBlock(const LocalTensor<T>& dst, const LocalTensor<U>& src, const detail::MaskArg& mask,
                            const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                            const int32_t srcRepStride,
                            tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  static_assert(std::is_same_v<T, U>, "on 2201 source and destination have one type");
  detail::EmitReduce<T, isSetMask>(detail::BlockOf(reduceType), dst, src, mask, repeatTime, dstRepStride,
                                   srcBlkStride, srcRepStride, ReduceOrder::ORDER_ONLY_VALUE, at);
}
template <ReduceType reduceType, typename T, typename U, bool isSetMask = true>
inline void ReducePairElem(const LocalTensor<T>& dst, const LocalTensor<U>& src, const detail::MaskArg& mask,
                           const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                           const int32_t srcRepStride,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  static_assert(std::is_same_v<T, U>, "on 2201 source and destination have one type");
  static_assert(reduceType == ReduceType::SUM, "pairs of elements can only be summed");
  detail::EmitReduce<T, isSetMask>(tilewright::twin::VecOp::PairReduceSum, dst, src, mask, repeatTime,
                                   dstRepStride, srcBlkStride, srcRepStride, ReduceOrder::ORDER_ONLY_VALUE,
                                   at);
}

// CANN 8.
template <typename T, bool isSetMask = true>
inline void WholeReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const detail::MaskArg& mask,
                           const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                           const int32_t srcRepStride,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitReduce<T, isSetMask>(tilewright::twin::VecOp::WholeReduceSum, dst, src, mask, repeatTime,
                                   dstRepStride, srcBlkStride, srcRepStride, ReduceOrder::ORDER_ONLY_VALUE,
                                   at);
}
template <typename T, bool isSetMask = true>
inline void WholeReduceMax(const LocalTensor<T>& dst, const LocalTensor<T>& src, const detail::MaskArg& mask,
                           const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                           const int32_t srcRepStride, ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitReduce<T, isSetMask>(tilewright::twin::VecOp::WholeReduceMax, dst, src, mask, repeatTime,
                                   dstRepStride, srcBlkStride, srcRepStride, order, at);
}
template <typename T, bool isSetMask = true>
inline void WholeReduceMin(const LocalTensor<T>& dst, const LocalTensor<T>& src, const detail::MaskArg& mask,
                           const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                           const int32_t srcRepStride, ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitReduce<T, isSetMask>(tilewright::twin::VecOp::WholeReduceMin, dst, src, mask, repeatTime,
                                   dstRepStride, srcBlkStride, srcRepStride, order, at);
}
template <typename T, bool isSetMask = true>
inline void BlockReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t repeatTime,
                           const detail::MaskArg& mask, const int32_t dstRepStride,
                           const int32_t srcBlkStride, const int32_t srcRepStride,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  ReduceDataBlock<ReduceType::SUM, T, T, isSetMask>(dst, src, mask, repeatTime, dstRepStride, srcBlkStride,
                                                    srcRepStride, at);
}
template <typename T, bool isSetMask = true>
inline void BlockReduceMax(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t repeatTime,
                           const detail::MaskArg& mask, const int32_t dstRepStride,
                           const int32_t srcBlkStride, const int32_t srcRepStride,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  ReduceDataBlock<ReduceType::MAX, T, T, isSetMask>(dst, src, mask, repeatTime, dstRepStride, srcBlkStride,
                                                    srcRepStride, at);
}
template <typename T, bool isSetMask = true>
inline void BlockReduceMin(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t repeatTime,
                           const detail::MaskArg& mask, const int32_t dstRepStride,
                           const int32_t srcBlkStride, const int32_t srcRepStride,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  ReduceDataBlock<ReduceType::MIN, T, T, isSetMask>(dst, src, mask, repeatTime, dstRepStride, srcBlkStride,
                                                    srcRepStride, at);
}
template <typename T, bool isSetMask = true>
inline void PairReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t repeatTime,
                          const detail::MaskArg& mask, const int32_t dstRepStride, const int32_t srcBlkStride,
                          const int32_t srcRepStride,
                          tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  ReducePairElem<ReduceType::SUM, T, T, isSetMask>(dst, src, mask, repeatTime, dstRepStride, srcBlkStride,
                                                   srcRepStride, at);
}
// dstBlkStride has no effect.
template <typename T, bool isSetMask = true>
inline void RepeatReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t repeatTime,
                            const detail::MaskArg& mask, const int32_t /*dstBlkStride*/,
                            const int32_t srcBlkStride, const int32_t dstRepStride,
                            const int32_t srcRepStride,
                            tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitReduce<T, isSetMask>(tilewright::twin::VecOp::RepeatReduceSum, dst, src, mask, repeatTime,
                                   dstRepStride, srcBlkStride, srcRepStride, ReduceOrder::ORDER_ONLY_VALUE,
                                   at);
}

// All input to one result. Over the first `count` elements, ReduceSum leaves the work tensor alone.
template <typename T, bool isSetMask = true>
inline void ReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>&,
                      const int32_t count, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitVector(detail::CountedAll<T>(tilewright::twin::VecOp::ReduceSum, isSetMask, count, at),
                     {dst.AsOperand(true), src.AsOperand(false)}, at);
}
template <typename T>
inline void ReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                      const LocalTensor<T>& sharedTmpBuffer, const detail::MaskArg& mask,
                      const int32_t repeatTime, const int32_t srcRepStride,
                      tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitAll(
      detail::MaskedAll<T>(tilewright::twin::VecOp::ReduceSum, mask, repeatTime, srcRepStride, at), 1, dst,
      src, sharedTmpBuffer, at);
}
template <typename T>
inline void ReduceMax(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                      const LocalTensor<T>& sharedTmpBuffer, const int32_t count, bool calIndex = false,
                      tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitAll(detail::CountedAll<T>(tilewright::twin::VecOp::ReduceMax, true, count, at), calIndex, dst,
                  src, sharedTmpBuffer, at);
}
template <typename T>
inline void ReduceMax(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                      const LocalTensor<T>& sharedTmpBuffer, const detail::MaskArg& mask,
                      const int32_t repeatTime, const int32_t srcRepStride, bool calIndex = false,
                      tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitAll(
      detail::MaskedAll<T>(tilewright::twin::VecOp::ReduceMax, mask, repeatTime, srcRepStride, at), calIndex,
      dst, src, sharedTmpBuffer, at);
}
template <typename T>
inline void ReduceMin(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                      const LocalTensor<T>& sharedTmpBuffer, const int32_t count, bool calIndex = false,
                      tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitAll(detail::CountedAll<T>(tilewright::twin::VecOp::ReduceMin, true, count, at), calIndex, dst,
                  src, sharedTmpBuffer, at);
}
template <typename T>
inline void ReduceMin(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                      const LocalTensor<T>& sharedTmpBuffer, const detail::MaskArg& mask,
                      const int32_t repeatTime, const int32_t srcRepStride, bool calIndex = false,
                      tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitAll(
      detail::MaskedAll<T>(tilewright::twin::VecOp::ReduceMin, mask, repeatTime, srcRepStride, at), calIndex,
      dst, src, sharedTmpBuffer, at);
}

// What the latest maximum or minimum left in a register: the best of all its repeats, and its place, in the
// bits of T.
template <typename T>
inline void GetReduceRepeatMaxMinSpr(T& maxMinValue, T& maxMinIndex,
                                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  maxMinValue = FromBits<T>(detail::ReadState(tilewright::twin::StateWord::ReduceValue, at));
  maxMinIndex = FromBits<T>(detail::ReadState(tilewright::twin::StateWord::ReduceIndex, at));
}
template <typename T>
inline void GetReduceMaxMinCount(T& maxMinValue, T& maxMinIndex,
                                 tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  GetReduceRepeatMaxMinSpr<T>(maxMinValue, maxMinIndex, at);
}
// The result of the latest ReduceSum over the first elements.
template <typename T>
inline T GetReduceRepeatSumSpr(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  return FromBits<T>(detail::ReadState(tilewright::twin::StateWord::AccValue, at));
}
template <typename T>
inline T GetAccVal(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  return GetReduceRepeatSumSpr<T>(at);
}

}  // namespace AscendC
