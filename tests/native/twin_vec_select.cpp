// Comparison and selection, and the registers they use.
#include "twin_vec.h"

using namespace vec;
using tilewright::twin::DType;

namespace {

template <typename T>
void CompareAs(const Params& p) {
  const auto d = Region<uint8_t>(p, 0);
  const auto a = Region<T>(p, 1), b = Region<T>(p, 2);
  const auto mode = static_cast<CMPMODE>(p.mode);
  const T s = Scalar<T>(p);
  const uint8_t repeat = static_cast<uint8_t>(p.repeat);
  uint64_t mask[2] = {p.mask[0], p.mask[1]};
  if (p.flag == 0) {
    if (p.form == kCount) return Compare(d, a, b, mode, static_cast<uint32_t>(p.count));
    if (p.form == kMask) return Compare(d, a, b, mode, p.mask[0], repeat, Binary(p));
    return Compare(d, a, b, mode, mask, repeat, Binary(p));
  }
  if (p.form == kCount) return Compares(d, a, s, mode, static_cast<uint32_t>(p.count));
  if (p.form == kMask) return CompareScalar(d, a, s, mode, p.mask[0], repeat, Unary(p));
  Compares(d, a, s, mode, mask, repeat, Unary(p));
}

template <typename T>
void CompareToRegister(const Params& p) {
  const auto a = Region<T>(p, 1), b = Region<T>(p, 2);
  uint64_t mask[2] = {p.mask[0], p.mask[1]};
  if (p.form == kMask)
    Compare(a, b, static_cast<CMPMODE>(p.mode), p.mask[0], Binary(p));
  else
    Compare(a, b, static_cast<CMPMODE>(p.mode), mask, Binary(p));
  PipeBarrier<PIPE_V>();
  GetCmpMask(Region<uint8_t>(p, 0));
}

// src2 holds the bits.
template <typename T>
void SelectAs(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1), b = Region<T>(p, 2);
  const auto bits = Region<uint8_t>(p, 3);
  const auto mode = static_cast<SELMODE>(p.mode);
  const uint8_t repeat = static_cast<uint8_t>(p.repeat);
  if (p.flag != 0) {  // what SetVectorMask and SetCmpMask left
    SetVectorMask<T>(p.mask[1], p.mask[0]);
    const auto room = LocalTensor<uint8_t>(TPosition::VECCALC, 180 * 1024, 256);
    if (mode == SELMODE::VSEL_CMPMASK_SPR) {
      SetCmpMask(bits);
      PipeBarrier<PIPE_V>();
      Select<T, SELMODE::VSEL_CMPMASK_SPR>(d, a, b, repeat, Binary(p));
    } else if (mode == SELMODE::VSEL_TENSOR_SCALAR_MODE) {
      Duplicate(room.ReinterpretCast<T>(), Scalar<T>(p), 32);
      PipeBarrier<PIPE_V>();
      SetVectorMask<T>(p.mask[1], p.mask[0]);
      SetCmpMask(room.ReinterpretCast<T>());
      PipeBarrier<PIPE_V>();
      Select(d, bits, a, repeat, Binary(p));
    } else {
      room.ReinterpretCast<uint64_t>().SetValue(0, bits.GetPhyAddr());
      room.ReinterpretCast<uint64_t>().SetValue(1, 0);
      ScalarToVector();
      SetCmpMask(room.ReinterpretCast<uint64_t>());
      PipeBarrier<PIPE_V>();
      Select<T, SELMODE::VSEL_TENSOR_TENSOR_MODE>(d, a, b, repeat, Binary(p));
    }
    return ResetMask();
  }
  InForm<T>(p, Binary(p), [&](auto set, auto&&... rest) {
    constexpr bool kSet = decltype(set)::value;
    if constexpr (sizeof...(rest) == 1) {
      if (mode == SELMODE::VSEL_TENSOR_SCALAR_MODE)
        Select(d, bits, a, Scalar<T>(p), mode, rest...);
      else
        Select(d, bits, a, b, mode, rest...);
    } else {
      if (mode == SELMODE::VSEL_TENSOR_SCALAR_MODE)
        Select<T, uint8_t, kSet>(d, bits, a, Scalar<T>(p), mode, rest...);
      else
        Select<T, uint8_t, kSet>(d, bits, a, b, mode, rest...);
    }
  });
}

template <class F>
void Around(GM_ADDR dst, GM_ADDR src0, GM_ADDR src1, GM_ADDR bits, GM_ADDR params, F f) {
  const Params p = *reinterpret_cast<const Params*>(params);
  In(p, dst, src0, src1, bits);
  f(p);
  Out(p, dst);
}

}  // namespace

KERNEL compare(GM_ADDR dst, GM_ADDR src0, GM_ADDR src1, GM_ADDR bits, GM_ADDR params) {
  Around(dst, src0, src1, bits, params, [](const Params& p) {
    const DType t = static_cast<DType>(p.type);
    if (t == DType::F16) return CompareAs<half>(p);
    if (t == DType::F32) return CompareAs<float>(p);
    CompareAs<int32_t>(p);
  });
}

KERNEL compare_to_register(GM_ADDR dst, GM_ADDR src0, GM_ADDR src1, GM_ADDR bits, GM_ADDR params) {
  Around(dst, src0, src1, bits, params, [](const Params& p) {
    static_cast<DType>(p.type) == DType::F16 ? CompareToRegister<half>(p) : CompareToRegister<float>(p);
  });
}

KERNEL select(GM_ADDR dst, GM_ADDR src0, GM_ADDR src1, GM_ADDR bits, GM_ADDR params) {
  Around(dst, src0, src1, bits, params, [](const Params& p) {
    static_cast<DType>(p.type) == DType::F16 ? SelectAs<half>(p) : SelectAs<float>(p);
  });
}
