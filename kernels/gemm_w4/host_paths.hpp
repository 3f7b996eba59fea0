// The products of a level: how a word of 8 codes a lane is unpacked and multiplied.
//
//   Acc                 the type of a group's partial sum
//   kMostRows           rows of a tile where there are 32 registers
//   kSteps              products a word takes
//   start(zero, sums)   what a group's sum begins with
//   kShared             whether all columns have one zero code, which then is in a table
//   table(zero)         what every word is unpacked with
//   weights<I>(v, z, t) operand of step I from a word of codes, the zero codes and the table
//   dot<I>(acc, a, w)   acc plus the products of step I
//   whole(acc)          a group's sum as floats
//   Few, few(zero)      the path of up to kFewRows rows, and for which zero codes
#pragma once

#include "_host/simd/math.hpp"
#include "gemm_w4/host_kernels.hpp"

namespace tw::gemm_w4::TW_ISA {
namespace {

using namespace tw::TW_ISA;

typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef int32_t Signed __attribute__((vector_size(4 * kLanes)));
typedef float Real __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(4 * kLanes)));

TW_INLINE Words words(VI v) { return (Words)v; }
TW_INLINE VI lanes(Words v) { return (VI)v; }

// fp32 products of code minus zero, exact before they are multiplied.
template <bool Shared>
struct Floats {
  using Acc = VF;
  using Few = Floats<TW_LEVEL >= TW_LEVEL_avx512>;
  static constexpr int kMostRows = 12, kFewRows = 4;
  static constexpr Stage kStage = kFloats;
  static constexpr bool kNeedsSums = false, kShared = Shared;
  static constexpr int kSteps = 8, kStepBytes = 4;

  TW_INLINE bool few(Zero zero) { return zero != kAsym; }
  TW_INLINE Acc start(VI, float) { return zero_f(); }
#if TW_LEVEL >= TW_LEVEL_avx512
  TW_INLINE VF table(Zero zero) {
    const Real codes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return sub((VF)codes, bcast(Shared && zero == kSym ? 8.0f : 0.0f));
  }
  template <int I>
  TW_INLINE VF weights(VI v, VI zero, VF table) {
    constexpr int shift = I < 4 ? 8 * I : 8 * (I - 4) + 4;
    // A shuffle looks at the low four bits alone.
    const VF code = (VF)__builtin_shuffle((Real)table, words(v) >> shift);
    return Shared ? code : sub(code, to_float(zero));
  }
#else
  TW_INLINE VF table(Zero) { return zero_f(); }
  template <int I>
  TW_INLINE VF weights(VI v, VI zero, VF) {
    constexpr int shift = I < 4 ? 8 * I : 8 * (I - 4) + 4;
    return to_float(lanes(((words(v) >> shift) & 15u) - words(zero)));
  }
#endif
  TW_INLINE VF activation(const char* a) {
    float x;
    __builtin_memcpy(&x, a, sizeof x);
    return bcast(x);
  }
  template <int>
  TW_INLINE Acc dot(Acc acc, VF a, VF w) {
    return fma(a, w, acc);
  }
  TW_INLINE VF whole(Acc acc) { return acc; }
};

TW_INLINE VI activation_word(const char* a) {
  uint32_t x;
  __builtin_memcpy(&x, a, sizeof x);
  return bcast_i(x);
}

// Nibbles of k = (0, 2), (1, 3), (4, 6), (5, 7) in 16-bit halves.
constexpr int kPairShift[4] = {0, 8, 4, 12};
template <int I>
TW_INLINE Words pair(VI v) {
  return (words(v) >> kPairShift[I]) & 0x000f000fu;
}

#if TW_LEVEL >= TW_LEVEL_avx512
// Dot products of bf16 pairs: codes minus zero have 5 bits and are exact in bf16.
template <bool Shared>
struct Bf16Pairs {
  using Acc = VF;
  using Few = Bf16Pairs<true>;
  static constexpr int kMostRows = 12, kFewRows = 4;
  static constexpr Stage kStage = kPairs16;
  static constexpr bool kNeedsSums = false, kShared = Shared;
  static constexpr int kSteps = 4, kStepBytes = 4;

