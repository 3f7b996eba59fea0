// Matmul of adv_api, by name: including this is free, using it is refused.
#pragma once

#include "kernel_operator.h"

enum class CubeFormat { ND = 0, NZ, ZN, ZZ, NN, ND_ALIGN, SCALAR, VECTOR, COLUMN_MAJOR, ROW_MAJOR };

namespace AscendC {

struct MatmulConfig {};
constexpr MatmulConfig CFG_NORM{}, CFG_MDL{}, CFG_IBSHARE_NORM{};

template <TPosition position, CubeFormat format, class Type, auto... Options>
struct MatmulType {
  using T = Type;
};

template <class A, class B, class C, class Bias = C, const auto& config = CFG_NORM, class... Rest>
class Matmul {
  static_assert(detail::kRefused<A>, TW_ADV_API_SENTENCE(Matmul));
};
template <class A, class B, class C, class Bias = C, const auto& config = CFG_NORM, class... Rest>
class MatmulImpl {
  static_assert(detail::kRefused<A>, TW_ADV_API_SENTENCE(MatmulImpl));
};

}  // namespace AscendC

namespace matmul {
using AscendC::Matmul;
using AscendC::MatmulImpl;
using AscendC::MatmulType;
}  // namespace matmul
