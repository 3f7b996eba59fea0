// One row divided by its root mean square; compiled once per ISA level with -DTW_ISA=<level>.
//
// The squares go to kSums sums, element i to sum i % kSums, which are added in a tree: every level gives the
// same bits.
#include <cmath>

#include "_rows/host_elements.hpp"
#include "rmsnorm/host_kernels.hpp"

namespace tw::rmsnorm::TW_ISA {
namespace {

using namespace tw::TW_ISA;

constexpr int kSums = 64;
constexpr int kVectors = kSums / kLanes;

// x, or x + residual rounded to the type and written to h.
template <class E>
struct Source {
  using Element = typename E::Element;
  const Element *x, *residual;
  Element* h;

  TW_BODY VF at(int64_t i) const {
    if (residual == nullptr) return E::load(x + i);
    E::store(h + i, add(E::load(x + i), E::load(residual + i)));
    return E::load(h + i);
  }
  TW_BODY VF some(int64_t i, int64_t count) const {
    if (residual == nullptr) return load_some<E>(x + i, count);
    store_some<E>(h + i, add(load_some<E>(x + i, count), load_some<E>(residual + i, count)), count);
    return load_some<E>(h + i, count);
  }
};

template <class E>
float sum_of_squares(const Source<E>& from, int64_t count) {
  VF sums[kVectors];
  for (VF& one : sums) one = zero_f();
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    unrolled<kVectors>([&](int v) TW_BODY {
      const VF h = from.at(i + v * kLanes);
      sums[v] = add(sums[v], mul(h, h));
    });
  }
  for (int v = 0; i < count; i += kLanes, ++v) {
    const VF h = i + kLanes <= count ? from.at(i) : from.some(i, count - i);
    sums[v] = add(sums[v], mul(h, h));
  }
  float parts[kSums];
  for (int v = 0; v < kVectors; ++v) store(parts + v * kLanes, sums[v]);
  for (int n = kSums / 2; n > 0; n /= 2) {
    for (int j = 0; j < n; ++j) parts[j] += parts[j + n];
  }
  return parts[0];
}

template <class E>
void normalise(const Row& row) {
  using Element = typename E::Element;
  const auto* x = reinterpret_cast<const Element*>(row.x);
  const auto* weight = reinterpret_cast<const Element*>(row.weight);
  auto* y = reinterpret_cast<Element*>(row.y);
  auto* h = reinterpret_cast<Element*>(row.h);
  const Source<E> source{x, reinterpret_cast<const Element*>(row.residual), h};
  const float mean = sum_of_squares<E>(source, row.count) / static_cast<float>(row.count);
  const VF by = bcast(1.0f / std::sqrt(mean + row.eps));
  const Element* from = h == nullptr ? x : h;
  int64_t i = 0;
  for (; i + kLanes <= row.count; i += kLanes) {
    E::store(y + i, mul(mul(E::load(from + i), by), E::load(weight + i)));
  }
  if (i < row.count) {
    const int64_t left = row.count - i;
    const VF scaled = mul(mul(load_some<E>(from + i, left), by), load_some<E>(weight + i, left));
    store_some<E>(y + i, scaled, left);
  }
}

constexpr KernelTable kTable = {.normalise = {normalise<F32>, normalise<BF16>, normalise<F16>}};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::rmsnorm::TW_ISA
