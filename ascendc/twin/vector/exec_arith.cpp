// Arithmetic and logic of one and two sources, with and without a scalar.
#include <cmath>

#include "vector/elementwise.h"
#include "vector/functions.h"

namespace tilewright::twin {

namespace {

// f with the type of the operands as the type of its argument.
template <class F>
void ByNumber(DType type, F&& f) {
  switch (type) {
    case DType::F16:
      return f(half{});
    case DType::F32:
      return f(float{});
    case DType::S16:
      return f(int16_t{});
    default:
      return f(int32_t{});
  }
}
template <class F>
void ByFloat(DType type, F&& f) {
  if (type == DType::F16) return f(half{});
  f(float{});
}

template <template <bool> class Of, class Make>
void Wrapping(const Record& r, Make&& make) {  // integers wrap, or stop at their ends
  if (r.vec.saturate)
    make(Of<true>{});
  else
    make(Of<false>{});
}

template <class T, class F>
void TwoSources(Core& core, const Record& r, F f) {
  Map2<T, T>(core, r, f);
}

template <class T, class F>
void WithScalar(Core& core, const Record& r, F f) {
  const Compute<T> s = ScalarOf<T>(r.vec.scalar);
  Map<T, T>(core, r, [=](Compute<T> x) { return f(x, s); });
}

// The relu of a rounded result is the rounded relu.
template <class F>
struct ThenRelu {
  F f;
  template <class T>
  T operator()(T a, T b) const {
    return ReluOf(f(a, b));
  }
};

// The silicon's last bits of these are not public: they are computed in float, to within one unit of its last
// place, and rounded once more for half.
template <class F>
void Function(Core& core, const Record& r, F f) {
  ByFloat(r.operand[0].type, [&](auto t) {
    using T = decltype(t);
    Map<T, T>(core, r, f);
  });
}

template <class T>
T ShiftedLeft(T x, uint32_t n) {
  constexpr uint32_t kBits = 8 * sizeof(T);
  using U = std::make_unsigned_t<T>;
  const U shifted = n >= kBits ? U{0} : static_cast<U>(static_cast<U>(x) << n);
  if constexpr (std::is_signed_v<T>) {  // the sign stays
    constexpr U kSign = static_cast<U>(U{1} << (kBits - 1));
    return static_cast<T>((static_cast<U>(x) & kSign) | (shifted & static_cast<U>(~kSign)));
  }
  return static_cast<T>(shifted);
}

template <class T>
T ShiftedRight(T x, uint32_t n, bool round) {
  constexpr uint32_t kBits = 8 * sizeof(T);
  const int64_t wide = static_cast<int64_t>(x);  // the sign or zeros follow from the top
  int64_t shifted = wide >> std::min(n, 63u);
  if (round && std::is_signed_v<T> && n > 0) shifted += wide >> (n - 1) & 1;
  static_assert(kBits <= 32);
  return static_cast<T>(shifted);
}

template <class F>
void ByInteger(DType type, F&& f) {
  switch (type) {
    case DType::S16:
      return f(int16_t{});
    case DType::U16:
      return f(uint16_t{});
    case DType::S32:
      return f(int32_t{});
    default:
      return f(uint32_t{});
  }
}

void Shift(Core& core, const Record& r) {
  const uint32_t n = static_cast<uint32_t>(r.vec.scalar & 0xff);
  const bool left = r.vec.op == VecOp::ShiftLeft, round = r.vec.mode != 0;
  ByInteger(r.operand[0].type, [&](auto t) {
    using T = decltype(t);
    if (left)
      Map<T, T>(core, r, [=](T x) { return ShiftedLeft(x, n); });
    else
      Map<T, T>(core, r, [=](T x) { return ShiftedRight(x, n, round); });
  });
}

}  // namespace

void ExecuteBinary(Core& core, const Record& r) {
  const DType type = r.operand[0].type;
  const auto numbers = [&](auto f) { ByNumber(type, [&](auto t) { TwoSources<decltype(t)>(core, r, f); }); };
  switch (r.vec.op) {
    case VecOp::Add:
      return Wrapping<AddOf>(r, numbers);
    case VecOp::Sub:
      return Wrapping<SubOf>(r, numbers);
    case VecOp::Mul:
      return Wrapping<MulOf>(r, numbers);
    case VecOp::AddRelu:
      return Wrapping<AddOf>(r, [&](auto f) { numbers(ThenRelu<decltype(f)>{f}); });
    case VecOp::SubRelu:
      return Wrapping<SubOf>(r, [&](auto f) { numbers(ThenRelu<decltype(f)>{f}); });
    case VecOp::Max:
      return numbers(MaxOf{});
    case VecOp::Min:
      return numbers(MinOf{});
    case VecOp::Div:
      return ByFloat(type, [&](auto t) { TwoSources<decltype(t)>(core, r, DivOf{}); });
    case VecOp::And:
      return Map2<uint16_t, uint16_t>(core, r,
                                      [](uint16_t a, uint16_t b) { return static_cast<uint16_t>(a & b); });
    case VecOp::Or:
      return Map2<uint16_t, uint16_t>(core, r,
                                      [](uint16_t a, uint16_t b) { return static_cast<uint16_t>(a | b); });
    default:
      return;
  }
}

void ExecuteScalar(Core& core, const Record& r) {
  const DType type = r.operand[0].type;
  const auto numbers = [&](auto f) { ByNumber(type, [&](auto t) { WithScalar<decltype(t)>(core, r, f); }); };
  switch (r.vec.op) {
    case VecOp::Adds:
      return Wrapping<AddOf>(r, numbers);
    case VecOp::Muls:
      return Wrapping<MulOf>(r, numbers);
    case VecOp::Maxs:
      return numbers(MaxOf{});
    case VecOp::Mins:
      return numbers(MinOf{});
    case VecOp::LeakyRelu:
      return ByFloat(type, [&](auto t) {
        WithScalar<decltype(t)>(core, r, [](float x, float s) { return std::signbit(x) ? x * s : x; });
      });
    default:
      return Shift(core, r);
  }
}

void ExecuteUnary(Core& core, const Record& r) {
  const DType type = r.operand[0].type;
  switch (r.vec.op) {
    case VecOp::Abs:
      return ByFloat(type, [&](auto t) {
        using T = decltype(t);
        Map<T, T>(core, r, [](float x) { return std::fabs(x); });
      });
    case VecOp::Relu:
      return ByNumber(type, [&](auto t) {
        using T = decltype(t);
        Map<T, T>(core, r, [](Compute<T> x) { return ReluOf(x); });
      });
    case VecOp::Not:
      return Map<uint16_t, uint16_t>(core, r, [](uint16_t x) { return static_cast<uint16_t>(~x); });
    case VecOp::Exp:
      return Function(core, r, [](float x) { return std::exp(x); });
    case VecOp::Ln:
      return Function(core, r, [](float x) { return std::log(x); });
    case VecOp::Sqrt:
      return Function(core, r, [](float x) { return std::sqrt(x); });
    case VecOp::Rsqrt:
      return Function(core, r, [](float x) { return static_cast<float>(1.0 / std::sqrt(double{x})); });
    default:
      return Function(core, r, [](float x) { return 1.0f / x; });
  }
}

namespace {

// One source or a scalar, to multiply by.
template <class S, class D>
void MulAdd(Core& core, const Record& r, int left, int right, int addend) {
  const Layout layout[4] = {LayoutOf(core, r, 0), LayoutOf(core, r, left),
                            LayoutOf(core, r, right < 0 ? left : right), LayoutOf(core, r, addend)};
  const bool apart = OverlapsPartly(r), relu = r.vec.op == VecOp::FusedMulAddRelu;
  const float scalar = right < 0 ? ScalarOf<S>(r.vec.scalar) : 0;
  alignas(32) float a[kChunk], b[kChunk], c[kChunk], product[kChunk];
  uint16_t rounded[kChunk];
  ForRuns(r.vec, layout, apart, [&](uint8_t* const* at, uint32_t n, uint32_t) {
    for (uint32_t done = 0; done < n; done += kChunk) {
      const uint32_t m = std::min(kChunk, n - done);
      const float* x = Load<S>(at[1] + done * sizeof(S), m, a, apart);
      const float* z = Load<D>(at[3] + done * sizeof(D), m, c, apart);
      if (right < 0) {
        for (uint32_t i = 0; i < m; ++i) product[i] = x[i] * scalar;
      } else {
        const float* y = Load<S>(at[2] + done * sizeof(S), m, b, apart);
        for (uint32_t i = 0; i < m; ++i) product[i] = x[i] * y[i];
      }
      // The product is a number of the destination's type: MAX * MAX is inf there, whatever is added.
      if constexpr (std::is_same_v<D, half>) {
        Store<half>(product, reinterpret_cast<uint8_t*>(rounded), m, r.vec.saturate);
        HalvesToFloats(rounded, product, m);
      }
      for (uint32_t i = 0; i < m; ++i) product[i] += z[i];
      if (relu)
        for (uint32_t i = 0; i < m; ++i) product[i] = ReluOf(product[i]);
      Store<D>(product, at[0] + done * sizeof(D), m, r.vec.saturate);
    }
  });
}

}  // namespace

void ExecuteMulAdd(Core& core, const Record& r) {
  const bool fused = r.vec.op == VecOp::FusedMulAdd || r.vec.op == VecOp::FusedMulAddRelu;
  const int left = 1, right = r.vec.op == VecOp::Axpy ? -1 : fused ? 3 : 2;
  const int addend = r.vec.op == VecOp::Axpy ? 2 : fused ? 2 : 3;
  if (r.operand[1].type == DType::F32) return MulAdd<float, float>(core, r, left, right, addend);
  if (r.operand[0].type == DType::F32) return MulAdd<half, float>(core, r, left, right, addend);
  MulAdd<half, half>(core, r, left, right, addend);
}

void ExecuteDuplicate(Core& core, const Record& r) {
  const Layout layout[1] = {LayoutOf(core, r, 0)};
  const uint64_t bits = r.vec.scalar;
  if (r.vec.op == VecOp::Duplicate) {
    const uint32_t size = SizeOf(r.operand[0].type);
    return ForRuns(r.vec, layout, false, [&](uint8_t* const* at, uint32_t n, uint32_t) {
      if (size == 2)
        std::fill_n(reinterpret_cast<uint16_t*>(at[0]), n, static_cast<uint16_t>(bits));
      else
        std::fill_n(reinterpret_cast<uint32_t*>(at[0]), n, static_cast<uint32_t>(bits));
    });
  }
  ByNumber(r.operand[0].type, [&](auto t) {
    using T = decltype(t);
    const Compute<T> first = ScalarOf<T>(bits);
    ForRuns(r.vec, layout, false, [&](uint8_t* const* at, uint32_t n, uint32_t index) {
      for (uint32_t i = 0; i < n; ++i) {
        const T value = [&] {
          if constexpr (kFloat<Compute<T>>)
            return T(first + static_cast<float>(index + i));
          else
            return static_cast<T>(static_cast<uint32_t>(first) + index + i);
        }();
        std::memcpy(at[0] + i * sizeof(T), &value, sizeof(T));
      }
    });
  });
}

}  // namespace tilewright::twin
