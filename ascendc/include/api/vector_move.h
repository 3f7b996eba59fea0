// Brcb, Copy, Transpose, TransDataTo5HD and BilinearInterpolation (documented under Memory矢量计算).
#pragma once

#include "api/scalar.h"
#include "api/vector_gather.h"

namespace AscendC {

struct BrcbRepeatParams {  // strides in 32 B
  BrcbRepeatParams() = default;
  BrcbRepeatParams(uint16_t dstBlk, uint16_t dstRep) : dstRepStride(dstRep), dstBlkStride(dstBlk) {}
  uint32_t blockNumber = DEFAULT_BLK_NUM;
  uint16_t dstRepStride = DEFAULT_REPEAT_STRIDE;
  uint16_t dstBlkStride = DEFAULT_BLK_STRIDE;
  uint8_t src0BlkStride = DEFAULT_BLK_STRIDE;
  uint8_t src1BlkStride = DEFAULT_BLK_STRIDE;
  uint8_t src0RepStride = DEFAULT_REPEAT_STRIDE;
  uint8_t src1RepStride = DEFAULT_REPEAT_STRIDE;
  bool repeatStrideMode = false;
  bool strideSizeMode = false;
};

struct CopyRepeatParams {  // strides start to start, in 32 B
  CopyRepeatParams() = default;
  CopyRepeatParams(uint16_t dst, uint16_t src, uint16_t dstRepeat, uint16_t srcRepeat)
      : dstStride(dst), srcStride(src), dstRepeatSize(dstRepeat), srcRepeatSize(srcRepeat) {}
  uint16_t dstStride = DEFAULT_BLK_STRIDE;
  uint16_t srcStride = DEFAULT_BLK_STRIDE;
  uint16_t dstRepeatSize = DEFAULT_REPEAT_STRIDE;
  uint16_t srcRepeatSize = DEFAULT_REPEAT_STRIDE;
};

enum class TransposeType : uint8_t {
  TRANSPOSE_TYPE_NONE,
  TRANSPOSE_NZ2ND_0213,
  TRANSPOSE_NZ2NZ_0213,
  TRANSPOSE_NZ2NZ_012_WITH_N,
  TRANSPOSE_NZ2ND_012_WITH_N,
  TRANSPOSE_NZ2ND_012_WITHOUT_N,
  TRANSPOSE_NZ2NZ_012_WITHOUT_N,
  TRANSPOSE_ND2ND_ONLY,
  TRANSPOSE_ND_UB_GM,
  TRANSPOSE_GRAD_ND_UB_GM,
  TRANSPOSE_ND2ND_B16,
  TRANSPOSE_NCHW2NHWC,
  TRANSPOSE_NHWC2NCHW,
};

struct TransposeParamsExt {
  constexpr TransposeParamsExt() = default;
  constexpr TransposeParamsExt(uint16_t n, uint16_t c, uint16_t h, uint16_t w, TransposeType type)
      : nSize(n), cSize(c), hSize(h), wSize(w), transposeType(type) {}
  uint16_t nSize = 0;
  uint16_t cSize = 0;
  uint16_t hSize = 0;
  uint16_t wSize = 0;
  TransposeType transposeType = TransposeType::TRANSPOSE_ND2ND_B16;
};

struct TransDataTo5HDParams {  // strides in 32 B
  constexpr TransDataTo5HDParams() = default;
  constexpr TransDataTo5HDParams(bool dstHigh, bool srcHigh, uint8_t repeat, uint16_t dstRep, uint16_t srcRep)
      : dstHighHalf(dstHigh),
        srcHighHalf(srcHigh),
        repeatTimes(repeat),
        dstRepStride(dstRep),
        srcRepStride(srcRep) {}
  bool dstHighHalf = false;
  bool srcHighHalf = false;
  uint8_t repeatTimes = 1;
  uint16_t dstRepStride = 0;
  uint16_t srcRepStride = 0;
};
constexpr int32_t NCHW_CONV_ADDR_LIST_SIZE = 16;

namespace detail {

inline void EmitTransData(const tilewright::twin::Operand& dst, const tilewright::twin::Operand& src,
                          const uint64_t (&dstList)[NCHW_CONV_ADDR_LIST_SIZE],
                          const uint64_t (&srcList)[NCHW_CONV_ADDR_LIST_SIZE], const TransDataTo5HDParams& p,
                          tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Vector, tilewright::twin::Pipe::V, at);
  tilewright::twin::AddOperand(r, dst);
  tilewright::twin::AddOperand(r, src);
  auto& v = r.lists.vec;
  v = MakeUnmasked(tilewright::twin::VecOp::TransDataTo5HD, p.repeatTimes);
  v.repeat_stride[0] = p.dstRepStride;
  v.repeat_stride[1] = p.srcRepStride;
  v.arg[0] = p.dstHighHalf;
  v.arg[1] = p.srcHighHalf;
  for (int i = 0; i < NCHW_CONV_ADDR_LIST_SIZE; ++i) {
    r.lists.dst[i] = static_cast<uint32_t>(dstList[i]);
    r.lists.src[i] = static_cast<uint32_t>(srcList[i]);
  }
  twi_emit(&r);
}

// An operand of which only addresses are known: all of UB.
template <typename T>
inline tilewright::twin::Operand AnywhereInUb(bool write) {
  tilewright::twin::Operand o{};
  o.mem = tilewright::twin::Mem::UB;
  o.type = DTypeOf<T>();
  o.hi = twi_capacity(o.mem);
  o.write = write;
  return o;
}

// An operand over several tensors, of one buffer or more.
template <typename T>
inline tilewright::twin::Operand OverAll(const LocalTensor<T> (&list)[NCHW_CONV_ADDR_LIST_SIZE], bool write,
                                         uint64_t (&addresses)[NCHW_CONV_ADDR_LIST_SIZE]) {
  tilewright::twin::Operand all = list[0].AsOperand(write);
  for (int i = 0; i < NCHW_CONV_ADDR_LIST_SIZE; ++i) {
    const tilewright::twin::Operand one = list[i].AsOperand(write);
    addresses[i] = one.base;
    if (one.mem != tilewright::twin::Mem::UB) all.mem = one.mem;  // refused
    if (one.lo < all.lo) all.lo = one.lo;
    if (one.hi > all.hi) all.hi = one.hi;
  }
  return all;
}

}  // namespace detail

