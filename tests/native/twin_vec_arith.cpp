// Arithmetic: Params::op is a VecOp, Params::type a DType, and everything goes through the documented API.
#include "twin_vec.h"

using namespace vec;
using tilewright::twin::DType;
using tilewright::twin::VecOp;

namespace {

#define TW_CASE(name)              \
  case VecOp::name:                \
    return InForm<T>(p, Binary(p), \
                     [&](auto set, auto&&... rest) { name<T, decltype(set)::value>(d, a, b, rest...); });

template <typename T>
void Numbers(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1), b = Region<T>(p, 2);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(Add)
    TW_CASE(Sub)
    TW_CASE(Mul)
    TW_CASE(Max)
    TW_CASE(Min)
    default:
      return;
  }
}
template <typename T>
void Relus(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1), b = Region<T>(p, 2);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(AddRelu)
    TW_CASE(SubRelu)
    default:
      return;
  }
}
template <typename T>
void Floats(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1), b = Region<T>(p, 2);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(Div)
    TW_CASE(FusedMulAdd)
    TW_CASE(FusedMulAddRelu)
    default:
      return;
  }
}
template <typename T>
void Words(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1), b = Region<T>(p, 2);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(And)
    TW_CASE(Or)
    default:
      return;
  }
}
#undef TW_CASE

#define TW_CASE(name)             \
  case VecOp::name:               \
    return InForm<T>(p, Unary(p), \
                     [&](auto set, auto&&... rest) { name<T, decltype(set)::value>(d, a, rest...); });
template <typename T>
void UnaryFloats(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(Abs)
    TW_CASE(Exp)
    TW_CASE(Ln)
    TW_CASE(Sqrt)
    TW_CASE(Rsqrt)
    TW_CASE(Reciprocal)
    default:
      return;
  }
}
template <typename T>
void UnaryRelu(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(Relu)
    default:
      return;
  }
}
template <typename T>
void UnaryNot(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(Not)
    default:
      return;
  }
}
#undef TW_CASE

#define TW_CASE(name)             \
  case VecOp::name:               \
    return InForm<T>(p, Unary(p), \
                     [&](auto set, auto&&... rest) { name<T, decltype(set)::value>(d, a, s, rest...); });
template <typename T>
void Scalars(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1);
  const T s = Scalar<T>(p);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(Adds)
    TW_CASE(Muls)
    TW_CASE(Maxs)
    TW_CASE(Mins)
    default:
      return;
  }
}
template <typename T>
void ScalarFloats(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1);
  const T s = Scalar<T>(p);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(LeakyRelu)
    default:
      return;
  }
}
template <typename T>
void Shifts(const Params& p) {
  const auto d = Region<T>(p, 0), a = Region<T>(p, 1);
  const T s = Scalar<T>(p);
  switch (static_cast<VecOp>(p.op)) {
    TW_CASE(ShiftLeft)
    case VecOp::ShiftRight:
      if (p.mode != 0 && p.form == kMask)
        return ShiftRight(d, a, s, p.mask[0], static_cast<uint8_t>(p.repeat), Unary(p), true);
      return InForm<T>(p, Unary(p), [&](auto set, auto&&... rest) {
        ShiftRight<T, decltype(set)::value>(d, a, s, rest...);
      });
    default:
      return;
  }
}
#undef TW_CASE

template <typename T>
void Fill(const Params& p) {
  const auto d = Region<T>(p, 0);
  const T s = Scalar<T>(p);
  const uint8_t repeat = static_cast<uint8_t>(p.repeat), stride = static_cast<uint8_t>(p.rep[0]);
  uint64_t mask[2] = {p.mask[0], p.mask[1]};
  if (static_cast<VecOp>(p.op) == VecOp::Duplicate) {
    if (p.form == kCount) return Duplicate(d, s, p.count);
    if (p.form == kMask) return Duplicate(d, s, p.mask[0], repeat, p.block[0], stride);
    if (p.form == kBits) return Duplicate(d, s, mask, repeat, p.block[0], stride);
    SetMaskCount();
    SetVectorMask<T, MaskMode::COUNTER>(p.count);
    Duplicate<T, false>(d, s, MASK_PLACEHOLDER, 1, p.block[0], stride);
    SetMaskNorm();
    return ResetMask();
  }
  if (p.form == kCount) return CreateVecIndex(d, s, static_cast<uint32_t>(p.count));
  if (p.form == kMask) return CreateVecIndex(d, s, p.mask[0], repeat, p.block[0], stride);
  CreateVecIndex(d, s, mask, repeat, p.block[0], stride);
}

