// Rows divided by their root mean square; compiled once per ISA level with -DTW_ISA=<level>.
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
constexpr int kPairs = kSums / kPair;

// x, or x + residual rounded to the type and written to h.
template <class E>
struct Source {
  using Element = typename E::Element;
  const Element *x, *residual;
  Element* h;

  TW_BODY Pair at(int64_t i) const {
    const Pair one = E::load_pair(x + i);
    if (residual == nullptr) return one;
    const Pair two = E::load_pair(residual + i);
    E::store_pair(h + i, {add(one.a, two.a), add(one.b, two.b)});
    return E::load_pair(h + i);
  }
  TW_BODY Pair some(int64_t i, int64_t count) const {
    const Pair one = load_some_pair<E>(x + i, count);
    if (residual == nullptr) return one;
    const Pair two = load_some_pair<E>(residual + i, count);
    store_some_pair<E>(h + i, {add(one.a, two.a), add(one.b, two.b)}, count);
    return load_some_pair<E>(h + i, count);
  }
};

// sum + h * h with two roundings.
template <class E>
TW_INLINE VF plus_square(VF sum, VF h) {
  if constexpr (E::kExactProducts) return fma(h, h, sum);
  return add(sum, mul(h, h));
}

// Sums of vectors N / 2, N / 4, ... 1 apart, then of lanes.
template <int N>
TW_INLINE float tree(VF* v) {
  if constexpr (N == 1) {
    return sum(v[0]);
  } else {
    for (int i = 0; i < N / 2; ++i) v[i] = add(v[i], v[i + N / 2]);
    return tree<N / 2>(v);
  }
}

template <class E>
TW_INLINE float sum_of_squares(const Source<E>& from, int64_t count) {
  VF first[kPairs], second[kPairs];
  unrolled<kPairs>([&](int p) TW_BODY { first[p] = second[p] = zero_f(); });
  const auto take = [&](int p, Pair h) TW_BODY {
    first[p] = plus_square<E>(first[p], h.a);
    second[p] = plus_square<E>(second[p], h.b);
  };
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    unrolled<kPairs>([&](int p) TW_BODY { take(p, from.at(i + p * kPair)); });
  }
  unrolled<kPairs>([&](int p) TW_BODY {
    const int64_t at = i + p * kPair;
    if (at < count) take(p, at + kPair <= count ? from.at(at) : from.some(at, count - at));
  });
  // Even elements are added apart from odd ones until two sums are left, which is how the tree ends.
  if constexpr (E::kSplit) return tree<kPairs>(first) + tree<kPairs>(second);
  VF all[2 * kPairs];
  for (int p = 0; p < kPairs; ++p) {
    all[2 * p] = first[p];
    all[2 * p + 1] = second[p];
  }
  return tree<2 * kPairs>(all);
}

// Weights as they lie, or widened before.
template <class E>
struct Narrow {
  const typename E::Element* at;
  TW_BODY Pair pair(int64_t i) const { return E::load_pair(at + i); }
  TW_BODY Pair some(int64_t i, int64_t count) const { return load_some_pair<E>(at + i, count); }
};
struct Wide {
  const float* at;
  TW_BODY Pair pair(int64_t i) const { return {load(at + i), load(at + i + kLanes)}; }
  TW_BODY Pair some(int64_t i, int64_t) const { return pair(i); }
};

template <class E, class To, class Weights>
TW_INLINE void scaled(const typename E::Element* from, const Weights& weights, float factor, int64_t count,
                      typename E::Element* y) {
  const VF by = bcast(factor);
  const auto product = [&](Pair h, Pair w)
                           TW_BODY { return Pair{mul(mul(h.a, by), w.a), mul(mul(h.b, by), w.b)}; };
  int64_t i = 0;
  for (; i + kPair <= count; i += kPair) {
    To::store_pair(y + i, product(E::load_pair(from + i), weights.pair(i)));
  }
  if (i == count) return;
  const int64_t left = count - i;
  store_some_pair<E>(y + i, product(load_some_pair<E>(from + i, left), weights.some(i, left)), left);
}

template <class E, class To, class Weights>
TW_INLINE void each_row(const Rows& rows, const Weights& weights) {
  using Element = typename E::Element;
  for (int64_t t = 0; t < rows.rows; ++t) {
    const auto* x = reinterpret_cast<const Element*>(rows.x.at(t));
    Source<E> source{x, nullptr, nullptr};
    if (rows.residual) {
      source.residual = reinterpret_cast<const Element*>(rows.residual.at(t));
      source.h = reinterpret_cast<Element*>(rows.h.at(t));
    }
    const float mean = sum_of_squares<E>(source, rows.count) / static_cast<float>(rows.count);
    scaled<E, To>(rows.residual ? source.h : x, weights, 1.0f / std::sqrt(mean + rows.eps), rows.count,
                  reinterpret_cast<Element*>(rows.y.at(t)));
  }
}

template <class E>
void normalise(const Rows& rows) {
  if (rows.stream && rows.wide != nullptr) {
    each_row<E, Past<E>>(rows, Wide{rows.wide});
    return streamed();
  }
  if (rows.wide != nullptr) return each_row<E, E>(rows, Wide{rows.wide});
  each_row<E, E>(rows, Narrow<E>{reinterpret_cast<const typename E::Element*>(rows.weight)});
}

template <class E>
void widen(const char* weight, int64_t count, float* to) {
  const auto* from = reinterpret_cast<const typename E::Element*>(weight);
  for (int64_t i = 0; i < count; i += kPair) {
    const Pair w = i + kPair <= count ? E::load_pair(from + i) : load_some_pair<E>(from + i, count - i);
    store(to + i, w.a);
    store(to + i + kLanes, w.b);
  }
}

constexpr KernelTable kTable = {.normalise = {normalise<F32>, normalise<BF16>, normalise<F16>},
                                .widen = {widen<F32>, widen<BF16>, widen<F16>}};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::rmsnorm::TW_ISA
