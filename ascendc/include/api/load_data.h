// LoadData: fractals into L0A and L0B.
#pragma once

#include "api/params.h"
#include "api/system.h"
#include "api/tensor.h"

namespace AscendC {

namespace detail {

inline void EmitLoad2d(const tilewright::twin::Operand& dst, const tilewright::twin::Operand& src,
                       const LoadData2DParams& p, tilewright::twin::Place at) {
  using tilewright::twin::Pipe;
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Load2d,
                                        src.mem == tilewright::twin::Mem::GM ? Pipe::MTE2 : Pipe::MTE1, at);
  tilewright::twin::AddOperand(r, dst);
  tilewright::twin::AddOperand(r, src);
  r.load2d = {p.startIndex, p.repeatTimes, p.srcStride, p.dstGap, 0, p.ifTranspose, p.addrMode != 0};
  twi_emit(&r);
}

}  // namespace detail

template <typename T>
inline void LoadData(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                     const LoadData2DParams& loadDataParams,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitLoad2d(dst.AsOperand(true), src.AsOperand(false), loadDataParams, at);
}
template <typename T>
inline void LoadData(const LocalTensor<T>& dst, const GlobalTensor<T>& src,
                     const LoadData2DParams& loadDataParams,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitLoad2d(dst.AsOperand(true), src.AsOperand(false), loadDataParams, at);
}

template <typename T>
inline void LoadDataWithTranspose(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                                  const LoadData2dTransposeParams& p,
                                  tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto r =
      tilewright::twin::MakeRecord(tilewright::twin::Op::LoadTranspose, tilewright::twin::Pipe::MTE1, at);
  tilewright::twin::AddOperand(r, dst.AsOperand(true));
  tilewright::twin::AddOperand(r, src.AsOperand(false));
  r.load2d = {p.startIndex, p.repeatTimes, p.srcStride, p.dstGap, p.dstFracGap, true, p.addrMode != 0};
  twi_emit(&r);
}

template <typename T, typename U = T>
inline void LoadData(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LoadData3DParamsV2<U>& p,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  static_assert(std::is_same_v<T, U>, "padValue has the type of the tensors");
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Load3d, tilewright::twin::Pipe::MTE1, at);
  tilewright::twin::AddOperand(r, dst.AsOperand(true));
  tilewright::twin::AddOperand(r, src.AsOperand(false));
  auto& a = r.load3d;
  a.h = p.l1H;
  a.w = p.l1W;
  a.c = p.channelSize;
  a.k_ext = p.kExtension;
  a.m_ext = p.mExtension;
  a.k_start = p.kStartPt;
  a.m_start = p.mStartPt;
  a.filter_w = static_cast<uint16_t>(p.filterW + (p.filterSizeW ? 256 : 0));
  a.filter_h = static_cast<uint16_t>(p.filterH + (p.filterSizeH ? 256 : 0));
  std::memcpy(a.pad, p.padList, sizeof a.pad);
  a.stride_w = p.strideW;
  a.stride_h = p.strideH;
  a.dilation_w = p.dilationFilterW;
  a.dilation_h = p.dilationFilterH;
  a.transpose = p.enTranspose;
  a.pad_value = BitsOf(p.padValue);
  twi_emit(&r);
}

}  // namespace AscendC
