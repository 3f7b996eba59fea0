// What elementwise instructions compute of one or two numbers. Floats follow IEEE 754 except where the
// documentation's table of boundary values says otherwise (附录/Memory矢量计算接口边界值汇总.md); integers
// wrap, or stop at their ends in saturation mode.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

namespace tilewright::twin {

template <class T>
constexpr bool kFloat = std::is_same_v<T, float>;

// Integers of up to 32 bits: `op` on as many bits as keep the sign, then into T.
template <bool saturate, class T, class Op>
inline T Integer(T a, T b, Op op) {
  if constexpr (saturate) {
    const int64_t exact = op(static_cast<int64_t>(a), static_cast<int64_t>(b));
    const int64_t low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
    return static_cast<T>(exact < low ? low : exact > high ? high : exact);
  } else {
    return static_cast<T>(op(static_cast<uint32_t>(a), static_cast<uint32_t>(b)));
  }
}

template <bool saturate>
struct AddOf {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (kFloat<T>)
      return a + b;
    else
      return Integer<saturate>(a, b, [](auto x, auto y) { return x + y; });
  }
};
template <bool saturate>
struct SubOf {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (kFloat<T>)
      return a - b;
    else
      return Integer<saturate>(a, b, [](auto x, auto y) { return x - y; });
  }
};
template <bool saturate>
struct MulOf {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (kFloat<T>)
      return a * b;
    else
      return Integer<saturate>(a, b, [](auto x, auto y) { return x * y; });
  }
};
struct DivOf {
  float operator()(float a, float b) const { return a / b; }
};

// NaN wins; of two zeros the positive one is the larger.
struct MaxOf {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (kFloat<T>) {
      const float larger = a > b ? a : b;
      const float zeros = a + b;  // of -0 and +0 it is +0, of NaN and a number NaN
      return a == b ? (a == 0 ? zeros : a) : (a != a || b != b) ? zeros : larger;
    } else {
      return a > b ? a : b;
    }
  }
};
struct MinOf {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (kFloat<T>) {
      const float smaller = a < b ? a : b;
      const float zeros = -(-a - b);  // of -0 and +0 it is -0
      return a == b ? (a == 0 ? zeros : a) : (a != a || b != b) ? zeros : smaller;
    } else {
      return a < b ? a : b;
    }
  }
};

// Keeps NaN; of -0 it is +0.
template <class T>
inline T ReluOf(T x) {
  if constexpr (kFloat<T>)
    return x > 0 ? x : x != x ? x : 0.0f;
  else
    return x > 0 ? x : T{0};
}

}  // namespace tilewright::twin
