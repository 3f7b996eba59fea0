// Elementwise instructions: where the elements of an operand lie, and loops over the active ones.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "api/types.h"
#include "machine.h"
#include "vector/convert.h"

namespace tilewright::twin {

inline uint32_t BitsOf(DType type) { return type == DType::S4 ? 4 : 8 * SizeOf(type); }

// The destination is a source as well and stands as the last operand, too.
inline bool ReadsDestination(VecOp op) {
  return op == VecOp::MulAddDst || op == VecOp::FusedMulAdd || op == VecOp::FusedMulAddRelu ||
         op == VecOp::Axpy;
}

// int16 -> 8 bits: the results of one block fill half of one.
inline bool HalfBlocks(const Record& r) {
  return r.vec.op == VecOp::CastDeq && SizeOf(r.operand[0].type) == 1;
}

// Which of the strides an operand uses, or -1: it is not laid out by repeats.
inline int StrideOf(const Record& r, int operand) {
  switch (r.vec.op) {
    case VecOp::Compare:
    case VecOp::Compares:
      return operand == 0 ? -1 : operand;
    case VecOp::CompareToMask:
      return operand + 1;
    case VecOp::Select:
      return r.vec.arg[0] != 0 && operand == r.operands - 1 ? -1 : operand;
    case VecOp::CastDeq:
      return operand == 2 ? -1 : operand;
    case VecOp::SetCmpMask:
    case VecOp::GetCmpMask:
      return -1;
    default:
      return ReadsDestination(r.vec.op) && operand == r.operands - 1 ? 0 : operand;
  }
}

// Lane `l` of repeat `i` lies at base + i * repeat + l / per_block * block + l % per_block * bits / 8.
struct Layout {
  uint8_t* base;
  int64_t repeat, block;
  uint32_t bits, per_block;
  bool flat() const { return block == int64_t{per_block} * bits / 8; }
  uint8_t* At(uint32_t i, uint32_t l) const {
    return base + i * repeat + l / per_block * block + uint64_t{l % per_block} * bits / 8;
  }
};

inline Layout LayoutOf(Core& core, const Record& r, int operand) {
  const Operand& o = r.operand[operand];
  const int stride = StrideOf(r, operand);
  const bool half = operand == 0 && HalfBlocks(r);
  const uint32_t bits = BitsOf(o.type);
  return {core.At(o), int64_t{r.vec.repeat_stride[stride]} * 32, int64_t{r.vec.block_stride[stride]} * 32,
          bits, half ? 16 : 256 / bits};
}

inline bool FullMask(const VecArgs& v) {
  return v.counter || (v.mask[0] == (v.lanes >= 64 ? ~uint64_t{0} : (uint64_t{1} << v.lanes) - 1) &&
                       (v.lanes <= 64 || v.mask[1] == ~uint64_t{0}));
}

// visit(addresses, elements, index of the first) for runs of active elements that are contiguous in every
// layout. One run for all where possible, unless the repeats are wanted apart.
template <int N, class Visit>
void ForRuns(const VecArgs& v, const Layout (&layout)[N], bool apart, Visit&& visit) {
  const uint32_t lanes = v.lanes;
  const uint64_t total = v.counter ? v.mask[0] : uint64_t{v.repeat} * lanes;
  const bool full = FullMask(v);
  bool whole = full && !apart;
  uint32_t chunk = lanes;
  for (const Layout& l : layout) {
    whole = whole && l.flat() && l.repeat == int64_t{lanes} * l.bits / 8;
    if (!l.flat()) chunk = std::min(chunk, l.per_block);
  }
  uint8_t* at[N];
  const auto run = [&](uint32_t i, uint32_t first, uint32_t end) {
    for (int k = 0; k < N; ++k) at[k] = layout[k].At(i, first);
    visit(at, end - first, i * lanes + first);
  };
  if (whole) {
    for (int k = 0; k < N; ++k) at[k] = layout[k].base;
    visit(at, static_cast<uint32_t>(total), 0u);
    return;
  }
  for (uint32_t i = 0; i < v.repeat; ++i) {
    const uint32_t here = static_cast<uint32_t>(std::min<uint64_t>(lanes, total - uint64_t{i} * lanes));
    for (uint32_t begin = 0; begin < here; begin += chunk) {
      const uint32_t end = std::min(begin + chunk, here);
      if (full) {
        run(i, begin, end);
        continue;
      }
      for (uint32_t l = begin; l < end;) {
        while (l < end && !Active(v, i, l, lanes)) ++l;
        const uint32_t first = l;
        while (l < end && Active(v, i, l, lanes)) ++l;
        if (first < l) run(i, first, l);
      }
    }
  }
}

// Results and sources overlap without being the same bytes: sources are copied before results are written.
bool OverlapsPartly(const Record& r);

// 16-bit floats are computed in float and rounded after each operation.
template <class T>
using Compute = std::conditional_t<std::is_same_v<T, half> || std::is_same_v<T, bfloat16_t>, float, T>;

constexpr uint32_t kChunk = 1024;

// `n` elements as numbers to compute with: in `buffer`, or where they are.
template <class T>
const Compute<T>* Load(const uint8_t* from, uint32_t n, Compute<T>* buffer, bool copy) {
  if constexpr (std::is_same_v<T, half>) {
    HalvesToFloats(reinterpret_cast<const uint16_t*>(from), buffer, n);
  } else if constexpr (std::is_same_v<T, bfloat16_t>) {
    Bf16sToFloats(reinterpret_cast<const uint16_t*>(from), buffer, n);
  } else {
    if (!copy) return reinterpret_cast<const T*>(from);
    std::memcpy(buffer, from, n * sizeof(T));
  }
  return buffer;
}

template <class T>
constexpr bool kDirect = std::is_same_v<T, Compute<T>>;

template <class T>
void Store(const Compute<T>* from, uint8_t* to, uint32_t n, bool saturate) {
  if constexpr (std::is_same_v<T, half>) {
    FloatsToHalves(from, reinterpret_cast<uint16_t*>(to), n);
    if (saturate) SaturateHalves(reinterpret_cast<uint16_t*>(to), n);
  } else if constexpr (std::is_same_v<T, bfloat16_t>) {
    FloatsToBf16s(from, reinterpret_cast<uint16_t*>(to), n);
    if (saturate) SaturateBf16s(reinterpret_cast<uint16_t*>(to), n);
  } else {
    if (reinterpret_cast<uint8_t*>(const_cast<T*>(from)) != to) std::memcpy(to, from, n * sizeof(T));
  }
}

// dst_i = f(src0_i).
template <class D, class S, class F>
void Map(Core& core, const Record& r, F&& f) {
  const Layout layout[2] = {LayoutOf(core, r, 0), LayoutOf(core, r, 1)};
  const bool apart = OverlapsPartly(r);
  alignas(32) Compute<S> a[kChunk];
  alignas(32) Compute<D> result[kChunk];
  ForRuns(r.vec, layout, apart, [&](uint8_t* const* at, uint32_t n, uint32_t) {
    for (uint32_t done = 0; done < n; done += kChunk) {
      const uint32_t m = std::min(kChunk, n - done);
      const Compute<S>* x = Load<S>(at[1] + done * sizeof(S), m, a, apart);
      uint8_t* to = at[0] + done * sizeof(D);
      Compute<D>* y = kDirect<D> ? reinterpret_cast<Compute<D>*>(to) : result;
#pragma GCC ivdep
      for (uint32_t i = 0; i < m; ++i) y[i] = f(x[i]);
      Store<D>(y, to, m, r.vec.saturate);
    }
  });
}

// dst_i = f(src0_i, src1_i).
template <class D, class S, class F>
void Map2(Core& core, const Record& r, F&& f) {
  const Layout layout[3] = {LayoutOf(core, r, 0), LayoutOf(core, r, 1), LayoutOf(core, r, 2)};
  const bool apart = OverlapsPartly(r);
  alignas(32) Compute<S> a[kChunk], b[kChunk];
  alignas(32) Compute<D> result[kChunk];
  ForRuns(r.vec, layout, apart, [&](uint8_t* const* at, uint32_t n, uint32_t) {
    for (uint32_t done = 0; done < n; done += kChunk) {
      const uint32_t m = std::min(kChunk, n - done);
      const Compute<S>* x = Load<S>(at[1] + done * sizeof(S), m, a, apart);
      const Compute<S>* y = Load<S>(at[2] + done * sizeof(S), m, b, apart);
      uint8_t* to = at[0] + done * sizeof(D);
      Compute<D>* z = kDirect<D> ? reinterpret_cast<Compute<D>*>(to) : result;
#pragma GCC ivdep
      for (uint32_t i = 0; i < m; ++i) z[i] = f(x[i], y[i]);
      Store<D>(z, to, m, r.vec.saturate);
    }
  });
}

// A scalar in the bits of its type.
template <class T>
Compute<T> ScalarOf(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return static_cast<Compute<T>>(value);
}

void DescribeElementwise(Record& record);
bool CheckElementwise(Core& core, const Record& record);
uint32_t AlignmentElementwise(const Record& record, int operand);

void ExecuteUnary(Core& core, const Record& record);
void ExecuteBinary(Core& core, const Record& record);
void ExecuteScalar(Core& core, const Record& record);
void ExecuteMulAdd(Core& core, const Record& record);
void ExecuteFill(Core& core, const Record& record);
void ExecuteCast(Core& core, const Record& record);
void ExecuteCastDeq(Core& core, const Record& record);
void ExecuteToCast(Core& core, const Record& record);  // AddReluCast and its like
void ExecuteCompare(Core& core, const Record& record);
void ExecuteSelect(Core& core, const Record& record);
void ExecuteCmpMask(Core& core, const Record& record);

}  // namespace tilewright::twin
