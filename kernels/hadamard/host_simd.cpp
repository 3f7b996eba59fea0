// The transform of one row; compiled once per ISA level with -DTW_ISA=<level>.
//
// Sums of pairs 1, 2, 4, ... channels apart, then with H_m, term after term: the same sums at every level, so
// all give the same bits.
#include "_rows/host_elements.hpp"
#include "hadamard/host_kernels.hpp"

namespace tw::hadamard::TW_ISA {
namespace {

using namespace tw::TW_ISA;

// Lanes i and i ^ S exchanged.
#if defined(TW_EMULATE) || TW_LEVEL == TW_LEVEL_scalar
template <int S>
TW_INLINE VF exchanged(VF v) {
  VF r{};
  for (int i = 0; i < kLanes; ++i) r[i] = v[i ^ S];
  return r;
}
#elif TW_LEVEL >= TW_LEVEL_avx512
template <int S>
TW_INLINE VF exchanged(VF v) {
  if constexpr (S == 1) return _mm512_permute_ps(v, 0xb1);
  if constexpr (S == 2) return _mm512_permute_ps(v, 0x4e);
  if constexpr (S == 4) return _mm512_shuffle_f32x4(v, v, 0xb1);
  if constexpr (S == 8) return _mm512_shuffle_f32x4(v, v, 0x4e);
}
#else
template <int S>
TW_INLINE VF exchanged(VF v) {
  if constexpr (S == 1) return _mm256_permute_ps(v, 0xb1);
  if constexpr (S == 2) return _mm256_permute_ps(v, 0x4e);
  if constexpr (S == 4) return _mm256_permute2f128_ps(v, v, 0x01);
}
#endif

// 1 in lanes whose bit S is 0, -1 in the others.
template <int S>
TW_INLINE VF alternating() {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = (i & S) != 0 ? -1.0f : 1.0f;
  return load(lanes);
}

// a + b in the lower lane of each pair, a - b in the upper.
template <int S>
TW_INLINE VF pairs_within(VF v) {
  if constexpr (S < kLanes) {
    return pairs_within<2 * S>(add(exchanged<S>(v), mul(v, alternating<S>())));
  } else {
    return v;
  }
}

// Sums of pairs `apart` channels apart, all lanes of a vector in one block.
TW_INLINE void pairs(float* v, int64_t power, int64_t apart) {
  for (int64_t block = 0; block < power; block += 2 * apart) {
    for (int64_t i = block; i < block + apart; i += kLanes) {
      const VF a = load(v + i), b = load(v + i + apart);
      store(v + i, add(a, b));
      store(v + i + apart, sub(a, b));
    }
  }
}

// Two steps in one trip through memory.
TW_INLINE void fours(float* v, int64_t power, int64_t apart) {
  for (int64_t block = 0; block < power; block += 4 * apart) {
    for (int64_t i = block; i < block + apart; i += kLanes) {
      const VF a = load(v + i), b = load(v + i + apart);
      const VF c = load(v + i + 2 * apart), d = load(v + i + 3 * apart);
      const VF ab = add(a, b), ba = sub(a, b), cd = add(c, d), dc = sub(c, d);
      store(v + i, add(ab, cd));
      store(v + i + apart, add(ba, dc));
      store(v + i + 2 * apart, sub(ab, cd));
      store(v + i + 3 * apart, sub(ba, dc));
    }
  }
}

void sylvester(float* v, int64_t power) {
  int64_t apart = kLanes;
  for (; 4 * apart <= power; apart *= 4) fours(v, power, apart);
  if (2 * apart <= power) pairs(v, power, apart);
}

// Where a vector spans more than one block.
void sylvester_short(float* v, int64_t power) {
  for (int64_t apart = 1; apart < power; apart *= 2) {
    for (int64_t i = 0; i < power; ++i) {
      if ((i & apart) != 0) continue;
      const float a = v[i], b = v[i + apart];
      v[i] = a + b;
      v[i + apart] = a - b;
    }
  }
}

// Row a of H_m times lanes of its `order` blocks, kLanes at most; the sum begins with the first term.
TW_INLINE VF mixed(const Row& row, const float* v, const float* signs, int64_t i) {
  VF sum = mul(load(v + i), bcast(signs[0]));
  for (int64_t c = 1; c < row.order; ++c) {
    sum = add(sum, mul(load(v + c * row.power + i), bcast(signs[c])));
  }
  return sum;
}

template <class E>
void transform(const Row& row) {
  using Element = typename E::Element;
  const auto* x = reinterpret_cast<const Element*>(row.x);
  auto* y = reinterpret_cast<Element*>(row.y);
  const int64_t d = row.order * row.power;
  float* v = row.room;
  const VF by = bcast(row.factor);
  if (row.power >= kLanes) {
    for (int64_t i = 0; i < d; i += kLanes) store(v + i, pairs_within<1>(E::load(x + i)));
    for (int64_t c = 0; c < row.order; ++c) sylvester(v + c * row.power, row.power);
  } else {
    for (int64_t i = 0; i < d; ++i) v[i] = E::widen(x[i]);
    for (int64_t c = 0; c < row.order; ++c) sylvester_short(v + c * row.power, row.power);
  }
  for (int64_t a = 0; a < row.order; ++a) {
    const float* signs = row.signs + a * row.order;
    for (int64_t i = 0; i < row.power; i += kLanes) {
      const VF sum = mul(mixed(row, v, signs, i), by);
      Element* to = y + a * row.power + i;
      if (i + kLanes <= row.power) {
        E::store(to, sum);
      } else {
        store_some<E>(to, sum, row.power - i);
      }
    }
  }
}

constexpr KernelTable kTable = {.transform = {transform<F32>, transform<BF16>, transform<F16>}};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::hadamard::TW_ISA
