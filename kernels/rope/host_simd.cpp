// Turning the pairs of a token's heads; compiled once per ISA level with -DTW_ISA=<level>.
//
// Products and sums round one by one, in the same order at every level and in tails, so that all levels give
// the same bits.
#include "_rows/host_elements.hpp"
#include "rope/host_kernels.hpp"

namespace tw::rope::TW_ISA {
namespace {

using namespace tw::TW_ISA;

// Lanes 2i and 2i + 1 exchanged.
#if defined(TW_EMULATE) || TW_LEVEL == TW_LEVEL_scalar
TW_INLINE VF swap_pairs(VF v) {
  VF r{};
  for (int i = 0; i < kLanes; ++i) r[i] = v[i ^ 1];
  return r;
}
#elif TW_LEVEL >= TW_LEVEL_avx512
TW_INLINE VF swap_pairs(VF v) { return _mm512_permute_ps(v, 0xb1); }
#else
TW_INLINE VF swap_pairs(VF v) { return _mm256_permute_ps(v, 0xb1); }
#endif

// Channels that are not turned.
template <class E>
void copy_rest(const typename E::Element* x, typename E::Element* y, const Heads& h) {
  if (x == y || h.turned == h.channels) return;
  __builtin_memcpy(y + h.turned, x + h.turned,
                   static_cast<size_t>(h.channels - h.turned) * sizeof(typename E::Element));
}

template <class E>
void neox(const Heads& h) {
  const int64_t half = h.turned / 2;
  const float *cos = h.cos_sin, *sin = h.cos_sin + half;
  for (int64_t head = 0; head < h.count; ++head) {
    const auto* x = reinterpret_cast<const typename E::Element*>(h.x) + head * h.x_stride;
    auto* y = reinterpret_cast<typename E::Element*>(h.y) + head * h.y_stride;
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const VF a = E::load(x + i), b = E::load(x + half + i);
      const VF c = load(cos + i), s = load(sin + i);
      E::store(y + i, sub(mul(a, c), mul(b, s)));
      E::store(y + half + i, add(mul(b, c), mul(a, s)));
    }
    for (; i < half; ++i) {
      const float a = E::widen(x[i]), b = E::widen(x[half + i]);
      y[i] = E::narrow(a * cos[i] - b * sin[i]);
      y[half + i] = E::narrow(b * cos[i] + a * sin[i]);
    }
    copy_rest<E>(x, y, h);
  }
}

// Neighbours are a pair: (a, b) * (cos, cos) + (b, a) * (-sin, sin), which rounds as neox does.
template <class E>
void gptj(const Heads& h) {
  const int64_t half = h.turned / 2;
  float *cos = h.room, *sin = h.room + h.turned;
  for (int64_t i = 0; i < half; ++i) {
    cos[2 * i] = cos[2 * i + 1] = h.cos_sin[i];
    sin[2 * i] = -h.cos_sin[half + i];
    sin[2 * i + 1] = h.cos_sin[half + i];
  }
  for (int64_t head = 0; head < h.count; ++head) {
    const auto* x = reinterpret_cast<const typename E::Element*>(h.x) + head * h.x_stride;
    auto* y = reinterpret_cast<typename E::Element*>(h.y) + head * h.y_stride;
    int64_t i = 0;
    for (; i + kLanes <= h.turned; i += kLanes) {
      const VF v = E::load(x + i);
      E::store(y + i, add(mul(v, load(cos + i)), mul(swap_pairs(v), load(sin + i))));
    }
    for (; i < h.turned; i += 2) {
      const float a = E::widen(x[i]), b = E::widen(x[i + 1]);
      y[i] = E::narrow(a * cos[i] + b * sin[i]);
      y[i + 1] = E::narrow(b * cos[i] + a * sin[i + 1]);
    }
    copy_rest<E>(x, y, h);
  }
}

constexpr KernelTable kTable = {
    .neox = {neox<F32>, neox<BF16>, neox<F16>},
    .gptj = {gptj<F32>, gptj<BF16>, gptj<F16>},
};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::rope::TW_ISA
