// The products of a level: how a word of 8 codes a lane is unpacked and multiplied.
//
//   Acc                 the type of a group's partial sum
//   kMostRows           rows of a tile where there are 32 registers
//   kSteps              products a word takes
//   start(zero, sums)   what a group's sum begins with
//   weights<I>(v, z)    operand of step I from a word of codes and the zero codes
//   dot(acc, a, w)      acc plus the products of one step
#pragma once

#include "_host/simd/math.hpp"
#include "gemm_w4/host_kernels.hpp"

namespace tw::gemm_w4::TW_ISA {
namespace {

using namespace tw::TW_ISA;

typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef float Real __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(4 * kLanes)));

TW_INLINE Words words(VI v) { return (Words)v; }
TW_INLINE VI lanes(Words v) { return (VI)v; }
TW_INLINE VF float_of(VI v) { return to_float(v); }
TW_INLINE VF float_of(VF v) { return v; }

// fp32 products of code minus zero, exact before they are multiplied.
struct Floats {
  using Acc = VF;
  static constexpr int kMostRows = 12;
  static constexpr Stage kStage = kFloats;
  static constexpr bool kNeedsSums = false;
  static constexpr int kSteps = 8, kStepBytes = 4;

  TW_INLINE Acc start(VI, float) { return zero_f(); }
  template <int I>
  TW_INLINE VF weights(VI v, VI zero) {
    constexpr int shift = I < 4 ? 8 * I : 8 * (I - 4) + 4;
#if TW_LEVEL >= TW_LEVEL_avx512
    // A shuffle looks at the low four bits alone.
    const Real table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return sub((VF)__builtin_shuffle(table, words(v) >> shift), to_float(zero));
#else
    return to_float(lanes(((words(v) >> shift) & 15u) - words(zero)));
#endif
  }
  TW_INLINE VF activation(const char* a) {
    float x;
    __builtin_memcpy(&x, a, sizeof x);
    return bcast(x);
  }
  TW_INLINE Acc dot(Acc acc, VF a, VF w) { return fma(a, w, acc); }
};

TW_INLINE VI activation_word(const char* a) {
  uint32_t x;
  __builtin_memcpy(&x, a, sizeof x);
  return bcast_i(x);
}

// Nibbles of k = (0, 2), (1, 3), (4, 6), (5, 7) in 16-bit halves.
template <int I>
TW_INLINE Words pair(VI v) {
  constexpr int shift = I == 0 ? 0 : I == 1 ? 8 : I == 2 ? 4 : 12;
  return (words(v) >> shift) & 0x000f000fu;
}

#if TW_LEVEL >= TW_LEVEL_avx512
// Dot products of bf16 pairs: codes minus zero have 5 bits and are exact in bf16.
struct Bf16Pairs {
  using Acc = VF;
  static constexpr int kMostRows = 12;
  static constexpr Stage kStage = kPairs16;
  static constexpr bool kNeedsSums = false;
  static constexpr int kSteps = 4, kStepBytes = 4;

  TW_INLINE Acc start(VI, float) { return zero_f(); }
  template <int I>
  TW_INLINE VI weights(VI v, VI zero) {
    const Words index = pair<I>(v) + (Words{} + 0x000f000fu) - words(zero) * 0x00010001u;
    return lanes((Words)value_of((Halves)index));
  }
  TW_INLINE VI activation(const char* a) { return activation_word(a); }
  TW_INLINE Acc dot(Acc acc, VI a, VI w) { return dpbf16(acc, a, w); }

 private:
  // bf16 of i - 15 for i from 0 to 30.
  TW_INLINE Halves value_of(Halves index) {
    const Halves table = {0xc170, 0xc160, 0xc150, 0xc140, 0xc130, 0xc120, 0xc110, 0xc100,
                          0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000,
                          0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100,
                          0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0x0000};
    return __builtin_shuffle(table, index);
  }
};

using Bf16 = Bf16Pairs;
#else
using Bf16 = Floats;
#endif

// Exact sums of int8 times unsigned codes; zero codes are paid once a group, from the sum of activations.
struct Bytes {
  using Acc = VI;
  static constexpr int kMostRows = 6;
  static constexpr Stage kStage = kBytes;
  static constexpr bool kNeedsSums = true;
  static constexpr int kSteps = 2, kStepBytes = 4;

  TW_INLINE Acc start(VI zero, float sum) {
    const auto whole = static_cast<int32_t>(-sum);  // within +-128 * 128, a signed half
    return madd16(zero, bcast_i(static_cast<uint16_t>(whole)));
  }
  template <int I>
  TW_INLINE VI weights(VI v, VI) {
    return lanes((words(v) >> (4 * I)) & 0x0f0f0f0fu);
  }
  TW_INLINE VI activation(const char* a) { return activation_word(a); }
  TW_INLINE Acc dot(Acc acc, VI a, VI w) { return dpbusd(acc, w, a); }
};

// The same sums without dot products of bytes.
struct Int16Pairs {
  using Acc = VI;
  static constexpr int kMostRows = 6;
  static constexpr Stage kStage = kPairs16;
  static constexpr bool kNeedsSums = false;
  static constexpr int kSteps = 4, kStepBytes = 4;

  TW_INLINE Acc start(VI, float) { return zero_i(); }
  template <int I>
  TW_INLINE VI weights(VI v, VI zero) {
    return lanes((Words)((Halves)pair<I>(v) - (Halves)(words(zero) * 0x00010001u)));
  }
  TW_INLINE VI activation(const char* a) { return activation_word(a); }
  TW_INLINE Acc dot(Acc acc, VI a, VI w) { return madd16_add(acc, a, w); }
};

// Zero codes of a group, one a lane.
TW_INLINE VI zero_codes(const Job& j, int64_t panel, int64_t group, int vec) {
  if (j.kind_of_zero == kMin) return zero_i();
  if (j.kind_of_zero == kSym) return bcast_i(8);
  uint32_t wide[kLanes];
  const uint8_t* at = j.zero + panel * j.zero_step + group * kPanelCols + vec * kLanes;
  for (int i = 0; i < kLanes; ++i) wide[i] = at[i] & 15u;
  return load_i(wide);
}

// Rounds to the output and writes what of the lanes exists.
TW_INLINE void put(const Job& j, int64_t row, int64_t col, VF v) {
  char* at = j.c + (row * j.c_row + col * j.c_col) * (j.out == kOutF32 ? 4 : 2);
  if (j.c_col == 1 && col + kLanes <= j.cols) {
    if (j.out == kOutF32) return store(reinterpret_cast<float*>(at), v);
    auto* to = reinterpret_cast<uint16_t*>(at);
    return j.out == kOutBF16 ? store_bf16(to, v) : store_fp16(to, v);
  }
  float part[kLanes];
  store(part, v);
  for (int64_t i = 0; i < kLanes && col + i < j.cols; ++i) {
    if (j.out == kOutF32) {
      reinterpret_cast<float*>(at)[i * j.c_col] = part[i];
    } else {
      reinterpret_cast<uint16_t*>(at)[i * j.c_col] =
          j.out == kOutBF16 ? float_to_bf16(part[i]) : float_to_fp16(part[i]);
    }
  }
}

}  // namespace
}  // namespace tw::gemm_w4::TW_ISA
