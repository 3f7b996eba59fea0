// What all vector instructions share: repeats, strides, masks and the two mask modes (documented under
// Memory矢量计算/SIMD计算说明 and 掩码操作), and the way from a call to a record.
#pragma once

#include <cstdio>
#include <initializer_list>

#include "api/system.h"
#include "api/tensor.h"

namespace AscendC {

constexpr int32_t DEFAULT_BLK_NUM = 8;
constexpr int32_t DEFAULT_BLK_STRIDE = 1;
constexpr uint8_t DEFAULT_REPEAT_STRIDE = 8;
constexpr uint64_t MASK_PLACEHOLDER = 0;
constexpr uint64_t MASK_PLACEHOLDER_LIST[2] = {0, 0};

enum class MaskMode : uint8_t { NORMAL = 0, COUNTER };
enum class SaturationMode : uint8_t { FLOAT, CAST };

struct BinaryRepeatParams {  // strides start to start, in 32 B
  BinaryRepeatParams() = default;
  BinaryRepeatParams(uint8_t dstBlk, uint8_t src0Blk, uint8_t src1Blk, uint8_t dstRep, uint8_t src0Rep,
                     uint8_t src1Rep)
      : dstBlkStride(dstBlk),
        src0BlkStride(src0Blk),
        src1BlkStride(src1Blk),
        dstRepStride(dstRep),
        src0RepStride(src0Rep),
        src1RepStride(src1Rep) {}
  uint32_t blockNumber = DEFAULT_BLK_NUM;
  uint8_t dstBlkStride = DEFAULT_BLK_STRIDE;
  uint8_t src0BlkStride = DEFAULT_BLK_STRIDE;
  uint8_t src1BlkStride = DEFAULT_BLK_STRIDE;
  uint8_t dstRepStride = DEFAULT_REPEAT_STRIDE;
  uint8_t src0RepStride = DEFAULT_REPEAT_STRIDE;
  uint8_t src1RepStride = DEFAULT_REPEAT_STRIDE;
  bool repeatStrideMode = false;
  bool strideSizeMode = false;
};

struct UnaryRepeatParams {  // strides start to start, in 32 B
  UnaryRepeatParams() = default;
  UnaryRepeatParams(uint16_t dstBlk, uint16_t srcBlk, uint8_t dstRep, uint8_t srcRep, bool half = false)
      : dstBlkStride(dstBlk),
        srcBlkStride(srcBlk),
        dstRepStride(dstRep),
        srcRepStride(srcRep),
        halfBlock(half) {}
  uint32_t blockNumber = DEFAULT_BLK_NUM;
  uint16_t dstBlkStride = DEFAULT_BLK_STRIDE;
  uint16_t srcBlkStride = DEFAULT_BLK_STRIDE;
  uint8_t dstRepStride = DEFAULT_REPEAT_STRIDE;
  uint8_t srcRepStride = DEFAULT_REPEAT_STRIDE;
  bool repeatStrideMode = false;
  bool strideSizeMode = false;
  bool halfBlock = false;
};

namespace detail {

// The mask argument of an instruction: how many lanes from the first on, or their bits.
class MaskArg {
 public:
  template <typename I, std::enable_if_t<std::is_integral_v<I>, bool> = true>
  MaskArg(I count) : count_(static_cast<uint64_t>(count)) {}
  MaskArg(const uint64_t* bits) : bits_(bits) {}

  bool contiguous() const { return bits_ == nullptr; }
  uint64_t count() const { return bits_ == nullptr ? count_ : bits_[0]; }
  // The second word exists for instructions of more than 64 lanes only.
  uint64_t word(int i, uint32_t lanes) const { return i == 0 || lanes > 64 ? bits_[i] : 0; }