template <typename T, typename U>
void MulAdds(const Params& p) {
  const auto d = Region<T>(p, 0);
  const auto a = Region<U>(p, 1), b = Region<U>(p, 2);
  if (static_cast<VecOp>(p.op) == VecOp::MulAddDst)
    return InForm<T>(p, Binary(p), [&](auto set, auto&&... rest) {
      MulAddDst<T, U, decltype(set)::value>(d, a, b, rest...);
    });
  const U s = Scalar<U>(p);
  InForm<T>(p, Unary(p),
            [&](auto set, auto&&... rest) { Axpy<T, U, decltype(set)::value>(d, a, s, rest...); });
}

void Dispatch(const Params& p) {
  const DType t = static_cast<DType>(p.type);
  const VecOp op = static_cast<VecOp>(p.op);
  if (op == VecOp::MulAddDst || op == VecOp::Axpy) {
    if (static_cast<DType>(p.to) == t)
      return t == DType::F32 ? MulAdds<float, float>(p) : MulAdds<half, half>(p);
    return MulAdds<float, half>(p);
  }
  if (op == VecOp::Duplicate && t == DType::BF16) return Fill<bfloat16_t>(p);
  if (op == VecOp::Duplicate && t == DType::U16) return Fill<uint16_t>(p);
  if (op == VecOp::Duplicate && t == DType::U32) return Fill<uint32_t>(p);
  switch (t) {
    case DType::F16:
      Numbers<half>(p), Relus<half>(p), Floats<half>(p), UnaryFloats<half>(p), UnaryRelu<half>(p);
      Scalars<half>(p), ScalarFloats<half>(p);
      if (op == VecOp::Duplicate || op == VecOp::CreateVecIndex) Fill<half>(p);
      return;
    case DType::F32:
      Numbers<float>(p), Relus<float>(p), Floats<float>(p), UnaryFloats<float>(p), UnaryRelu<float>(p);
      Scalars<float>(p), ScalarFloats<float>(p);
      if (op == VecOp::Duplicate || op == VecOp::CreateVecIndex) Fill<float>(p);
      return;
    case DType::S16:
      Numbers<int16_t>(p), Relus<int16_t>(p), Words<int16_t>(p), UnaryNot<int16_t>(p), Scalars<int16_t>(p);
      Shifts<int16_t>(p);
      if (op == VecOp::Duplicate || op == VecOp::CreateVecIndex) Fill<int16_t>(p);
      return;
    case DType::U16:
      return Words<uint16_t>(p), UnaryNot<uint16_t>(p), Shifts<uint16_t>(p);
    case DType::S32:
      Numbers<int32_t>(p), UnaryRelu<int32_t>(p), Scalars<int32_t>(p), Shifts<int32_t>(p);
      if (op == VecOp::Duplicate || op == VecOp::CreateVecIndex) Fill<int32_t>(p);
      return;
    default:
      return Shifts<uint32_t>(p);
  }
}

}  // namespace

KERNEL arith(GM_ADDR dst, GM_ADDR src0, GM_ADDR src1, GM_ADDR params) {
  const Params p = *reinterpret_cast<const Params*>(params);
  In(p, dst, src0, src1);
  SetSaturationFlag<SaturationMode::FLOAT>(p.flag != 0);
  Dispatch(p);
  Out(p, dst);
}

KERNEL operators(GM_ADDR dst, GM_ADDR src0, GM_ADDR src1, GM_ADDR params) {
  const Params p = *reinterpret_cast<const Params*>(params);
  In(p, dst, src0, src1);
  LocalTensor<float> d = Region<float>(p, 0);
  const auto a = Region<float>(p, 1), b = Region<float>(p, 2);
  LocalTensor<int16_t> w = Region<int16_t>(p, 0);
  const auto v = Region<int16_t>(p, 1), u = Region<int16_t>(p, 2);
  LocalTensor<uint8_t> bits = Region<uint8_t>(p, 0);
  switch (p.op) {
    case 0:
      d = a + b;
      break;
    case 1:
      d = a - b;
      break;
    case 2:
      d = a * b;
      break;
    case 3:
      d = a / b;
      break;
    case 4:
      w = v & u;
      break;
    case 5:
      w = v | u;
      break;
    case 6:
      bits = a < b;
      break;
    case 7:
      bits = a > b;
      break;
    case 8:
      bits = a == b;
      break;
    case 9:
      bits = a <= b;
      break;
    case 10:
      bits = a >= b;
      break;
    default:
      bits = a != b;
  }
  Out(p, dst);
}
