// DataCopy in its forms, and DataCopyPad.
#pragma once

#include "api/atomic.h"
#include "api/params.h"
#include "api/system.h"
#include "api/tensor.h"

namespace AscendC {

namespace detail {

// The pipe that moves data between two memories (appendix "API pipe types" of the documentation).
constexpr tilewright::twin::Pipe CopyPipe(tilewright::twin::Mem src, tilewright::twin::Mem dst) {
  using M = tilewright::twin::Mem;
  using P = tilewright::twin::Pipe;
  if (src == M::GM) return P::MTE2;
  if (dst == M::GM || (src == M::UB && dst == M::L1)) return P::MTE3;
  if (src == M::L1) return dst == M::FB ? P::FIX : P::MTE1;
  return P::V;
}

// Bytes of one unit of blockLen and of the destination gap, by destination.
constexpr uint32_t CopyUnit(tilewright::twin::Mem dst) {
  return dst == tilewright::twin::Mem::BT ? 64 : dst == tilewright::twin::Mem::FB ? 128 : 32;
}

inline void EmitCopy(const tilewright::twin::Operand& dst, const tilewright::twin::Operand& src,
                     const tilewright::twin::CopyParams& params, tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Copy, CopyPipe(src.mem, dst.mem), at);
  tilewright::twin::AddOperand(r, dst);
  tilewright::twin::AddOperand(r, src);
  r.atomic = AtomicTo(dst, r.pipe, at);
  r.copy = params;
  twi_emit(&r);
}

inline void EmitBlocks(const tilewright::twin::Operand& dst, const tilewright::twin::Operand& src,
                       const DataCopyParams& p, tilewright::twin::Place at) {
  using tilewright::twin::Mem;
  const uint32_t unit = CopyUnit(dst.mem);
  const uint32_t bytes = p.blockLen * unit;
  int64_t src_step = int64_t{bytes} + int64_t{p.srcStride} * 32;
  // Widening on the way to the bias table doubles what a block takes there.
  const int64_t widen = dst.type != src.type && SizeOf(dst.type) == 2 * SizeOf(src.type) ? 2 : 1;
  int64_t dst_step = bytes * widen + int64_t{p.dstStride} * unit;
  if (dst.mem == Mem::FB) {  // the fixpipe buffer counts start to start
    src_step = int64_t{p.srcStride} * 32;
    dst_step = int64_t{p.dstStride} * unit;
  }
  EmitCopy(dst, src, {p.blockCount, bytes, src_step, dst_step, bytes}, at);
}

inline void EmitCount(const tilewright::twin::Operand& dst, const tilewright::twin::Operand& src,
                      uint32_t bytes, tilewright::twin::Place at) {
  EmitCopy(dst, src, {1, bytes / 32 * 32, 0, 0, bytes}, at);
}

template <typename T>
inline void EmitPad(const tilewright::twin::Operand& dst, const tilewright::twin::Operand& src,
                    uint16_t count, uint32_t bytes, int64_t srcGap, int64_t dstGap, bool isPad, uint8_t left,
                    uint8_t right, uint64_t value, tilewright::twin::Place at) {
  using tilewright::twin::Mem;
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::CopyPad, CopyPipe(src.mem, dst.mem), at);
  tilewright::twin::AddOperand(r, dst);
  tilewright::twin::AddOperand(r, src);
  const int64_t padded =
      tilewright::twin::AlignUp(bytes + (left + right) * static_cast<uint32_t>(sizeof(T)), 32);
  const int64_t src_step = src.mem == Mem::GM ? bytes + srcGap : padded + srcGap * 32;
  const int64_t dst_step = dst.mem == Mem::GM ? bytes + dstGap : padded + dstGap * 32;
  r.atomic = AtomicTo(dst, r.pipe, at);
  const tilewright::twin::CoreState& state = *twi_state();
  const bool fromRegister = !isPad && state.pad_set && dst.mem != Mem::GM;
  r.pad = {count,
           bytes,
           src_step,
           dst_step,
           fromRegister ? state.pad_value : value,
           left,
           right,
           isPad || fromRegister};
  twi_emit(&r);
}

}  // namespace detail

// Contiguous: `count` elements, a multiple of 32 bytes.
template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const uint32_t count,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitCount(dst.AsOperand(true), src.AsOperand(false), count * sizeof(T), at);
}
template <typename T>
inline void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const uint32_t count,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitCount(dst.AsOperand(true), src.AsOperand(false), count * sizeof(T), at);
}
template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint32_t count,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitCount(dst.AsOperand(true), src.AsOperand(false), count * sizeof(T), at);
}

// Blocks with gaps.
template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src,
                     const DataCopyParams& repeatParams,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitBlocks(dst.AsOperand(true), src.AsOperand(false), repeatParams, at);
}
template <typename T>
inline void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src,
                     const DataCopyParams& repeatParams,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitBlocks(dst.AsOperand(true), src.AsOperand(false), repeatParams, at);
}
template <typename T, typename U>
inline void DataCopy(const LocalTensor<T>& dst, const LocalTensor<U>& src, const DataCopyParams& repeatParams,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitBlocks(dst.AsOperand(true), src.AsOperand(false), repeatParams, at);
}

// Row-major in GM to fractals in L1, zero-padded to 32 B along the row.
template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const Nd2NzParams& p,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Nd2Nz, tilewright::twin::Pipe::MTE2, at);
  tilewright::twin::AddOperand(r, dst.AsOperand(true));
  tilewright::twin::AddOperand(r, src.AsOperand(false));
  r.nd2nz = {p.ndNum,     p.nValue,        p.dValue,       p.srcNdMatrixStride,
             p.srcDValue, p.dstNzC0Stride, p.dstNzNStride, p.dstNzMatrixStride};
  twi_emit(&r);
}

// What DataCopyPad fills with from now on where isPad is false.
template <typename T, TPosition pos = TPosition::MAX>
inline void SetPadValue(T paddingValue) {
  static_assert(pos == TPosition::MAX || pos == TPosition::VECIN || pos == TPosition::VECOUT,
                "padding goes to VECIN or VECOUT");
  twi_state()->pad_set = true;
  twi_state()->pad_value = BitsOf(paddingValue);
}

template <typename T>
inline void DataCopyPad(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyExtParams& p,
                        const DataCopyPadExtParams<T>& pad,
                        tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitPad<T>(dst.AsOperand(true), src.AsOperand(false), p.blockCount, p.blockLen, p.srcStride,
                     p.dstStride, pad.isPad, pad.leftPadding, pad.rightPadding, BitsOf(pad.paddingValue), at);
}
template <typename T>
inline void DataCopyPad(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyParams& p,
                        const DataCopyPadParams& pad,
                        tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitPad<T>(dst.AsOperand(true), src.AsOperand(false), p.blockCount, p.blockLen, p.srcStride,
                     p.dstStride, pad.isPad, pad.leftPadding, pad.rightPadding, pad.paddingValue, at);
}
template <typename T>
inline void DataCopyPad(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyExtParams& p,
                        tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitPad<T>(dst.AsOperand(true), src.AsOperand(false), p.blockCount, p.blockLen, p.srcStride,
                     p.dstStride, false, 0, 0, 0, at);
}
template <typename T>
inline void DataCopyPad(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyParams& p,
                        tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitPad<T>(dst.AsOperand(true), src.AsOperand(false), p.blockCount, p.blockLen, p.srcStride,
                     p.dstStride, false, 0, 0, 0, at);
}

}  // namespace AscendC