 private:
  const uint64_t* bits_ = nullptr;
  uint64_t count_ = 0;
};

// The bits of the first `count` lanes, in words of 64.
constexpr uint64_t FirstLanes(uint64_t count, int word) {
  const uint64_t before = static_cast<uint64_t>(word) * 64;
  return count <= before ? 0 : count - before >= 64 ? ~uint64_t{0} : (uint64_t{1} << (count - before)) - 1;
}

// `format` takes one or two numbers.
inline void RejectParameter(tilewright::twin::Place at, const char* format, int64_t value,
                            int64_t limit = 0) {
  char message[160];
  std::snprintf(message, sizeof message, format, static_cast<long long>(value),
                static_cast<long long>(limit));
  twi_finding(tilewright::twin::FindingKind::IllegalParameter, message, tilewright::twin::Pipe::V, at);
}

// An instruction of `lanes` elements a repeat, contiguous until the strides are set.
inline tilewright::twin::VecArgs MakeVector(tilewright::twin::VecOp op, uint32_t lanes) {
  tilewright::twin::VecArgs v{};
  v.op = op;
  v.lanes = static_cast<uint16_t>(lanes);
  v.saturate = twi_state()->saturate;
  v.truncate = twi_state()->truncate;
  for (int i = 0; i < 3; ++i) {
    v.block_stride[i] = DEFAULT_BLK_STRIDE;
    v.repeat_stride[i] = DEFAULT_REPEAT_STRIDE;
  }
  return v;
}

// Elements one repeat computes: those of the larger type that fill 8 blocks of 32 B.
template <typename T, typename U = T>
constexpr uint32_t LanesOf() {
  return 256 / static_cast<uint32_t>(sizeof(T) > sizeof(U) ? sizeof(T) : sizeof(U));
}

// The same where dst of type T and sources of type U differ in size: contiguous repeats of each.
template <typename T, typename U>
inline tilewright::twin::VecArgs MakeVector(tilewright::twin::VecOp op) {
  auto v = MakeVector(op, LanesOf<T, U>());
  const auto blocks = [&](uint32_t bits) { return static_cast<uint16_t>(v.lanes * bits / 256); };
  v.repeat_stride[0] = blocks(std::is_same_v<T, int4b_t> ? 4 : 8 * sizeof(T));
  v.repeat_stride[1] = v.repeat_stride[2] = blocks(std::is_same_v<U, int4b_t> ? 4 : 8 * sizeof(U));
  return v;
}

inline void SetStrides(tilewright::twin::VecArgs& v, const BinaryRepeatParams& p) {
  v.block_stride[0] = p.dstBlkStride;
  v.block_stride[1] = p.src0BlkStride;
  v.block_stride[2] = p.src1BlkStride;
  v.repeat_stride[0] = p.dstRepStride;
  v.repeat_stride[1] = p.src0RepStride;
  v.repeat_stride[2] = p.src1RepStride;
}

inline void SetStrides(tilewright::twin::VecArgs& v, const UnaryRepeatParams& p) {
  v.block_stride[0] = p.dstBlkStride;
  v.block_stride[1] = p.srcBlkStride;
  v.repeat_stride[0] = p.dstRepStride;
  v.repeat_stride[1] = p.srcRepStride;
}

// From the mask register. In Counter mode the number of repeats follows from the number of elements.
inline void SetMaskFromState(tilewright::twin::VecArgs& v, uint32_t repeat) {
  const tilewright::twin::CoreState& state = *twi_state();
  v.counter = state.counter;
  v.mask[0] = state.mask[0];
  v.mask[1] = state.counter || v.lanes <= 64 ? 0 : state.mask[1];
  if (!v.counter && v.lanes < 64) v.mask[0] &= FirstLanes(v.lanes, 0);
  v.repeat = v.counter                          ? static_cast<uint32_t>((v.mask[0] + v.lanes - 1) / v.lanes)
             : v.mask[0] == 0 && v.mask[1] == 0 ? 0
                                                : repeat;
}

// A call with mask, repeatTime and strides. Documented: a contiguous mask beyond one repeat counts as all of
// it, one of 0 does nothing, and repeatTime fits a byte.
inline void SetMask(tilewright::twin::VecArgs& v, bool isSetMask, const MaskArg& mask, int64_t repeat,
                    tilewright::twin::Place at) {
  tilewright::twin::CoreState& state = *twi_state();
  if (isSetMask) {
    if (state.counter) {
      state.mask[0] = mask.count();
      state.mask[1] = 0;
    } else if (mask.contiguous()) {
      if (mask.count() > v.lanes)
        RejectParameter(at, "mask is %lld, one repeat has %lld elements of this type",
                        static_cast<int64_t>(mask.count()), v.lanes);
      for (int i = 0; i < 2; ++i)
        state.mask[i] = FirstLanes(mask.count() < v.lanes ? mask.count() : v.lanes, i);
    } else {
      for (int i = 0; i < 2; ++i) state.mask[i] = mask.word(i, v.lanes);
    }
  }
  if (!state.counter && (repeat < 0 || repeat > 255))
    RejectParameter(at, "repeatTime is %lld, allowed are 0..255", repeat);
  SetMaskFromState(v, static_cast<uint8_t>(repeat));
}

// A call over the first `count` elements: Counter mode for this instruction, Normal mode and a full mask
// after it. With isSetMask = false the register decides and `count` does not.
inline void SetCount(tilewright::twin::VecArgs& v, bool isSetMask, int64_t count,
                     tilewright::twin::Place at) {
  if (!isSetMask) return SetMaskFromState(v, 1);
  if (count < 0) {
    RejectParameter(at, "count is %lld, it must not be negative", count);
    count = 0;
  }
  tilewright::twin::CoreState& state = *twi_state();
  state.counter = true;
  state.mask[0] = static_cast<uint64_t>(count);
  SetMaskFromState(v, 1);
  state.counter = false;
  state.mask[0] = state.mask[1] = ~uint64_t{0};
}

inline void EmitVector(const tilewright::twin::VecArgs& v,
                       std::initializer_list<tilewright::twin::Operand> operands,
                       tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Vector, tilewright::twin::Pipe::V, at);
  for (const tilewright::twin::Operand& o : operands) tilewright::twin::AddOperand(r, o);
  r.vec = v;
  twi_emit(&r);
}

}  // namespace detail

