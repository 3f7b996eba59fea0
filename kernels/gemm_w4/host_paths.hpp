// The products of a level: how a word of 8 codes a lane is unpacked and multiplied.
//
//   Part, Acc            what some k of a vector of columns sum to for a row, and a group
//   kHeld                whether one Part holds a whole group, or 32 k alone
//   kSteps, kBlockBytes  products that a word takes, and bytes of 32 staged k
//   kRows                rows of a tile at most
//   vectors(rows)        vectors of columns of a tile: enough to keep multipliers busy, and no more than
//                        leaves sums in registers
//   kShared              whether all columns have one zero code, which then is in a table
//   table(zero)          what every word is unpacked with
//   weights<I>(v, z, t)  operand of step I from a word of codes, the zero codes and the table
//   dot<I>(part, a, w)   part plus the products of step I with the activations of a word at `a`
//   begin(j, ...)        what a group's sum begins with
//   take(acc, part)      acc plus a Part
//   whole(j, ...)        a group's sum as floats
//   Few, few(zero)       the path of up to kFewRows rows, and for which zero codes
#pragma once

#include "_host/simd/math.hpp"
#include "gemm_w4/host_kernels.hpp"

namespace tw::gemm_w4::TW_ISA {
namespace {

using namespace tw::TW_ISA;

typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef int32_t Signed __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(4 * kLanes)));

TW_INLINE Words words(VI v) { return (Words)v; }
TW_INLINE VI lanes(Words v) { return (VI)v; }

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
  using Part = VF;
  using Acc = VF;
  using Few = Bf16Pairs<true>;
  static constexpr bool kHeld = true, kShared = Shared;
  static constexpr int kSteps = 4, kBlockBytes = 64, kRows = 12, kFewRows = 4;

  static constexpr int vectors(int rows) { return rows <= 2 ? 4 : rows <= 6 ? 2 : 1; }
  TW_INLINE bool few(Zero zero) { return zero != kAsym; }
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
  template <int I>
  TW_INLINE Part dot(Part part, const char* a, VI w) {
    return dpbf16(part, activation_word(a + 4 * I), w);
  }
  TW_INLINE Acc begin(const Job&, VI, int64_t) { return zero_f(); }
  TW_INLINE Acc take(Acc, Part part) { return part; }
  TW_INLINE VF whole(const Job&, Acc acc, int64_t) { return acc; }
};
#endif

// Whole numbers, exactly: activations are P signed bytes times what a group of them shares, see
// `stage_bytes`, and codes are unsigned ones. Zero codes are paid once a group, from the sums of the
// activations. `Apart`: high nibbles stay where they are, so that their sums are 16 times as large and are
// shifted once a group.
template <int P, bool Apart = false>
struct Bytes {
  struct Part {
    VI sum[Apart ? 2 * P : P];
  };
  // low + 2^16 high
  struct Acc {
    VI low, high;
  };
  using Few = Bytes<P, kHasDpbusd && kLanes == 16>;
  // Sums of 16 bits hold 32 products of pairs: 8 times 2 * 15 * 128.
  static constexpr bool kHeld = kHasDpbusd, kShared = true;
  static constexpr int kSteps = 2, kBlockBytes = P * kBlock, kFewRows = 2;
  static constexpr int kRows = kLanes == 16 ? 6 : P == 1 ? 4 : 3;

  static constexpr int vectors(int rows) {
    if (P == 1) return rows <= (kLanes == 16 ? 2 : 1) ? 4 : 2;
    return rows == 1 ? 2 : 1;
  }
  TW_INLINE bool few(Zero) { return true; }
  TW_INLINE int table(Zero) { return 0; }
  template <int I>
  TW_INLINE VI weights(VI v, VI, int) {
    if (Apart) return lanes(words(v) & (I == 0 ? 0x0f0f0f0fu : 0xf0f0f0f0u));
    return lanes((words(v) >> (4 * I)) & 0x0f0f0f0fu);
  }
  template <int I>
  TW_INLINE Part dot(Part part, const char* a, VI w) {
    unrolled<P>([&](int p) TW_BODY {
      const VI x = activation_word(a + p * kBlock + 4 * I);
      VI& sum = part.sum[Apart ? 2 * p + I : p];
      sum = kHasDpbusd ? dpbusd(sum, w, x) : dot_bytes16(sum, w, x);
    });
    return part;
  }
  TW_INLINE Acc begin(const Job& j, VI zero, int64_t at) {
    if (j.kind_of_zero == kMin) return {zero_i(), zero_i()};
    const int32_t* whole = j.wholes + 2 * at;
    auto times = [&](int32_t sum) TW_BODY {
      const auto less = static_cast<uint32_t>(-sum);
      return j.kind_of_zero == kSym ? bcast_i(8 * less) : lanes(words(zero) * words(bcast_i(less)));
    };
    return {times(whole[0]), P > 2 ? times(whole[1]) : zero_i()};
  }
  TW_INLINE Acc take(Acc acc, Part part) {
    acc.low = plus<1>(acc.low, part, 0);
    if (P > 1) acc.low = plus<256>(acc.low, part, 1);
    if (P > 2) acc.high = plus<1>(acc.high, part, 2);
    if (P > 3) acc.high = plus<256>(acc.high, part, 3);
    return acc;
  }
  TW_INLINE VF whole(const Job& j, Acc acc, int64_t at) {
    if (P == 1) return to_float(acc.low);
    return mul(fma(to_float(acc.high), bcast(65536.0f), to_float(acc.low)), bcast(j.factors[at]));
  }

 private:
  // acc plus `Factor` times the sums of a part, which may not be there.
  template <int Factor>
  TW_INLINE VI plus(VI acc, const Part& part, int p) {
    if (!kHasDpbusd) return madd16_add(acc, part.sum[p], bcast_i(Factor * 0x00010001u));
    Words sum = words(part.sum[Apart ? 2 * p : p]);
    if (Apart) sum += (Words)((Signed)part.sum[2 * p + 1] >> 4);
    return lanes(words(acc) + sum * static_cast<uint32_t>(Factor));
  }
};

// Zero codes of a group of a vector of columns, one a lane.
TW_INLINE VI zero_codes(const Job& j, int64_t vector, int64_t group) {
  if (j.kind_of_zero == kMin) return zero_i();
  if (j.kind_of_zero == kSym) return bcast_i(8);
  uint32_t wide[kLanes];
  const uint8_t* at =
      j.zero + vector / kPanelVecs * j.zero_step + group * kPanelCols + vector % kPanelVecs * kLanes;
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
