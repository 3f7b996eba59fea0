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

// Which of the feature map's properties a LoadData 3D sets itself; the others stand in registers.
struct IsResetLoad3dConfig {
  constexpr IsResetLoad3dConfig(const bool setFMatrix, const bool setPadding)
      : isSetFMatrix(setFMatrix), isSetPadding(setPadding) {}
  bool isSetFMatrix = true;
  bool isSetPadding = true;
};
constexpr IsResetLoad3dConfig IS_RESER_LOAD3D_DEFAULT_CONFIG = {true, true};
constexpr int32_t PAD_SIZE = 4;

enum class FmatrixMode : uint8_t { FMATRIX_LEFT = 0, FMATRIX_RIGHT = 1 };

struct LoadDataRepeatParam {  // repeatStride in 16 rows (repeatMode 0) or in 32 B (repeatMode 1)
  LoadDataRepeatParam() = default;
  LoadDataRepeatParam(uint16_t stride, uint8_t time, uint8_t mode)
      : repeatStride(stride), repeatTime(time), repeatMode(mode) {}
  uint16_t repeatStride = 0;
  uint8_t repeatTime = 1;
  uint8_t repeatMode = 0;
  uint8_t reserved = 0;
};

// The feature map's size and padding, for both matrices: FMATRIX_LEFT is the one that exists.
inline void SetFmatrix(uint16_t l1H, uint16_t l1W, const uint8_t padList[4], const FmatrixMode& fmatrixMode,
                       tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  if (fmatrixMode != FmatrixMode::FMATRIX_LEFT)
    return twi_finding(tilewright::twin::FindingKind::IllegalParameter,
                       "fmatrixMode is FMATRIX_RIGHT, supported is FMATRIX_LEFT", tilewright::twin::Pipe::S,
                       at);
  auto& state = twi_state()->load3d;
  state.h = l1H;
  state.w = l1W;
  std::memcpy(state.pad, padList, sizeof state.pad);
}
template <typename T>
inline void SetLoadDataPaddingValue(const T padValue) {
  twi_state()->load3d.pad_value = BitsOf(padValue);
}
// In bytes; 0: all of L1.
inline void SetLoadDataBoundary(uint32_t boundaryValue) { twi_state()->load3d.boundary = boundaryValue; }
inline void SetLoadDataRepeat(const LoadDataRepeatParam& repeatParams) {
  auto& state = twi_state()->load3d;
  state.repeat_stride = repeatParams.repeatStride;
  state.repeat_time = repeatParams.repeatTime;
  state.repeat_mode = repeatParams.repeatMode;
}

namespace detail {

// What registers hold beside the parameters of the call.
inline void EmitLoad3d(tilewright::twin::Record& r) {
  const auto& state = twi_state()->load3d;
  auto& a = r.load3d;
  a.h = state.h;
  a.w = state.w;
  std::memcpy(a.pad, state.pad, sizeof a.pad);
  a.pad_value = state.pad_value;
  a.boundary = state.boundary;
  a.repeat_stride = state.repeat_stride;
  a.repeat_time = state.repeat_time;
  a.repeat_mode = state.repeat_mode;
  twi_emit(&r);
}

template <typename T>
inline tilewright::twin::Record MakeLoad3d(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                                           tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Load3d, tilewright::twin::Pipe::MTE1, at);
  tilewright::twin::AddOperand(r, dst.AsOperand(true));
  tilewright::twin::AddOperand(r, src.AsOperand(false));
  return r;
}

}  // namespace detail

template <typename T, const IsResetLoad3dConfig& defaultConfig = IS_RESER_LOAD3D_DEFAULT_CONFIG,
          typename U = T>
inline void LoadData(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LoadData3DParamsV2<U>& p,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  static_assert(std::is_same_v<T, U>, "padValue has the type of the tensors");
  auto& state = twi_state()->load3d;
  if (defaultConfig.isSetFMatrix) {
    state.h = p.l1H;
    state.w = p.l1W;
    std::memcpy(state.pad, p.padList, sizeof state.pad);
  }
  if (defaultConfig.isSetPadding) state.pad_value = BitsOf(p.padValue);
  auto r = detail::MakeLoad3d(dst, src, at);
  auto& a = r.load3d;
  a.c = p.channelSize;
  a.k_ext = p.kExtension;
  a.m_ext = p.mExtension;
  a.k_start = p.kStartPt;
  a.m_start = p.mStartPt;
  a.filter_w = static_cast<uint16_t>(p.filterW + (p.filterSizeW ? 256 : 0));
  a.filter_h = static_cast<uint16_t>(p.filterH + (p.filterSizeH ? 256 : 0));
  a.stride_w = p.strideW;
  a.stride_h = p.strideH;
  a.dilation_w = p.dilationFilterW;
  a.dilation_h = p.dilationFilterH;
  a.transpose = p.enTranspose;
  detail::EmitLoad3d(r);
}
// Size, padding and padding value of the feature map stand in registers.
template <typename T>
inline void LoadData(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LoadData3DParamsV2Pro& p,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto r = detail::MakeLoad3d(dst, src, at);
  const auto extension = [&](int shift) { return static_cast<uint16_t>(p.extConfig >> shift); };
  const auto filter = [&](int shift) { return static_cast<uint8_t>(p.filterConfig >> shift); };
  auto& a = r.load3d;
  a.c = p.channelSize;
  a.k_ext = extension(0);
  a.m_ext = extension(16);
  a.k_start = extension(32);
  a.m_start = extension(48);
  a.stride_w = filter(0);
  a.stride_h = filter(8);
  a.filter_w = static_cast<uint16_t>(filter(16) + (p.filterSizeW ? 256 : 0));
  a.filter_h = static_cast<uint16_t>(filter(24) + (p.filterSizeH ? 256 : 0));
  a.dilation_w = filter(32);
  a.dilation_h = filter(40);
  a.transpose = p.enTranspose;
  detail::EmitLoad3d(r);
}

}  // namespace AscendC
