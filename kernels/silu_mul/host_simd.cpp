// silu(gate) * up along a row; compiled once per ISA level with -DTW_ISA=<level>.
#include "_rows/host_elements.hpp"
#include "silu_mul/host_kernels.hpp"

namespace tw::silu_mul::TW_ISA {
namespace {

using namespace tw::TW_ISA;

// g / (1 + e^-g). The power is the square of one half as far, so that it reaches infinity.
TW_INLINE VF silu(VF gate) {
  const VF half_way = mul(gate, bcast(-0.5f * 1.44269504f));
  const VF limited = select(greater(half_way, bcast(126.0f)), bcast(126.0f), half_way);
  const VF power = exp2_of<5>(limited);
  return div(gate, add(bcast(1.0f), mul(power, power)));
}

template <class E>
void multiply(const Run& run) {
  using Element = typename E::Element;
  const auto* gate = reinterpret_cast<const Element*>(run.gate);
  const auto* up = reinterpret_cast<const Element*>(run.up);
  auto* y = reinterpret_cast<Element*>(run.y);
  int64_t i = 0;
  for (; i + kLanes <= run.count; i += kLanes) {
    E::store(y + i, mul(silu(E::load(gate + i)), E::load(up + i)));
  }
  if (i < run.count) {
    const int64_t left = run.count - i;
    store_some<E>(y + i, mul(silu(load_some<E>(gate + i, left)), load_some<E>(up + i, left)), left);
  }
}

constexpr KernelTable kTable = {.multiply = {multiply<F32>, multiply<BF16>, multiply<F16>}};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::silu_mul::TW_ISA
