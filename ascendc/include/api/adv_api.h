// adv_api is refused by name: the twin models the basic API. The names are those of
// ascendc/twin/api_names.json (a test compares them). Functions that the basic API has too, such as Exp, keep
// their basic forms.
#pragma once

#include "api/tensor.h"

namespace AscendC {

namespace detail {
template <class...>
inline constexpr bool kRefused = false;
}  // namespace detail

// clang-format off
#define TW_ADV_API_FUNCTIONS(X) \
  X(Acos) X(Acosh) X(AdjustSoftMaxRes) X(AntiQuantize) X(AscendAntiQuant) X(AscendDequant) X(AscendQuant) \
  X(Asin) X(Asinh) X(Atan) X(Atanh) X(BatchNorm) X(BitwiseAnd) X(BitwiseNot) X(BitwiseOr) X(BitwiseXor) \
  X(Broadcast) X(Ceil) X(Clamp) X(ClampMax) X(ClampMin) X(Concat) X(Cos) X(Cosh) X(CumSum) X(DeepNorm) \
  X(Dequantize) X(Digamma) X(DropOut) X(Erf) X(Erfc) X(Extract) X(FasterGelu) X(FasterGeluV2) X(Floor) \
  X(Fma) X(Fmod) X(Frac) X(GeGLU) X(Gelu) X(GroupNorm) X(Hypot) X(IsBasicBlockInSoftMax) X(IsFinite) \
  X(IsInf) X(IsNan) X(LayerNorm) X(LayerNormGrad) X(LayerNormGradBeta) X(Lgamma) X(LogSoftMax) \
  X(LogicalAnd) X(LogicalAnds) X(LogicalNot) X(LogicalOr) X(LogicalOrs) X(LogicalXor) X(Mean) \
  X(Normalize) X(Pad) X(PhiloxRandom) X(Power) X(Quantize) X(ReGlu) X(ReduceAll) X(ReduceAny) \
  X(ReduceMean) X(ReduceProd) X(ReduceXorSum) X(Rint) X(RmsNorm) X(Round) X(Sigmoid) X(Sign) X(Silu) \
  X(SimpleSoftMax) X(Sin) X(SinCos) X(Sinh) X(SoftMax) X(SoftmaxFlash) X(SoftmaxFlashV2) \
  X(SoftmaxFlashV3) X(SoftmaxGrad) X(SoftmaxGradFront) X(Sort) X(Sum) X(SwiGLU) X(Swish) X(Tan) X(Tanh) \
  X(TopK) X(TransData) X(Trunc) X(UnPad) X(WelfordFinalize) X(WelfordUpdate) X(Where)
// clang-format on

#define TW_ADV_API_SENTENCE(name) \
  "AscendC::" #name " is adv_api; the twin models the basic API only (docs/twin-api.md)"

// Their template arguments are types, or values, or types and then values; the first argument is a tensor.
#define TW_ADV_API_REFUSE(name)                                          \
  template <class... T, class E, class... A>                             \
  inline void name(const LocalTensor<E>&, A&&...) {                      \
    static_assert(detail::kRefused<E, A...>, TW_ADV_API_SENTENCE(name)); \
  }                                                                      \
  template <auto V, auto... W, class E, class... A>                      \
  inline void name(const LocalTensor<E>&, A&&...) {                      \
    static_assert(detail::kRefused<E, A...>, TW_ADV_API_SENTENCE(name)); \
  }                                                                      \
  template <class T, auto V, auto... W, class E, class... A>             \
  inline void name(const LocalTensor<E>&, A&&...) {                      \
    static_assert(detail::kRefused<E, A...>, TW_ADV_API_SENTENCE(name)); \
  }                                                                      \
  template <class T, class U, auto V, auto... W, class E, class... A>    \
  inline void name(const LocalTensor<E>&, A&&...) {                      \
    static_assert(detail::kRefused<E, A...>, TW_ADV_API_SENTENCE(name)); \
  }
TW_ADV_API_FUNCTIONS(TW_ADV_API_REFUSE)
#undef TW_ADV_API_REFUSE

}  // namespace AscendC
