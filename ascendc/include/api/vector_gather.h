// Gather, Gatherb and GatherMask (documented under Memory矢量计算/离散与聚合 and 比较与选择). Scatter does
// not exist on 2201.
#pragma once

#include "api/vector_sort.h"

namespace AscendC {

struct GatherRepeatParams {
  GatherRepeatParams() = default;
  GatherRepeatParams(uint8_t dstBlk, uint8_t dstRep) : dstRepStride(dstRep), dstBlkStride(dstBlk) {}
  uint32_t blockNumber = DEFAULT_BLK_NUM;
  uint16_t dstRepStride = DEFAULT_REPEAT_STRIDE;
  uint8_t dstBlkStride = DEFAULT_BLK_STRIDE;
  uint8_t src0BlkStride = DEFAULT_BLK_STRIDE;
  uint8_t src1BlkStride = DEFAULT_BLK_STRIDE;
  uint8_t src0RepStride = DEFAULT_REPEAT_STRIDE;
  uint8_t src1RepStride = DEFAULT_REPEAT_STRIDE;
  bool repeatStrideMode = false;
  bool strideSizeMode = false;
};

struct GatherMaskParams {
  GatherMaskParams() = default;
  GatherMaskParams(uint8_t src0Blk, uint16_t repeat, uint16_t src0Rep, uint8_t src1Rep)
      : src0BlockStride(src0Blk), repeatTimes(repeat), src0RepeatStride(src0Rep), src1RepeatStride(src1Rep) {}
  uint8_t src0BlockStride = DEFAULT_BLK_STRIDE;
  uint16_t repeatTimes = 0;
  uint16_t src0RepeatStride = DEFAULT_REPEAT_STRIDE;
  uint8_t src1RepeatStride = DEFAULT_REPEAT_STRIDE;
};

enum class GatherMaskMode : uint8_t { VERSION_V1 = 0, VERSION_V2 };
constexpr GatherMaskMode defaultGatherMaskMode = GatherMaskMode::VERSION_V2;

namespace detail {

template <typename T>
inline void EmitGather(tilewright::twin::VecArgs& v, const LocalTensor<T>& dst, const LocalTensor<T>& src,
                       const LocalTensor<uint32_t>& srcOffset, uint32_t srcBaseAddr,
                       tilewright::twin::Place at) {
  v.arg[0] = srcBaseAddr;
  EmitVector(v, {dst.AsOperand(true), src.AsOperand(false), srcOffset.AsOperand(false)}, at);
}

// `pattern` 0: bits of the tensor `bits`. Counter mode here is of this instruction only: `mask` elements a
// repeat. The mask mode is Normal afterwards.
template <typename T>
inline uint64_t EmitGatherMask(const LocalTensor<T>& dst, const LocalTensor<T>& src0, uint8_t pattern,
                               const tilewright::twin::Operand* bits, bool reduceMode, uint32_t mask,
                               const GatherMaskParams& p, tilewright::twin::Place at) {
  const uint32_t elements = reduceMode ? mask : LanesOf<T>();
  if (elements == 0) RejectParameter(at, "mask is %lld, allowed are 1..4294967295 in Counter mode", 0);
  if (p.repeatTimes > 255) RejectParameter(at, "repeatTimes is %lld, allowed are 0..255", p.repeatTimes);
  auto v = MakeUnmasked(tilewright::twin::VecOp::GatherMask,
                        elements == 0 || p.repeatTimes > 255 ? 0 : p.repeatTimes);
  v.mode = pattern;
  v.lanes = LanesOf<T>();
  v.block_stride[1] = p.src0BlockStride;
  v.repeat_stride[1] = p.src0RepeatStride;
  v.repeat_stride[2] = p.src1RepeatStride;
  v.arg[0] = elements;
  if (bits != nullptr)
    EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), *bits}, at);
  else
    EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false)}, at);
  twi_state()->counter = false;
  return ReadState(tilewright::twin::StateWord::RsvdCount, at);
}

}  // namespace detail

// dst[i] = the element srcBaseAddr + srcOffset[i] bytes from src.
template <typename T>
inline void Gather(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                   const LocalTensor<uint32_t>& srcOffset, const uint32_t srcBaseAddr, const uint32_t count,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::Gather, detail::LanesOf<T>());
  detail::SetCount(v, true, count, at);
  detail::EmitGather(v, dst, src, srcOffset, srcBaseAddr, at);
}
template <typename T>
inline void Gather(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                   const LocalTensor<uint32_t>& srcOffset, const uint32_t srcBaseAddr,
                   const detail::MaskArg& mask, const uint8_t repeatTime, const uint16_t dstRepStride,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::Gather, detail::LanesOf<T>());
  v.repeat_stride[0] = dstRepStride;
  detail::SetMask(v, true, mask, repeatTime, at);
  detail::EmitGather(v, dst, src, srcOffset, srcBaseAddr, at);
}

// Blocks of 32 bytes, eight a repeat, from the offsets given.
template <typename T>
inline void Gatherb(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<uint32_t>& offset,
                    const uint8_t repeatTime, const GatherRepeatParams& repeatParams,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeUnmasked(tilewright::twin::VecOp::Gatherb, repeatTime);
  // Documented: a block stride of 0 counts as 1.
  v.block_stride[0] = repeatParams.dstBlkStride == 0 ? 1 : repeatParams.dstBlkStride;
  v.repeat_stride[0] = repeatParams.dstRepStride;
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false), offset.AsOperand(false)}, at);
}

// The elements that a mask selects, packed; rsvdCnt is their number. src1Pattern: the user's bits, or one of
// the built-in patterns 1..7.
template <typename T, typename U, GatherMaskMode mode = defaultGatherMaskMode>
inline void GatherMask(const LocalTensor<T>& dst, const LocalTensor<T>& src0,
                       const LocalTensor<U>& src1Pattern, const bool reduceMode, const uint32_t mask,
                       const GatherMaskParams& gatherMaskParams, uint64_t& rsvdCnt,
                       tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  const tilewright::twin::Operand bits = src1Pattern.AsOperand(false);
  rsvdCnt = detail::EmitGatherMask(dst, src0, 0, &bits, reduceMode, mask, gatherMaskParams, at);
}
template <typename T, GatherMaskMode mode = defaultGatherMaskMode>
inline void GatherMask(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const uint8_t src1Pattern,
                       const bool reduceMode, const uint32_t mask, const GatherMaskParams& gatherMaskParams,
                       uint64_t& rsvdCnt, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  if (src1Pattern == 0) return detail::RejectParameter(at, "src1Pattern is %lld, allowed are 1..7", 0);
  rsvdCnt = detail::EmitGatherMask(dst, src0, src1Pattern, nullptr, reduceMode, mask, gatherMaskParams, at);
}

}  // namespace AscendC