// Each of eight elements a repeat fills a block of 32 bytes.
template <typename T>
inline void Brcb(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint8_t repeatTime,
                 const BrcbRepeatParams& repeatParams,
                 tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeUnmasked(tilewright::twin::VecOp::Brcb, repeatTime);
  v.block_stride[0] = repeatParams.dstBlkStride;
  v.repeat_stride[0] = repeatParams.dstRepStride;
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}

// In Counter mode the mask counts the elements of one repeat, and repeatTime holds.
template <typename T, bool isSetMask = true>
inline void Copy(const LocalTensor<T>& dst, const LocalTensor<T>& src, const detail::MaskArg& mask,
                 const uint8_t repeatTime, const CopyRepeatParams& repeatParams,
                 tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::CopyRepeat, detail::LanesOf<T>());
  v.block_stride[0] = repeatParams.dstStride;
  v.block_stride[1] = repeatParams.srcStride;
  v.repeat_stride[0] = repeatParams.dstRepeatSize;
  v.repeat_stride[1] = repeatParams.srcRepeatSize;
  detail::SetMask(v, isSetMask, mask, repeatTime, at);
  if (v.counter && v.repeat != 0) v.repeat = repeatTime;
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}

// 16 x 16 elements of 16 bits.
template <typename T>
inline void Transpose(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                      tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeUnmasked(tilewright::twin::VecOp::Transpose, 1);
  v.mode = static_cast<uint8_t>(TransposeType::TRANSPOSE_ND2ND_B16);
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false)}, at);
}
// [N,C,H,W] to [N,H,W,C] and back, or 16 x 16.
template <typename T>
inline void Transpose(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                      const LocalTensor<uint8_t>& sharedTmpBuffer, const TransposeParamsExt& p,
                      tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  const bool square = p.transposeType == TransposeType::TRANSPOSE_ND2ND_B16;
  const bool something = square || (p.transposeType != TransposeType::TRANSPOSE_TYPE_NONE && p.nSize != 0 &&
                                    p.cSize != 0 && p.hSize != 0 && p.wSize != 0);
  auto v = detail::MakeUnmasked(tilewright::twin::VecOp::Transpose, something ? 1 : 0);
  v.mode = static_cast<uint8_t>(p.transposeType);
  v.arg[0] = p.nSize;
  v.arg[1] = p.cSize;
  v.arg[2] = p.hSize;
  v.arg[3] = p.wSize;
  detail::EmitVector(v, {dst.AsOperand(true), src.AsOperand(false), sharedTmpBuffer.AsOperand(true)}, at);
}

