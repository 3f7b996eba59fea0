// Activations as signed bytes: whole numbers times a power of two that a group shares.
//
// Of a group's largest value 30 bits are kept in four bytes and 22 in three, so fp32 values down to 2^-6 of
// it keep all their bits, and bf16 and fp16 ones down to 2^-14 and 2^-11. What is cut off of the others lies
// below 2^-29 or 2^-21 of the largest. A group with NaN or infinity makes its row NaN.
#pragma once

#include "gemm_w4/host_paths.hpp"

namespace tw::gemm_w4::TW_ISA {
namespace {

typedef int8_t Int8s __attribute__((vector_size(kLanes)));

TW_INLINE VF load_element(Kind kind, const char* at) {
  if (kind == kF32) return load(reinterpret_cast<const float*>(at));
  if (kind == kI8) {
    Int8s bytes;
    __builtin_memcpy(&bytes, at, sizeof bytes);
    return to_float((VI) __builtin_convertvector(bytes, Signed));
  }
  const auto* halves = reinterpret_cast<const uint16_t*>(at);
  return kind == kBF16 ? load_bf16(halves) : load_fp16(halves);
}

// The bits of the largest magnitude of k in [begin, end); of NaN and infinity they are the largest.
TW_INLINE uint32_t largest(const StageRow& s, int64_t begin, int64_t end) {
  Words most{};
  for (int64_t k = begin; k < end; k += kLanes) {
    const Words size = words((VI)load_element(s.kind, s.from + k * s.element)) & 0x7fffffffu;
    most = size > most ? size : most;
  }
  uint32_t found = 0;
  for (int i = 0; i < kLanes; ++i) found = most[i] > found ? most[i] : found;
  return found;
}

TW_INLINE float power_of_two(int exponent) {
  const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// 2^exponent as a product, since it need not be a normal number.
struct Power {
  float first, second;
  explicit Power(int exponent)
      : first(power_of_two(exponent / 2)), second(power_of_two(exponent - exponent / 2)) {}
};

// Splits 32 whole numbers into their bytes, each signed, and adds up those.
template <int P>
TW_INLINE void split(int32_t* values, int8_t* to, int32_t* wholes) {
  for (int p = 0; p < P; ++p) {
    int32_t sum = 0;
    for (int i = 0; i < kBlock; ++i) {
      const auto byte = static_cast<int8_t>(values[i]);
      to[p * kBlock + i] = byte;
      sum += byte;
      values[i] = (values[i] - byte) >> 8;
    }
    wholes[p / 2] += p % 2 == 0 ? sum : sum * 256;
  }
}

template <int P>
void stage_group(const StageRow& s, int64_t begin, int64_t end, int64_t group) {
  constexpr int kTop = 8 * P - 3;      // the largest value becomes 2^kTop or more, and less than twice that
  constexpr int kLowest = kTop - 149;  // what is shared must not vanish
  constexpr uint32_t kNotFinite = 0x7f800000u;
  int32_t* const wholes = s.wholes + 2 * group;
  wholes[0] = wholes[1] = 0;
  const uint32_t bits = largest(s, begin, end);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  const int lift = kTop - (exponent < kLowest ? kLowest : exponent);
  const Power up(lift), down(-lift);
  s.factors[group] = bits < kNotFinite ? down.first * down.second : __builtin_nanf("");
  for (int64_t k = begin; k < end; k += kBlock) {
    int32_t values[kBlock] = {};
    for (int i = 0; i < kBlock && bits < kNotFinite; i += kLanes) {
      const VF x = load_element(s.kind, s.from + (k + i) * s.element);
      const Signed whole = __builtin_convertvector(mul(mul(x, bcast(up.first)), bcast(up.second)), Signed);
      __builtin_memcpy(values + i, &whole, sizeof whole);
    }
    split<P>(values, reinterpret_cast<int8_t*>(s.to) + k * P, wholes);
  }
  const double sum = wholes[0] + 65536.0 * wholes[1];
  s.sums[group] = static_cast<float>(sum * s.factors[group]);
}

void stage_int8(const StageRow& s, int64_t begin, int64_t end, int64_t group) {
  const auto* from = reinterpret_cast<const int8_t*>(s.from);
  int32_t sum = 0;
  for (int64_t k = begin; k < end; ++k) sum += from[k];
  __builtin_memcpy(s.to + begin, from + begin, static_cast<uint64_t>(end - begin));
  s.wholes[2 * group] = sum;
  s.sums[group] = static_cast<float>(sum);
}

// `from` is read to the end of 32 k.
void stage_bytes(const StageRow& s) {
  const int64_t padded = (s.k + kBlock - 1) / kBlock * kBlock;
  for (int64_t begin = 0, group = 0; begin < padded; begin += s.group, ++group) {
    const int64_t end = begin + s.group < padded ? begin + s.group : padded;
    if (s.kind == kI8) {
      stage_int8(s, begin, end, group);
    } else if (s.kind == kF32) {
      stage_group<4>(s, begin, end, group);
    } else {
      stage_group<3>(s, begin, end, group);
    }
  }
}

}  // namespace
}  // namespace tw::gemm_w4::TW_ISA