  TW_INLINE bool few(Zero zero) { return zero != kAsym; }
  TW_INLINE Acc start(VI, float) { return zero_f(); }
  // Of a shared zero: every code twice, since a shuffle looks at five bits, of which the fifth is another
  // code's.
  TW_INLINE Halves table(Zero zero) {
    if (!Shared) {
      return Halves{0xc170, 0xc160, 0xc150, 0xc140, 0xc130, 0xc120, 0xc110, 0xc100,   // -15 to -8
                    0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000,   // to 0
                    0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100,   // to 8
                    0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0x0000};  // to 15
    }
    const Halves middle = {0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
                           0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                           0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
                           0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
    const Halves codes = {0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                          0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170,
                          0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                          0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};
    return zero == kSym ? middle : codes;
  }
  template <int I>
  TW_INLINE VI weights(VI v, VI zero, Halves table) {
    if (Shared) return lanes((Words)__builtin_shuffle(table, (Halves)(words(v) >> kPairShift[I])));
    const Words index = pair<I>(v) + (Words{} + 0x000f000fu) - words(zero) * 0x00010001u;
    return lanes((Words)__builtin_shuffle(table, (Halves)index));
  }
  TW_INLINE VI activation(const char* a) { return activation_word(a); }
  template <int>
  TW_INLINE Acc dot(Acc acc, VI a, VI w) {
    return dpbf16(acc, a, w);
  }
  TW_INLINE VF whole(Acc acc) { return acc; }
};

using Bf16Vectors = Bf16Pairs<false>;
#else
using Bf16Vectors = Floats<false>;
#endif

// Exact sums of int8 times unsigned codes; zero codes are paid once a group, from the sum of activations.
struct BytesFew;
struct Bytes {
  using Acc = VI;
  using Few = BytesFew;
  static constexpr int kMostRows = 6, kFewRows = 2;
  static constexpr Stage kStage = kBytes;
  static constexpr bool kNeedsSums = true, kShared = false;
  static constexpr int kSteps = 2, kStepBytes = 4;

  TW_INLINE bool few(Zero) { return kLanes == 16; }
  TW_INLINE int table(Zero) { return 0; }
  TW_INLINE Acc start(VI zero, float sum) {
    const auto whole = static_cast<int32_t>(-sum);  // within +-128 * 128, a signed half
    return madd16(zero, bcast_i(static_cast<uint16_t>(whole)));
  }
  template <int I>
  TW_INLINE VI weights(VI v, VI, int) {
    return lanes((words(v) >> (4 * I)) & 0x0f0f0f0fu);
  }
  TW_INLINE VI activation(const char* a) { return activation_word(a); }
  template <int>
  TW_INLINE Acc dot(Acc acc, VI a, VI w) {
    return dpbusd(acc, w, a);
  }
  TW_INLINE VF whole(Acc acc) { return to_float(acc); }
};

// High nibbles stay where they are: their sum is 16 times as large and is shifted once a group.
struct BytesFew : Bytes {
  struct Acc {
    VI low, high;
  };
  TW_INLINE Acc start(VI zero, float sum) { return {Bytes::start(zero, sum), zero_i()}; }
  template <int I>
  TW_INLINE VI weights(VI v, VI, int) {
    return lanes(words(v) & (I == 0 ? 0x0f0f0f0fu : 0xf0f0f0f0u));
  }
  template <int I>
  TW_INLINE Acc dot(Acc acc, VI a, VI w) {
    if (I == 0) return {dpbusd(acc.low, w, a), acc.high};
    return {acc.low, dpbusd(acc.high, w, a)};
  }
  TW_INLINE VF whole(Acc acc) { return to_float(::tw::TW_ISA::add(acc.low, (VI)((Signed)acc.high >> 4))); }
};

// The same sums without dot products of bytes.
struct Int16Pairs {
  using Acc = VI;
  using Few = Int16Pairs;
  static constexpr int kMostRows = 6, kFewRows = 0;
  static constexpr Stage kStage = kPairs16;
  static constexpr bool kNeedsSums = false, kShared = false;
  static constexpr int kSteps = 4, kStepBytes = 4;

  TW_INLINE bool few(Zero) { return false; }
  TW_INLINE int table(Zero) { return 0; }
  TW_INLINE Acc start(VI, float) { return zero_i(); }
  template <int I>
  TW_INLINE VI weights(VI v, VI zero, int) {
    return lanes((Words)((Halves)pair<I>(v) - (Halves)(words(zero) * 0x00010001u)));
  }
  TW_INLINE VI activation(const char* a) { return activation_word(a); }
  template <int>
  TW_INLINE Acc dot(Acc acc, VI a, VI w) {
    return madd16_add(acc, a, w);
  }
  TW_INLINE VF whole(Acc acc) { return to_float(acc); }
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
