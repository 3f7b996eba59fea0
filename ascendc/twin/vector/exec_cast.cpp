// Conversions of type.
#include <cmath>
#include <limits>

#include "api/enums.h"
#include "vector/elementwise.h"
#include "vector/functions.h"

namespace tilewright::twin {

namespace {

using AscendC::RoundMode;

constexpr uint8_t kRint = static_cast<uint8_t>(RoundMode::CAST_RINT);

// An integral number to an integer of `bits`, signed or not: to its ends, or losing its high bits. NaN is 0.
int64_t ToInteger(double x, uint32_t bits, bool is_signed, bool truncate) {
  if (x != x) return 0;
  const double high = std::ldexp(1.0, static_cast<int>(is_signed ? bits - 1 : bits));
  const double low = is_signed ? -high : 0.0;
  if (!truncate || bits == 64) {
    if (x < low) return is_signed ? static_cast<int64_t>(low) : 0;
    if (x >= high)
      return is_signed ? static_cast<int64_t>((uint64_t{1} << (bits - 1)) - 1) : (int64_t{1} << bits) - 1;
    return static_cast<int64_t>(x);
  }
  const double edge = std::ldexp(1.0, 63);
  return x >= edge ? -1 : x < -edge ? 0 : static_cast<int64_t>(x);
}

int64_t Narrowed(int64_t x, uint32_t bits, bool truncate) {  // to a signed integer
  const int64_t high = (int64_t{1} << (bits - 1)) - 1;
  return truncate ? x : std::min(std::max(x, -high - 1), high);
}

template <class T>
constexpr bool kHalfOrBf16 = std::is_same_v<T, half> || std::is_same_v<T, bfloat16_t>;

// One element, the slow and general way.
template <class D, class S>
D Converted(S x, uint8_t mode, bool truncate, bool saturate) {
  constexpr bool from_float = kFloat<S> || kHalfOrBf16<S>;
  if constexpr (kHalfOrBf16<D>) {
    const float value = static_cast<float>(x);
    D d;
    if constexpr (std::is_same_v<D, half>) {
      d.bits = RoundToHalf(value, mode);
      if (saturate) SaturateHalves(&d.bits, 1);
    } else {
      d.bits = RoundToBf16(value, mode);
      if (saturate) SaturateBf16s(&d.bits, 1);
    }
    return d;
  } else if constexpr (kFloat<D>) {
    if constexpr (kFloat<S>)
      return static_cast<float>(RoundToIntegral(x, mode)) + 0.0f;  // documented: -0 becomes +0
    else if constexpr (from_float)
      return static_cast<float>(x);
    else
      return RoundToFloat(static_cast<int64_t>(x), mode);
  } else if constexpr (from_float) {
    return static_cast<D>(ToInteger(RoundToIntegral(static_cast<double>(static_cast<float>(x)), mode),
                                    8 * sizeof(D), std::is_signed_v<D>, truncate));
  } else {
    return static_cast<D>(Narrowed(static_cast<int64_t>(x), 8 * sizeof(D), truncate));
  }
}

// Small numbers to integers of 8 and 16 bits, to nearest: adding and taking away 1.5 * 2^23 rounds them.
template <class D>
void NearestIntegers(const float* from, D* to, uint32_t n) {
  constexpr float kLow = std::numeric_limits<D>::min(), kHigh = std::numeric_limits<D>::max();
  constexpr float kMagic = 12582912.0f;
  for (uint32_t i = 0; i < n; ++i) {
    const float x = from[i] == from[i] ? from[i] : 0.0f;
    const float inside = x < kLow ? kLow : x > kHigh ? kHigh : x;
    to[i] = static_cast<D>(static_cast<int32_t>((inside + kMagic) - kMagic));
  }
}

template <class D, class S>
void Convert(Core& core, const Record& r) {
  const Layout layout[2] = {LayoutOf(core, r, 0), LayoutOf(core, r, 1)};
  const uint8_t mode = r.vec.mode;
  const bool truncate = r.vec.truncate, saturate = r.vec.saturate, apart = OverlapsPartly(r);
  const bool nearest = mode <= kRint;
  S from[kChunk];
  D to[kChunk];
  ForRuns(r.vec, layout, apart, [&](uint8_t* const* at, uint32_t n, uint32_t) {
    for (uint32_t done = 0; done < n; done += kChunk) {
      const uint32_t m = std::min(kChunk, n - done);
      std::memcpy(from, at[1] + done * sizeof(S), m * sizeof(S));
      if constexpr (kFloat<D> && kHalfOrBf16<S>) {
        Load<S>(reinterpret_cast<const uint8_t*>(from), m, to, false);
      } else if constexpr (kHalfOrBf16<D> && kFloat<S>) {
        if (nearest)
          Store<D>(from, reinterpret_cast<uint8_t*>(to), m, saturate);
        else
          for (uint32_t i = 0; i < m; ++i) to[i] = Converted<D>(from[i], mode, truncate, saturate);
      } else if constexpr (std::is_same_v<S, half> && std::is_integral_v<D> && sizeof(D) <= 2) {
        if (nearest && !truncate) {
          alignas(32) float wide[kChunk];
          Load<half>(reinterpret_cast<const uint8_t*>(from), m, wide, false);
          NearestIntegers(wide, to, m);
        } else {
          for (uint32_t i = 0; i < m; ++i) to[i] = Converted<D>(from[i], mode, truncate, saturate);
        }
      } else if constexpr (std::is_same_v<D, half> && std::is_integral_v<S>) {
        if (nearest) {  // these integers are floats without loss
          alignas(32) float wide[kChunk];
          for (uint32_t i = 0; i < m; ++i) wide[i] = static_cast<float>(from[i]);
          Store<half>(wide, reinterpret_cast<uint8_t*>(to), m, saturate);
        } else {
          for (uint32_t i = 0; i < m; ++i) to[i] = Converted<D>(from[i], mode, truncate, saturate);
        }
      } else if constexpr (kFloat<D> && std::is_integral_v<S>) {
        if (nearest)
          for (uint32_t i = 0; i < m; ++i) to[i] = static_cast<float>(from[i]);
        else
          for (uint32_t i = 0; i < m; ++i) to[i] = Converted<D>(from[i], mode, truncate, saturate);
      } else {
        for (uint32_t i = 0; i < m; ++i) to[i] = Converted<D>(from[i], mode, truncate, saturate);
      }
      std::memcpy(at[0] + done * sizeof(D), to, m * sizeof(D));
    }
  });
}

// Two int4b_t a byte, the first in the low half.
void FromInt4(Core& core, const Record& r) {
  const Layout layout[2] = {LayoutOf(core, r, 0), LayoutOf(core, r, 1)};
  ForRuns(r.vec, layout, true, [&](uint8_t* const* at, uint32_t n, uint32_t) {
    uint8_t bytes[kChunk];
    uint16_t out[kChunk];
    std::memcpy(bytes, at[1], (n + 1) / 2);
    for (uint32_t i = 0; i < n; ++i) {
      const int nibble = bytes[i / 2] >> (i % 2 * 4) & 15;
      out[i] = FloatToHalf(static_cast<float>(nibble < 8 ? nibble : nibble - 16));
    }
    std::memcpy(at[0], out, 2 * n);
  });
}

void ToInt4(Core& core, const Record& r) {
  const Layout layout[2] = {LayoutOf(core, r, 0), LayoutOf(core, r, 1)};
  ForRuns(r.vec, layout, true, [&](uint8_t* const* at, uint32_t n, uint32_t) {
    uint16_t in[kChunk];
    uint8_t bytes[kChunk] = {};
    std::memcpy(in, at[1], 2 * n);
    for (uint32_t i = 0; i < n; ++i) {
      const double whole = RoundToIntegral(HalfToFloat(in[i]), r.vec.mode);
      const int64_t value = ToInteger(whole, 4, true, r.vec.truncate);
      bytes[i / 2] |= static_cast<uint8_t>((value & 15) << (i % 2 * 4));
    }
    std::memcpy(at[0], bytes, n / 2);
  });
}

// int32 -> half with the scale in half: 2^17 on the way keeps the product in range, so only the result
// overflows.
float Scaled(int32_t x, uint64_t scale) {
  return static_cast<float>(static_cast<double>(x) * HalfToFloat(static_cast<uint16_t>(scale)));
}

void ScaledToHalf(Core& core, const Record& r) {
  const uint64_t scale = r.vec.scalar;
  Map<half, int32_t>(core, r, [=](int32_t x) { return Scaled(x, scale); });
}

template <class S>
bool From(Core& core, const Record& r) {
  switch (r.operand[0].type) {
    case DType::F32:
      Convert<float, S>(core, r);
      return true;
    case DType::F16:
      Convert<half, S>(core, r);
      return true;
    case DType::S16:
      Convert<int16_t, S>(core, r);
      return true;
    case DType::S32:
      Convert<int32_t, S>(core, r);
      return true;
    case DType::S64:
      Convert<int64_t, S>(core, r);
      return true;
    case DType::S8:
      Convert<int8_t, S>(core, r);
      return true;
    case DType::U8:
      Convert<uint8_t, S>(core, r);
      return true;
    default:
      return false;
  }
}

}  // namespace

void ExecuteCast(Core& core, const Record& r) {
  const DType src = r.operand[1].type, dst = r.operand[0].type;
  if (src == DType::S4) return FromInt4(core, r);
  if (dst == DType::S4) return ToInt4(core, r);
  if (src == DType::S32 && dst == DType::F16) return ScaledToHalf(core, r);
  if (dst == DType::BF16) return Convert<bfloat16_t, float>(core, r);
  switch (src) {
    case DType::F32:
      From<float>(core, r);
      return;
    case DType::F16:
      From<half>(core, r);
      return;
    case DType::BF16:
      From<bfloat16_t>(core, r);
      return;
    case DType::S8:
      Convert<half, int8_t>(core, r);
      return;
    case DType::U8:
      Convert<half, uint8_t>(core, r);
      return;
    case DType::S16:
      From<int16_t>(core, r);
      return;
    case DType::S32:
      From<int32_t>(core, r);
      return;
    default:
      From<int64_t>(core, r);
      return;
  }
}

void ExecuteCastDeq(Core& core, const Record& r) {
  if (r.operand[0].type == DType::F16) return ScaledToHalf(core, r);
  const Layout layout[2] = {LayoutOf(core, r, 0), LayoutOf(core, r, 1)};
  uint64_t scales[16];
  if (r.vec.arg[1] != 0)
    std::memcpy(scales, core.At(r.operand[2]), sizeof scales);
  else
    std::fill_n(scales, 16, r.vec.scalar);
  float factor[16], offset[16];
  for (int k = 0; k < 16; ++k) {
    // The hardware reads the factor as 1, 8 and 10 bits.
    factor[k] = BitCast<float>(static_cast<uint32_t>(scales[k]) & ~uint32_t{0x1fff});
    offset[k] = static_cast<float>(static_cast<int>(scales[k] >> 37 & 0xff) -
                                   static_cast<int>(scales[k] >> 45 & 1) * 256);
  }
  ForRuns(r.vec, layout, true, [&](uint8_t* const* at, uint32_t n, uint32_t index) {
    int16_t in[128];
    std::memcpy(in, at[1], 2 * n);
    for (uint32_t i = 0; i < n; ++i) {
      const uint32_t k = (index + i) % 16;
      const bool is_signed = (scales[k] >> 46 & 1) != 0;
      const double whole = std::nearbyint(static_cast<float>(in[i]) * factor[k] + offset[k]);
      at[0][i] = static_cast<uint8_t>(ToInteger(whole, 8, is_signed, false));
    }
  });
}

namespace {

float RoundedToHalf(float x) { return HalfToFloat(FloatToHalf(x)); }

// Results of 8 bits: the sum or product in half, then to nearest and to the ends.
template <class D, class F>
void HalvesTo8(Core& core, const Record& r, F f) {
  const bool truncate = r.vec.truncate;
  Map2<D, half>(core, r, [=](float a, float b) {
    return static_cast<D>(
        ToInteger(std::nearbyint(RoundedToHalf(f(a, b))), 8, std::is_signed_v<D>, truncate));
  });
}

// float -> half: a NaN comes out as 0 here, unlike in Cast.
template <class F>
void FloatsToHalfOrZero(Core& core, const Record& r, F f) {
  Map2<half, float>(core, r, [=](float a, float b) {
    const float x = f(a, b);
    return x > 0 ? x : 0.0f;
  });
}

template <class F>
void ReluCast(Core& core, const Record& r, F f) {
  switch (r.operand[1].type) {
    case DType::F32:
      return FloatsToHalfOrZero(core, r, f);
    case DType::F16:
      return HalvesTo8<int8_t>(core, r, [=](float a, float b) { return ReluOf(f(a, b)); });
    default:
      return Map2<int8_t, int16_t>(core, r, [=](int16_t a, int16_t b) {
        return static_cast<int8_t>(
            std::min(std::max(f(static_cast<int32_t>(a), static_cast<int32_t>(b)), 0), 127));
      });
  }
}

}  // namespace

void ExecuteToCast(Core& core, const Record& r) {
  switch (r.vec.op) {
    case VecOp::AddReluCast:
      return ReluCast(core, r, AddOf<false>{});
    case VecOp::SubReluCast:
      return ReluCast(core, r, SubOf<false>{});
    case VecOp::MulCast:
      if (r.operand[0].type == DType::S8) return HalvesTo8<int8_t>(core, r, MulOf<false>{});
      return HalvesTo8<uint8_t>(core, r, MulOf<false>{});
    default: {  // AddDeqRelu
      const uint64_t scale = r.vec.scalar;
      return Map2<half, int32_t>(
          core, r, [=](int32_t a, int32_t b) { return ReluOf(Scaled(AddOf<false>{}(a, b), scale)); });
    }
  }
}

}  // namespace tilewright::twin
