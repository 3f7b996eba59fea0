// silu(gate) * up along a row; compiled once per ISA level with -DTW_ISA=<level>.
#include "_rows/host_elements.hpp"
#include "silu_mul/host_kernels.hpp"

namespace tw::silu_mul::TW_ISA {
namespace {

using namespace tw::TW_ISA;

// 2^x for x <= 0, subnormal results too: where exp2_of has none, the square of half the way.
TW_INLINE VF power(VF x) {
#if !defined(TW_EMULATE) && TW_LEVEL >= TW_LEVEL_avx512
  return exp2_of<5>(x);
#else
  const VF p = exp2_of<5>(mul(x, bcast(0.5f)));
  return mul(p, p);
#endif
}

// g / (1 + e^-g) by t = e^-|g|, which never overflows: g / (1 + t), of negative gates t times that.
TW_INLINE VF silu(VF gate) {
  const VF t = power(mul(copy_sign(gate, bcast(-1.0f)), bcast(1.44269504f)));
  const VF r = mul(gate, reciprocal(add(t, bcast(1.0f))));
  return select(greater(zero_f(), gate), mul(r, t), r);
}

template <class E, class To>
TW_INLINE void multiply_to(const Run& run) {
  using Element = typename E::Element;
  const auto* gate = reinterpret_cast<const Element*>(run.gate);
  const auto* up = reinterpret_cast<const Element*>(run.up);
  auto* y = reinterpret_cast<Element*>(run.y);
  const auto product = [](Pair g, Pair u) TW_BODY { return Pair{mul(silu(g.a), u.a), mul(silu(g.b), u.b)}; };
  int64_t i = 0;
  for (; i + kPair <= run.count; i += kPair) {
    To::store_pair(y + i, product(E::load_pair(gate + i), E::load_pair(up + i)));
  }
  if (i == run.count) return;
  const int64_t left = run.count - i;
  store_some_pair<E>(y + i, product(load_some_pair<E>(gate + i, left), load_some_pair<E>(up + i, left)),
                     left);
}

template <class E>
void multiply(const Run& run) {
  if (run.stream) return multiply_to<E, Past<E>>(run);
  multiply_to<E, E>(run);
}

constexpr KernelTable kTable = {.multiply = {multiply<F32>, multiply<BF16>, multiply<F16>}};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::silu_mul::TW_ISA
