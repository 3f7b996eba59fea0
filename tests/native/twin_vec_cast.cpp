// Conversions: Params::type is the DType of the sources, Params::to that of the destination.
#include "twin_vec.h"

using namespace vec;
using tilewright::twin::DType;
using tilewright::twin::VecOp;

namespace {

// A call with no isSetMask of its own in the form by count.
template <typename T, typename U>
void CastAs(const Params& p) {
  const auto d = Region<T>(p, 0);
  const auto s = Region<U>(p, 1);
  const auto mode = static_cast<RoundMode>(p.mode);
  using Wider = std::conditional_t<(sizeof(T) > sizeof(U)), T, U>;
  InForm<Wider>(p, Unary(p), [&](auto set, auto&&... rest) {
    if constexpr (sizeof...(rest) == 1)
      Cast(d, s, mode, rest...);
    else
      Cast<T, U, decltype(set)::value>(d, s, mode, rest...);
  });
}

template <typename U>
void CastFrom(const Params& p) {
  switch (static_cast<DType>(p.to)) {
    case DType::F32:
      return CastAs<float, U>(p);
    case DType::F16:
      return CastAs<half, U>(p);
    case DType::BF16:
      return CastAs<bfloat16_t, U>(p);
    case DType::S4:
      return CastAs<int4b_t, U>(p);
    case DType::S8:
      return CastAs<int8_t, U>(p);
    case DType::U8:
      return CastAs<uint8_t, U>(p);
    case DType::S16:
      return CastAs<int16_t, U>(p);
    case DType::S32:
      return CastAs<int32_t, U>(p);
    default:
      return CastAs<int64_t, U>(p);
  }
}

template <typename T, typename U>
void TwoSources(const Params& p) {
  const auto d = Region<T>(p, 0);
  const auto a = Region<U>(p, 1), b = Region<U>(p, 2);
  InForm<U>(p, Binary(p), [&](auto set, auto&&... rest) {
    constexpr bool kSet = decltype(set)::value;
    switch (static_cast<VecOp>(p.op)) {
      case VecOp::AddReluCast:
        return AddReluCast<T, U, kSet>(d, a, b, rest...);
      case VecOp::SubReluCast:
        return SubReluCast<T, U, kSet>(d, a, b, rest...);
      case VecOp::MulCast:
        return MulCast<T, U, kSet>(d, a, b, rest...);
      default:
        return AddDeqRelu<T, U, kSet>(d, a, b, rest...);
    }
  });
}

template <typename T, bool vector, bool half_block>
void Dequant(const Params& p) {
  const auto d = Region<T>(p, 0);
  const auto s = Region<int16_t>(p, 1);
  if (p.form == kCount)
    return CastDequant<T, int16_t, vector, half_block>(d, s, static_cast<uint32_t>(p.count));
  InForm<int16_t>(p, Unary(p), [&](auto set, auto&&... rest) {
    if constexpr (sizeof...(rest) > 1)
      CastDeq<T, int16_t, decltype(set)::value, vector, half_block>(d, s, rest...);
  });
}

template <typename T>
void DequantTo8(const Params& p, GM_ADDR table) {
  const bool vector = (p.mode & 1) != 0, half_block = (p.mode & 2) != 0;
  constexpr bool kSigned = std::is_signed_v<T>;
  const float* scales = reinterpret_cast<const float*>(table);
  if (vector) {
    VdeqInfo info;
    for (int i = 0; i < 16; ++i) {
      info.vdeqScale[i] = scales[i];
      info.vdeqOffset[i] = static_cast<int16_t>(i * 3 - 20);
      info.vdeqSignMode[i] = kSigned;
    }
    SetDeqScale(LocalTensor<uint64_t>(TPosition::VECCALC, 160 * 1024, 16), info);
    ScalarToVector();
    return half_block ? Dequant<T, true, true>(p) : Dequant<T, true, false>(p);
  }
  SetDeqScale(scales[0], -7, kSigned);
  return half_block ? Dequant<T, false, true>(p) : Dequant<T, false, false>(p);
}

}  // namespace

KERNEL cast(GM_ADDR dst, GM_ADDR src, GM_ADDR src1, GM_ADDR params) {
  const Params p = *reinterpret_cast<const Params*>(params);
  In(p, dst, src, src1);
  SetSaturationFlag<SaturationMode::FLOAT>((p.flag & 1) != 0);
  SetSaturationFlag<SaturationMode::CAST>((p.flag & 2) == 0);
  if (static_cast<VecOp>(p.op) == VecOp::Cast) {
    SetDeqScale(Scalar<half>(p));
    switch (static_cast<DType>(p.type)) {
      case DType::F32:
        CastFrom<float>(p);
        break;
      case DType::F16:
        CastFrom<half>(p);
        break;
      case DType::BF16:
        CastFrom<bfloat16_t>(p);
        break;
      case DType::S4:
        CastAs<half, int4b_t>(p);
        break;
      case DType::S8:
        CastAs<half, int8_t>(p);
        break;
      case DType::U8:
        CastAs<half, uint8_t>(p);
        break;
      case DType::S16:
        CastFrom<int16_t>(p);
        break;
      case DType::S32:
        CastFrom<int32_t>(p);
        break;
      default:
        CastFrom<int64_t>(p);
    }
  } else if (static_cast<VecOp>(p.op) == VecOp::AddDeqRelu) {
    SetDeqScale(Scalar<half>(p));
    TwoSources<half, int32_t>(p);
  } else if (static_cast<DType>(p.type) == DType::F32) {
    TwoSources<half, float>(p);
  } else if (static_cast<DType>(p.type) == DType::S16) {
    TwoSources<int8_t, int16_t>(p);
  } else if (static_cast<DType>(p.to) == DType::U8) {
    TwoSources<uint8_t, half>(p);
  } else {
    TwoSources<int8_t, half>(p);
  }
  Out(p, dst);
}

KERNEL dequant(GM_ADDR dst, GM_ADDR src, GM_ADDR table, GM_ADDR params) {
  const Params p = *reinterpret_cast<const Params*>(params);
  In(p, dst, src);
  if (static_cast<DType>(p.to) == DType::F16) {
    SetDeqScale(Scalar<half>(p));
    const auto d = Region<half>(p, 0);
    const auto s = Region<int32_t>(p, 1);
    CastDequant(d, s, static_cast<uint32_t>(p.count));
  } else if (static_cast<DType>(p.to) == DType::S8) {
    DequantTo8<int8_t>(p, table);
  } else {
    DequantTo8<uint8_t>(p, table);
  }
  Out(p, dst);
}
