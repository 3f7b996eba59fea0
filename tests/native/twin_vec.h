// What the kernels of the vector conformance tests share: parameters as one struct, the forms of a call, and
// UB filled from and written back to GM as it lies.
#pragma once

#include "kernel_operator.h"

using namespace AscendC;

namespace vec {

struct Params {
  int32_t op, type, to, form, mode, flag;
  int32_t count, repeat;
  int32_t alias, unused;  // alias: the operand that is the destination as well; 0: none
  uint64_t mask[2];
  uint64_t scalar;
  uint32_t bytes[4];  // of dst, src0, src1, src2
  uint16_t block[3], rep[3];
};

enum Form { kCount, kMask, kBits, kCounterOutside, kCounterInside, kBitsOutside };

template <typename T>
GlobalTensor<T> Gm(GM_ADDR address) {
  GlobalTensor<T> t;
  t.SetGlobalBuffer(reinterpret_cast<T*>(address));
  return t;
}

// Region `i` of UB: the operands lie one after the other.
template <typename T>
LocalTensor<T> Region(const Params& p, int i) {
  if (i == p.alias) i = 0;
  uint32_t at = 0;
  for (int k = 0; k < i; ++k) at += p.bytes[k];
  const uint32_t elements = std::is_same_v<T, int4b_t> ? p.bytes[i] * 2 : p.bytes[i] / sizeof(T);
  return LocalTensor<T>(TPosition::VECCALC, at, elements);
}

// Pipe V waits for all of them, given in order.
template <class... Address>
void In(const Params& p, Address... from) {
  uint8_t* const addresses[] = {from...};
  for (int i = 0; i < static_cast<int>(sizeof...(from)); ++i)
    if (p.bytes[i] != 0 && (i == 0 || i != p.alias))
      DataCopy(Region<uint8_t>(p, i), Gm<uint8_t>(addresses[i]), p.bytes[i]);
  SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
}
inline void Out(const Params& p, GM_ADDR to) {
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  DataCopy(Gm<uint8_t>(to), Region<uint8_t>(p, 0), p.bytes[0]);
}
// After the scalar unit has written what pipe V will read.
inline void ScalarToVector() {
  SetFlag<HardEvent::S_V>(EVENT_ID1);
  WaitFlag<HardEvent::S_V>(EVENT_ID1);
}

// call(isSetMask, arguments after the operands...) in the form wanted; T is the type that a mask counts.
template <typename T, class Repeat, class Call>
void InForm(Params p, const Repeat& strides, Call&& call) {
  const std::true_type inside{};
  const std::false_type outside{};
  const uint8_t repeat = static_cast<uint8_t>(p.repeat);
  switch (p.form) {
    case kCount:
      return call(inside, p.count);
    case kMask:
      return call(inside, p.mask[0], repeat, strides);
    case kBits:
      return call(inside, p.mask, repeat, strides);
    case kCounterOutside:
      SetMaskCount();
      SetVectorMask<T, MaskMode::COUNTER>(p.count);
      call(outside, MASK_PLACEHOLDER, 1, strides);
      SetMaskNorm();
      return ResetMask();
    case kCounterInside:
      SetMaskCount();
      call(inside, static_cast<uint64_t>(p.count), 1, strides);
      SetMaskNorm();
      return ResetMask();
    default:
      SetMaskNorm();
      SetVectorMask<T, MaskMode::NORMAL>(p.mask[1], p.mask[0]);
      call(outside, MASK_PLACEHOLDER, repeat, strides);
      return ResetMask();
  }
}

inline BinaryRepeatParams Binary(const Params& p) {
  BinaryRepeatParams b;
  b.dstBlkStride = static_cast<uint8_t>(p.block[0]);
  b.src0BlkStride = static_cast<uint8_t>(p.block[1]);
  b.src1BlkStride = static_cast<uint8_t>(p.block[2]);
  b.dstRepStride = static_cast<uint8_t>(p.rep[0]);
  b.src0RepStride = static_cast<uint8_t>(p.rep[1]);
  b.src1RepStride = static_cast<uint8_t>(p.rep[2]);
  return b;
}

inline UnaryRepeatParams Unary(const Params& p) {
  return UnaryRepeatParams(p.block[0], p.block[1], static_cast<uint8_t>(p.rep[0]),
                           static_cast<uint8_t>(p.rep[1]));
}

template <typename T>
T Scalar(const Params& p) {
  return FromBits<T>(p.scalar);
}

}  // namespace vec

#define KERNEL extern "C" __global__ __aicore__ void
