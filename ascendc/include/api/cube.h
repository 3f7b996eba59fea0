// Mmad and Fixpipe.
#pragma once

#include "api/atomic.h"
#include "api/params.h"
#include "api/system.h"
#include "api/tensor.h"

namespace AscendC {

namespace detail {

inline void EmitCubeOrder(bool rowMajor, tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::CubeOrder, tilewright::twin::Pipe::S, at);
  r.order.row_major = rowMajor;
  twi_emit(&r);
}

constexpr tilewright::twin::Quant QuantOf(QuantMode_t mode) {
  return static_cast<tilewright::twin::Quant>(static_cast<int>(mode));
}

template <typename T, typename U>
inline void EmitFixpipe(const tilewright::twin::Operand& dst, const LocalTensor<U>& src,
                        const tilewright::twin::Operand* scales, const FixpipeParamsV220& p, CO2Layout layout,
                        tilewright::twin::Place at) {
  using tilewright::twin::Operand;
  Operand onChip{};
  if (scales != nullptr) {
    // The vector of scales first moves to the fixpipe buffer, in 128 B steps, and is waited for, on the same
    // pipe.
    const uint32_t bytes = tilewright::twin::AlignUp(p.nSize * 8u, 128);
    onChip.mem = tilewright::twin::Mem::FB;
    onChip.type = tilewright::twin::DType::U64;
    onChip.hi = twi_capacity(onChip.mem);
    auto copy = tilewright::twin::MakeRecord(tilewright::twin::Op::Copy, tilewright::twin::Pipe::FIX, at);
    Operand to = onChip;
    to.write = true;
    tilewright::twin::AddOperand(copy, to);
    tilewright::twin::AddOperand(copy, *scales);
    copy.copy = {1, bytes, 0, 0, bytes};
    twi_emit(&copy);
    auto barrier =
        tilewright::twin::MakeRecord(tilewright::twin::Op::Barrier, tilewright::twin::Pipe::FIX, at);
    barrier.barrier.pipe = tilewright::twin::Pipe::FIX;
    twi_emit(&barrier);
  }
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Fixpipe, tilewright::twin::Pipe::FIX, at);
  tilewright::twin::AddOperand(r, dst);
  tilewright::twin::AddOperand(r, src.AsOperand(false));
  if (scales != nullptr) tilewright::twin::AddOperand(r, onChip);
  auto& f = r.fix;
  f.n = p.nSize;
  f.m = p.mSize;
  f.src_stride = p.srcStride;
  f.dst_stride = p.dstStride;
  f.nd = p.ndNum;
  f.src_nd = p.srcNdStride;
  f.dst_nd = p.dstNdStride;
  f.scalar = p.deqScalar;
  f.quant = QuantOf(p.quantPre);
  f.unit_flag = p.unitFlag;
  f.relu = p.reluEn;
  f.to_nd = layout == CO2Layout::ROW_MAJOR;
  f.channel_split = p.isChannelSplit;
  r.atomic = AtomicTo(dst, r.pipe, at);
  twi_emit(&r);
}

template <typename T, typename U, typename S>
inline void EmitMmad(const LocalTensor<T>& dst, const LocalTensor<U>& fm, const LocalTensor<S>& filter,
                     const tilewright::twin::Operand* bias, const MmadParams& p, tilewright::twin::CInit init,
                     tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Mmad, tilewright::twin::Pipe::M, at);
  tilewright::twin::AddOperand(r, dst.AsOperand(true));
  tilewright::twin::AddOperand(r, fm.AsOperand(false));
  tilewright::twin::AddOperand(r, filter.AsOperand(false));
  if (bias != nullptr) tilewright::twin::AddOperand(r, *bias);
  r.mmad = {p.m, p.n, p.k, init, p.unitFlag, p.kDirectionAlign};
  twi_emit(&r);
}

}  // namespace detail

inline void SetMMRowMajor(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitCubeOrder(true, at);
}
inline void SetMMColumnMajor(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitCubeOrder(false, at);
}

