// Largest values, sums of powers and candidates of blocks of logits; compiled once per ISA level with
// -DTW_ISA=<level>.
#include "_host/simd/math.hpp"
#include "beam_topk/host_kernels.hpp"

namespace tw::beam_topk::TW_ISA {
namespace {

using namespace tw::TW_ISA;

#if defined(TW_EMULATE) || TW_LEVEL == TW_LEVEL_scalar
TW_INLINE VF load_bytes(const int8_t* p) {
  VF v{};
  for (int i = 0; i < kLanes; ++i) v[i] = p[i];
  return v;
}
#elif TW_LEVEL >= TW_LEVEL_avx512
TW_INLINE VF load_bytes(const int8_t* p) {
  return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
#else
TW_INLINE VF load_bytes(const int8_t* p) {
  return to_float(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
#endif

struct F32 {
  using Element = float;
  TW_INLINE VF load(const float* p) { return tw::TW_ISA::load(p); }
  static float widen(float v) { return v; }
};
struct BF16 {
  using Element = uint16_t;
  TW_INLINE VF load(const uint16_t* p) { return load_bf16(p); }
  static float widen(uint16_t v) { return bf16_to_float(v); }
};
struct F16 {
  using Element = uint16_t;
  TW_INLINE VF load(const uint16_t* p) { return load_fp16(p); }
  static float widen(uint16_t v) { return fp16_to_float(v); }
};
struct I8 {
  using Element = int8_t;
  TW_INLINE VF load(const int8_t* p) { return load_bytes(p); }
  static float widen(int8_t v) { return v; }
};

float largest_lane(VF v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int n = kLanes / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) lanes[i] = lanes[i] > lanes[i + n] ? lanes[i] : lanes[i + n];
  }
  return lanes[0];
}

// The last vector of a block, -inf where there is no logit.
template <class E>
VF load_tail(const typename E::Element* x, int64_t n) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i < n ? E::widen(x[i]) : kLowest;
  return load(lanes);
}

// 2^(scale * (x - most)) for x up to most, which is finite; 0 for NaN and -inf, 1 for +inf.
TW_INLINE VF weight(VF x, VF most, VF scale) {
  VF below = sub(x, most);
  below = select(greater(below, zero_f()), zero_f(), below);
  return select(equal(x, x), exp2_of<5>(mul(below, scale)), zero_f());
}

template <class E>
float largest_of(const typename E::Element* x, int64_t n) {
  VF a = bcast(kLowest), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    a = larger(E::load(x + i), a);
    b = larger(E::load(x + i + kLanes), b);
    c = larger(E::load(x + i + 2 * kLanes), c);
    d = larger(E::load(x + i + 3 * kLanes), d);
  }
  for (; i + kLanes <= n; i += kLanes) a = larger(E::load(x + i), a);
  if (i < n) b = larger(load_tail<E>(x + i, n - i), b);
  const float found = largest_lane(larger(larger(a, b), larger(c, d)));
  return found > kLargest ? kLargest : found;
}

template <class E>
void scan(const void* from, int64_t n, float scale, float* largest, float* sum) {
  const auto* x = static_cast<const typename E::Element*>(from);
  *largest = largest_of<E>(x, n);
  *sum = 0.0f;
  if (scale == 0.0f || *largest == kLowest) return;
  const VF most = bcast(*largest), factor = bcast(scale);
  VF a = zero_f(), b = zero_f();
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    a = add(a, weight(E::load(x + i), most, factor));
    b = add(b, weight(E::load(x + i + kLanes), most, factor));
  }
  for (; i + kLanes <= n; i += kLanes) a = add(a, weight(E::load(x + i), most, factor));
  if (i < n) b = add(b, weight(load_tail<E>(x + i, n - i), most, factor));
  *sum = tw::TW_ISA::sum(add(a, b));
}

// clamp(rint((x - largest) * 255 / 16), -255, 0) + 127.
float code_of(float x, float largest) {
  const float scaled = __builtin_rintf((x - largest) * 15.9375f);
  return (scaled < -255.0f ? -255.0f : scaled) + 127.0f;
}

void insert(float value, int64_t id, Kept* kept) {
  const float key = kept->coarse ? code_of(value, kept->largest) : value;
  if (kept->count == kept->capacity) {
    if (!(key > kept->found[kept->count - 1].key)) return;
    --kept->count;
  }
  int64_t at = kept->count++;
  for (; at > 0 && key > kept->found[at - 1].key; --at) kept->found[at] = kept->found[at - 1];
  kept->found[at] = {key, value, id};
}

TW_INLINE void collect_lanes(VF v, int64_t n, int64_t id, float* least, Kept* kept) {
  const VF bound = bcast(*least);
  if (!any(greater(v, bound)) && !any(equal(v, bound))) return;
  float lanes[kLanes];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) {
    if (!(lanes[i] >= *least) || lanes[i] == kLowest) continue;
    insert(lanes[i] > kLargest ? kLargest : lanes[i], id + i, kept);
  }
  if (kept->coarse || kept->count < kept->capacity) return;
  const float last = kept->found[kept->count - 1].key;
  if (last > *least) *least = last;
}

template <class E>
void collect(const void* from, int64_t n, int64_t id, float least, Kept* kept) {
  const auto* x = static_cast<const typename E::Element*>(from);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) collect_lanes(E::load(x + i), kLanes, id + i, &least, kept);
  if (i < n) collect_lanes(load_tail<E>(x + i, n - i), n - i, id + i, &least, kept);
}

float combine(const float* largest, const float* sums, int64_t n, float most, float scale) {
  const VF top = bcast(most), factor = bcast(scale);
  VF total = zero_f();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    total = fma(load(sums + i), weight(load(largest + i), top, factor), total);
  }
  if (i < n) {
    float tail[kLanes] = {};
    for (int64_t j = 0; i + j < n; ++j) tail[j] = sums[i + j];
    total = fma(load(tail), weight(load_tail<F32>(largest + i, n - i), top, factor), total);
  }
  return tw::TW_ISA::sum(total);
}

constexpr KernelTable kTable = {
    .scan = {scan<F32>, scan<BF16>, scan<F16>, scan<I8>},
    .collect = {collect<F32>, collect<BF16>, collect<F16>, collect<I8>},
    .combine = combine,
};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::beam_topk::TW_ISA
