// The transform of rows; compiled once per ISA level with -DTW_ISA=<level>.
//
// Sums of pairs 1, 2, 4, ... channels apart, then with H_m in the order of its plan: the same sums at every
// level, so all give the same bits.
#include "_rows/host_elements.hpp"
#include "hadamard/host_kernels.hpp"
#include "hadamard/host_mix.hpp"

namespace tw::hadamard::TW_ISA {
namespace {

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

// Vectors that are worked on in registers.
#if TW_LEVEL >= TW_LEVEL_avx512
constexpr int kMost = 16, kMostSteps = 4;
#else
constexpr int kMost = 8, kMostSteps = 3;
#endif

// 1 in lanes whose bit S is 0, -1 in the others.
template <int S>
TW_INLINE VF alternating() {
  alignas(64) float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = (i & S) != 0 ? -1.0f : 1.0f;
  return load(lanes);
}

// a + b in the lower lane of each pair, a - b in the upper; a product with 1 or -1 rounds nothing.
template <int S>
TW_INLINE VF pairs_within(VF v) {
  if constexpr (S < kLanes) {
    return pairs_within<2 * S>(fma(v, alternating<S>(), exchanged<S>(v)));
  } else {
    return v;
  }
}

// Sums and differences of N vectors Apart, 2 * Apart, ... apart.
template <int N, int Apart>
TW_INLINE void pairs(VF* v) {
  if constexpr (Apart < N) {
    unrolled<N / 2>([&](int p) TW_BODY {
      const int i = p / Apart * 2 * Apart + p % Apart;
      const VF a = v[i], b = v[i + Apart];
      v[i] = add(a, b);
      v[i + Apart] = sub(a, b);
    });
    pairs<N, 2 * Apart>(v);
  }
}

// The same of vectors in memory, `apart` floats apart.
template <int N>
TW_INLINE void pairs_in_memory(float* v, int64_t power, int64_t apart) {
  for (int64_t block = 0; block < power; block += N * apart) {
    for (int64_t i = block; i < block + apart; i += kLanes) {
      VF some[N];
      unrolled<N>([&](int j) TW_BODY { some[j] = load(v + i + j * apart); });
      pairs<N, 1>(some);
      unrolled<N>([&](int j) TW_BODY { store(v + i + j * apart, some[j]); });
    }
  }
}

// All steps from `apart` on. Rows of a register full further apart than this lie in few sets of the L1 cache.
constexpr int64_t kFarFloats = 512;

void sylvester(float* v, int64_t power, int64_t apart) {
  while (apart < power) {
    const int64_t left = power / apart;
    if (kMostSteps == 4 && left >= 16 && apart <= kFarFloats) {
      pairs_in_memory<kMost>(v, power, apart);
      apart *= kMost;
    } else if (left >= 8) {
      pairs_in_memory<8>(v, power, apart);
      apart *= 8;
    } else if (left >= 4) {
      pairs_in_memory<4>(v, power, apart);
      apart *= 4;
    } else {
      pairs_in_memory<2>(v, power, apart);
      apart *= 2;
    }
  }
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

// N vectors of elements through all steps among them. Of split pairs neighbours are in the same lane of two.
template <class E, int N>
TW_INLINE void front(const typename E::Element* x, VF* v) {
  if constexpr (N == 1) {
    v[0] = pairs_within<1>(E::load(x));
  } else {
    unrolled<N / 2>([&](int i) TW_BODY {
      const Pair p = E::load_pair(x + i * kPair);
      v[2 * i] = p.a;
      v[2 * i + 1] = p.b;
    });
    if constexpr (E::kSplit) {
      unrolled<N / 2>([&](int i) TW_BODY {
        const VF a = v[2 * i], b = v[2 * i + 1];
        v[2 * i] = add(a, b);
        v[2 * i + 1] = sub(a, b);
      });
    }
    unrolled<N>([&](int i) TW_BODY { v[i] = pairs_within<1>(v[i]); });
    pairs<N, E::kSplit ? 2 : 1>(v);
  }
}

// N vectors times a factor, as elements.
template <class E, int N>
TW_INLINE void back(const VF* v, VF by, typename E::Element* y) {
  if constexpr (N == 1) {
    E::store(y, mul(v[0], by));
  } else {
    unrolled<N / 2>(
        [&](int i) TW_BODY { E::store_pair(y + i * kPair, {mul(v[2 * i], by), mul(v[2 * i + 1], by)}); });
  }
}

// Blocks of N vectors, or of several times as many.
template <class E, class To, int N>
void transform_by(const Rows& rows) {
  using Element = typename E::Element;
  constexpr int kStep = N * kLanes;
  const int64_t d = rows.order * rows.power;
  const VF by = bcast(rows.factor);
  for (int64_t t = 0; t < rows.rows; ++t) {
    const auto* x = reinterpret_cast<const Element*>(rows.x.at(t));
    auto* y = reinterpret_cast<Element*>(rows.y.at(t));
    VF v[N];
    if (d == kStep) {
      front<E, N>(x, v);
      back<To, N>(v, by, y);
      continue;
    }
    float* room = rows.room;
    for (int64_t i = 0; i < d; i += kStep) {
      front<E, N>(x + i, v);
      unrolled<N>([&](int j) TW_BODY { store(room + i + j * kLanes, v[j]); });
    }
    for (int64_t c = 0; c < rows.order; ++c) sylvester(room + c * rows.power, rows.power, kStep);
    mixed<Lanes>(room, rows.order, rows.power);
    constexpr int kBack = N < 2 ? 1 : 2;
    for (int64_t i = 0; i < d; i += kBack * kLanes) {
      VF some[kBack];
      unrolled<kBack>([&](int j) TW_BODY { some[j] = load(room + i + j * kLanes); });
      back<To, kBack>(some, by, y + i);
    }
  }
}

// Blocks shorter than a vector, one element at a time.
template <class E>
void transform_short(const Rows& rows) {
  using Element = typename E::Element;
  const int64_t d = rows.order * rows.power;
  float* v = rows.room;
  for (int64_t t = 0; t < rows.rows; ++t) {
    const auto* x = reinterpret_cast<const Element*>(rows.x.at(t));
    auto* y = reinterpret_cast<Element*>(rows.y.at(t));
    for (int64_t i = 0; i < d; ++i) v[i] = E::widen(x[i]);
    for (int64_t c = 0; c < rows.order; ++c) sylvester_short(v + c * rows.power, rows.power);
    mixed<One>(v, rows.order, rows.power);
    for (int64_t i = 0; i < d; ++i) y[i] = E::narrow(v[i] * rows.factor);
  }
}

template <class E, class To>
TW_INLINE void transform_to(const Rows& rows) {
  const int64_t vectors = rows.power / kLanes;
  if (vectors == 1) return transform_by<E, To, 1>(rows);
  if (vectors == 2) return transform_by<E, To, 2>(rows);
  if (vectors == 4) return transform_by<E, To, 4>(rows);
  if (vectors == 8) return transform_by<E, To, 8>(rows);
  transform_by<E, To, kMost>(rows);
}

template <class E>
void transform(const Rows& rows) {
  if (rows.power < kLanes) return transform_short<E>(rows);
  if (!rows.stream) return transform_to<E, E>(rows);
  transform_to<E, Past<E>>(rows);
  streamed();
}

constexpr KernelTable kTable = {.transform = {transform<F32>, transform<BF16>, transform<F16>}};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::hadamard::TW_ISA