// 16 blocks of 32 bytes a repeat, transposed. The blocks as tensors, as addresses in UB, or as tensors of
// addresses, which the scalar unit reads here.
template <typename T>
inline void TransDataTo5HD(const LocalTensor<T> (&dstList)[NCHW_CONV_ADDR_LIST_SIZE],
                           const LocalTensor<T> (&srcList)[NCHW_CONV_ADDR_LIST_SIZE],
                           const TransDataTo5HDParams& nchwconvParams,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  uint64_t to[NCHW_CONV_ADDR_LIST_SIZE], from[NCHW_CONV_ADDR_LIST_SIZE];
  const auto dst = detail::OverAll(dstList, true, to), src = detail::OverAll(srcList, false, from);
  detail::EmitTransData(dst, src, to, from, nchwconvParams, at);
}
template <typename T>
inline void TransDataTo5HD(uint64_t dstList[NCHW_CONV_ADDR_LIST_SIZE],
                           uint64_t srcList[NCHW_CONV_ADDR_LIST_SIZE],
                           const TransDataTo5HDParams& nchwconvParams,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  uint64_t to[NCHW_CONV_ADDR_LIST_SIZE], from[NCHW_CONV_ADDR_LIST_SIZE];
  std::memcpy(to, dstList, sizeof to);
  std::memcpy(from, srcList, sizeof from);
  detail::EmitTransData(detail::AnywhereInUb<T>(true), detail::AnywhereInUb<T>(false), to, from,
                        nchwconvParams, at);
}
template <typename T>
inline void TransDataTo5HD(const LocalTensor<uint64_t>& dst, const LocalTensor<uint64_t>& src,
                           const TransDataTo5HDParams& nchwconvParams,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  uint64_t to[NCHW_CONV_ADDR_LIST_SIZE], from[NCHW_CONV_ADDR_LIST_SIZE];
  for (int i = 0; i < NCHW_CONV_ADDR_LIST_SIZE; ++i) {
    to[i] = dst.GetValue(static_cast<uint32_t>(i), at);
    from[i] = src.GetValue(static_cast<uint32_t>(i), at);
  }
  TransDataTo5HD<T>(to, from, nchwconvParams, at);
}

// vRepeat rows, each the sum over hRepeat of eight gathered blocks times weights of src1.
template <typename T>
inline void BilinearInterpolation(const LocalTensor<T>& dst, const LocalTensor<T>& src0,
                                  const LocalTensor<uint32_t>& src0Offset, const LocalTensor<T>& src1,
                                  const detail::MaskArg& mask, uint8_t hRepeat, bool repeatMode,
                                  uint16_t dstBlkStride, uint16_t vROffset, uint8_t vRepeat,
                                  const LocalTensor<uint8_t>& sharedTmpBuffer,
                                  tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeVector(tilewright::twin::VecOp::BilinearInterpolation, detail::LanesOf<T>());
  detail::SetMask(v, true, mask, vRepeat, at);
  v.mode = repeatMode;
  v.block_stride[0] = dstBlkStride;
  v.repeat_stride[0] = static_cast<uint16_t>(vROffset * sizeof(T) / 32);
  v.arg[0] = hRepeat;
  v.arg[1] = vROffset;
  detail::EmitVector(v,
                     {dst.AsOperand(true), src0.AsOperand(false), src0Offset.AsOperand(false),
                      src1.AsOperand(false), sharedTmpBuffer.AsOperand(true)},
                     at);
}

}  // namespace AscendC
