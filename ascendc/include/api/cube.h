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

// `scales`: where they are in the fixpipe buffer; null without.
inline void EmitFixpipeRecord(const tilewright::twin::Operand& dst, const tilewright::twin::Operand& src,
                              const tilewright::twin::Operand* scales, const FixpipeParamsV220& p,
                              CO2Layout layout, tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Fixpipe, tilewright::twin::Pipe::FIX, at);
  tilewright::twin::AddOperand(r, dst);
  tilewright::twin::AddOperand(r, src);
  if (scales != nullptr) tilewright::twin::AddOperand(r, *scales);
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
  EmitFixpipeRecord(dst, src.AsOperand(false), scales != nullptr ? &onChip : nullptr, p, layout, at);
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

// Registers that DataCopy out of L0C reads: how many matrices become rows, the scale of all of them, and
// where in the fixpipe buffer a scale for each column lies.
inline void SetFixpipeNz2ndFlag(uint16_t ndNum, uint16_t srcNdStride, uint16_t dstNdStride) {
  auto& state = twi_state()->fixpipe;
  state.nd = ndNum;
  state.src_nd = srcNdStride;
  state.dst_nd = dstNdStride;
  state.nd_set = true;
}
inline void SetFixpipePreQuantFlag(uint64_t config) {
  twi_state()->fixpipe.scalar = config;
  twi_state()->fixpipe.scalar_set = true;
}
// isUnitFlag clears unit flags, of which none is left set on the twin.
template <typename T, bool setRelu = false>
inline void SetFixPipeConfig(const LocalTensor<T>& preData, bool isUnitFlag = false,
                             tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  static_assert(std::is_same_v<T, uint64_t>, "scales are of type uint64_t");
  static_assert(!setRelu, "setRelu must be false: a tensor of scales alone is supported");
  const auto scales = preData.AsOperand(false);
  if (isUnitFlag && scales.mem == tilewright::twin::Mem::L0C) return;
  if (scales.mem != tilewright::twin::Mem::FB)
    return twi_finding(tilewright::twin::FindingKind::IllegalMemory,
                       "SetFixPipeConfig: the scales must lie in the fixpipe buffer (TPosition::C2PIPE2GM)",
                       tilewright::twin::Pipe::S, at);
  twi_state()->fixpipe.scales = scales;
  twi_state()->fixpipe.scales_set = true;
}
template <typename T>
inline void SetFixPipeConfig(const LocalTensor<T>&, const LocalTensor<T>& quantPre, bool isUnitFlag = false,
                             tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  SetFixPipeConfig<T, false>(quantPre, isUnitFlag, at);
}

namespace detail {

inline void EmitCo1(const tilewright::twin::Operand& dst, const tilewright::twin::Operand& src,
                    const DataCopyCO12DstParams& p, tilewright::twin::Place at) {
  const auto& state = twi_state()->fixpipe;
  const auto refuse = [&](const char* text) {
    twi_finding(tilewright::twin::FindingKind::IllegalParameter, text, tilewright::twin::Pipe::FIX, at);
  };
  const bool vector = p.quantPre == QuantMode_t::VDEQF16 || p.quantPre == QuantMode_t::VQF322B8_PRE ||
                      p.quantPre == QuantMode_t::VREQ8;
  const bool scalar = p.quantPre == QuantMode_t::DEQF16 || p.quantPre == QuantMode_t::QF322B8_PRE ||
                      p.quantPre == QuantMode_t::REQ8;
  if (p.clipReluPre != 0 || p.eltWiseOp != 0)
    return refuse("DataCopy out of L0C: clipReluPre and eltWiseOp must be 0 on 2201");
  if (p.reluPre > 1) return refuse("DataCopy out of L0C: reluPre must be 0 or 1");
  if (p.nz2ndEn && !state.nd_set)
    return refuse("DataCopy out of L0C with nz2ndEn needs SetFixpipeNz2ndFlag before it");
  if (scalar && !state.scalar_set)
    return refuse("DataCopy out of L0C with this quantPre needs SetFixpipePreQuantFlag before it");
  if (vector && !state.scales_set)
    return refuse("DataCopy out of L0C with this quantPre needs SetFixPipeConfig before it");
  FixpipeParamsV220 f(p.nSize, p.mSize, p.srcStride, p.dstStride, p.reluPre != 0);
  f.quantPre = p.quantPre;
  f.unitFlag = p.unitFlag;
  f.isChannelSplit = p.channelSplit;
  if (scalar) f.deqScalar = state.scalar;
  if (p.nz2ndEn) {
    f.ndNum = state.nd;
    f.srcNdStride = state.src_nd;
    f.dstNdStride = state.dst_nd;
  }
  EmitFixpipeRecord(dst, src, vector ? &state.scales : nullptr, f,
                    p.nz2ndEn ? CO2Layout::ROW_MAJOR : CO2Layout::NZ, at);
}

}  // namespace detail

// L0C -> GM or L1 as Fixpipe does it, with part of its parameters in registers.
template <typename T, typename U>
inline void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<U>& src,
                     const DataCopyCO12DstParams& intriParams,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitCo1(dst.AsOperand(true), src.AsOperand(false), intriParams, at);
}
template <typename T, typename U>
inline void DataCopy(const LocalTensor<T>& dst, const LocalTensor<U>& src,
                     const DataCopyCO12DstParams& intriParams,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitCo1(dst.AsOperand(true), src.AsOperand(false), intriParams, at);
}

}  // namespace AscendC