inline void SetMaskCount() { twi_state()->counter = true; }
inline void SetMaskNorm() { twi_state()->counter = false; }

inline void ResetMask() {
  twi_state()->mask[0] = ~uint64_t{0};
  twi_state()->mask[1] = ~uint64_t{0};
}

template <typename T, MaskMode mode = MaskMode::NORMAL>
inline void SetVectorMask(const uint64_t maskHigh, const uint64_t maskLow) {
  twi_state()->mask[0] = maskLow;
  twi_state()->mask[1] = mode == MaskMode::COUNTER ? 0 : maskHigh;
}

template <typename T, MaskMode mode = MaskMode::NORMAL>
inline void SetVectorMask(int32_t len, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  if (len < 0) {
    detail::RejectParameter(at, "len of SetVectorMask is %lld, it must not be negative", len);
    len = 0;
  }
  const uint64_t count = static_cast<uint64_t>(len);
  if (mode == MaskMode::COUNTER) return SetVectorMask<T, mode>(0, count);
  if (count > detail::LanesOf<T>())
    detail::RejectParameter(at, "len of SetVectorMask is %lld, one repeat has %lld elements of this type",
                            len, detail::LanesOf<T>());
  SetVectorMask<T, mode>(detail::FirstLanes(count, 1), detail::FirstLanes(count, 0));
}

// FLOAT: whether results in half and bfloat16 end at the largest value instead of inf, 0 instead of NaN (and
// int16 and int32 arithmetic at its ends). CAST: whether conversions to integers do; if not they lose high
// bits.
template <SaturationMode mode>
inline void SetSaturationFlag(bool enableSat) {
  if (mode == SaturationMode::FLOAT)
    twi_state()->saturate = enableSat;
  else
    twi_state()->truncate = !enableSat;
}
template <SaturationMode mode>
inline bool GetSaturationFlag() {
  return mode == SaturationMode::FLOAT ? twi_state()->saturate : !twi_state()->truncate;
}

}  // namespace AscendC