// dst[m,n] = fm[m,k] @ filter[k,n], onto zero (cmatrixInitVal), onto what dst holds, or onto the bias table.
template <typename T, typename U, typename S>
inline void Mmad(const LocalTensor<T>& dst, const LocalTensor<U>& fm, const LocalTensor<S>& filter,
                 const MmadParams& mmadParams, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  using tilewright::twin::CInit;
  CInit init = mmadParams.cmatrixInitVal ? CInit::Zero : CInit::Accumulate;
  if (mmadParams.isBias) init = CInit::Accumulate;
  if (!mmadParams.cmatrixInitVal && mmadParams.cmatrixSource) {
    tilewright::twin::Operand bias{};
    bias.mem = tilewright::twin::Mem::BT;
    bias.type = DTypeOf<T>();
    bias.hi = twi_capacity(bias.mem);
    detail::EmitMmad(dst, fm, filter, &bias, mmadParams, CInit::Bias, at);
    return;
  }
  detail::EmitMmad(dst, fm, filter, nullptr, mmadParams, init, at);
}

// With bias[n]: from the bias table (C2), or from L0C (CO1).
template <typename T, typename U, typename S, typename V>
inline void Mmad(const LocalTensor<T>& dst, const LocalTensor<U>& fm, const LocalTensor<S>& filter,
                 const LocalTensor<V>& bias, const MmadParams& mmadParams,
                 tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  using tilewright::twin::CInit;
  if (mmadParams.cmatrixInitVal) {
    twi_finding(tilewright::twin::FindingKind::IllegalParameter,
                "Mmad was given a bias but cmatrixInitVal is true, which starts C from zero; set it to false",
                tilewright::twin::Pipe::M, at);
  }
  const tilewright::twin::Operand operand = bias.AsOperand(false);
  if (mmadParams.cmatrixInitVal)
    detail::EmitMmad(dst, fm, filter, nullptr, mmadParams, CInit::Zero, at);
  else
    detail::EmitMmad(dst, fm, filter, &operand, mmadParams, CInit::Bias, at);
}

// L0C -> GM or L1, converting, scaling and changing layout on the way.
template <typename T, typename U, const FixpipeConfig& config = CFG_ROW_MAJOR>
inline void Fixpipe(const GlobalTensor<T>& dst, const LocalTensor<U>& src,
                    const FixpipeParamsV220& intriParams,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitFixpipe<T, U>(dst.AsOperand(true), src, nullptr, intriParams, config.format, at);
}
template <typename T, typename U, const FixpipeConfig& config = CFG_ROW_MAJOR>
inline void Fixpipe(const LocalTensor<T>& dst, const LocalTensor<U>& src,
                    const FixpipeParamsV220& intriParams,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitFixpipe<T, U>(dst.AsOperand(true), src, nullptr, intriParams, config.format, at);
}
template <typename T, typename U, const FixpipeConfig& config = CFG_ROW_MAJOR>
inline void Fixpipe(const GlobalTensor<T>& dst, const LocalTensor<U>& src,
                    const LocalTensor<uint64_t>& cbufWorkspace, const FixpipeParamsV220& intriParams,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  const tilewright::twin::Operand scales = cbufWorkspace.AsOperand(false);
  detail::EmitFixpipe<T, U>(dst.AsOperand(true), src, &scales, intriParams, config.format, at);
}
template <typename T, typename U, const FixpipeConfig& config = CFG_ROW_MAJOR>
inline void Fixpipe(const LocalTensor<T>& dst, const LocalTensor<U>& src,
                    const LocalTensor<uint64_t>& cbufWorkspace, const FixpipeParamsV220& intriParams,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  const tilewright::twin::Operand scales = cbufWorkspace.AsOperand(false);
  detail::EmitFixpipe<T, U>(dst.AsOperand(true), src, &scales, intriParams, config.format, at);
}

}  // namespace AscendC
