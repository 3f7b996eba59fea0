// Comparison to bits, and selection by bits.
#include "api/enums.h"
#include "api/tensor.h"
#include "vector/elementwise.h"

namespace tilewright::twin {

namespace {

using AscendC::CMPMODE;

// NaN differs from nothing: NE of a NaN is documented as false, unlike IEEE 754.
template <class T, class F>
void ByMode(uint8_t mode, F&& f) {
  switch (static_cast<CMPMODE>(mode)) {
    case CMPMODE::LT:
      return f([](T a, T b) { return a < b; });
    case CMPMODE::GT:
      return f([](T a, T b) { return a > b; });
    case CMPMODE::EQ:
      return f([](T a, T b) { return a == b; });
    case CMPMODE::LE:
      return f([](T a, T b) { return a <= b; });
    case CMPMODE::GE:
      return f([](T a, T b) { return a >= b; });
    case CMPMODE::NE:
      return f([](T a, T b) { return a < b || a > b; });
  }
}

void PutBit(uint8_t* bits, uint32_t i, bool on) {
  const uint8_t bit = static_cast<uint8_t>(1u << (i % 8));
  bits[i / 8] = static_cast<uint8_t>(on ? bits[i / 8] | bit : bits[i / 8] & ~bit);
}
bool GetBit(const uint8_t* bits, uint32_t i) { return (bits[i / 8] >> (i % 8) & 1) != 0; }

void PutBits(uint8_t* bits, uint32_t first, const uint8_t* on, uint32_t n) {
  uint32_t i = 0;
  if (first % 8 == 0) {
    for (; i + 8 <= n; i += 8) {
      uint32_t byte = 0;
      for (uint32_t k = 0; k < 8; ++k) byte |= static_cast<uint32_t>(on[i + k]) << k;
      bits[(first + i) / 8] = static_cast<uint8_t>(byte);
    }
  }
  for (; i < n; ++i) PutBit(bits, first + i, on[i] != 0);
}

// Bits of all elements compared to `bits`; the second source is operand `second`, or the scalar.
template <class T>
void CompareTo(Core& core, const Record& r, uint8_t* bits, int first, int second) {
  const Layout layout[2] = {LayoutOf(core, r, first), LayoutOf(core, r, second < 0 ? first : second)};
  const Compute<T> scalar = ScalarOf<T>(r.vec.scalar);
  alignas(32) Compute<T> a[kChunk], b[kChunk];
  uint8_t hit[kChunk];
  ByMode<Compute<T>>(r.vec.mode, [&](auto holds) {
    ForRuns(r.vec, layout, false, [&](uint8_t* const* at, uint32_t n, uint32_t index) {
      for (uint32_t done = 0; done < n; done += kChunk) {
        const uint32_t m = std::min(kChunk, n - done);
        const Compute<T>* x = Load<T>(at[0] + done * sizeof(T), m, a, false);
        if (second < 0) {
          for (uint32_t i = 0; i < m; ++i) hit[i] = holds(x[i], scalar);
        } else {
          const Compute<T>* y = Load<T>(at[1] + done * sizeof(T), m, b, false);
          for (uint32_t i = 0; i < m; ++i) hit[i] = holds(x[i], y[i]);
        }
        PutBits(bits, index + done, hit, m);
      }
    });
  });
}

void CompareByType(Core& core, const Record& r, uint8_t* bits, int first, int second) {
  switch (r.operand[first].type) {
    case DType::F16:
      return CompareTo<half>(core, r, bits, first, second);
    case DType::F32:
      return CompareTo<float>(core, r, bits, first, second);
    default:
      return CompareTo<int32_t>(core, r, bits, first, second);
  }
}

template <class T>
void SelectBits(Core& core, const Record& r) {  // T: an unsigned integer as wide as the elements
  const VecArgs& v = r.vec;
  const bool scalar_mode = v.mode == 1;
  const Layout layout[3] = {LayoutOf(core, r, 0), LayoutOf(core, r, 1),
                            LayoutOf(core, r, scalar_mode ? 1 : 2)};
  uint64_t held[2] = {core.Word(StateWord::CmpMask0), core.Word(StateWord::CmpMask1)};
  T scalar = static_cast<T>(v.arg[1] != 0 ? held[0] : v.scalar);
  const uint8_t* bits = reinterpret_cast<const uint8_t*>(held);
  if (v.arg[0] != 0)
    bits = core.At(r.operand[r.operands - 1]);
  else if (v.mode == 2)
    bits = core.At(Mem::UB, held[0] & 0xffffffff);
  // A copy, since the destination may lie on them; mode 0 uses those of one repeat throughout.
  const uint64_t total = v.counter ? v.mask[0] : uint64_t{v.repeat} * v.lanes;
  const uint64_t used = v.mode == 0 ? std::min<uint64_t>(total, v.lanes) : total;
  if (v.arg[0] == 0 && v.mode == 2) {
    const uint64_t room = core.machine().soc->capacity[static_cast<int>(Mem::UB)];
    if ((held[0] & 0xffffffff) + (used + 7) / 8 > room) {
      core.Report(FindingKind::OutOfBounds,
                  "Select: the address of the mask in the register, " + std::to_string(held[0] & 0xffffffff) +
                      ", leaves no room for it in UB",
                  r.pipe, r.at);
      return;
    }
  }
  const bool apart = OverlapsPartly(r);
  T x[kChunk], y[kChunk];
  ForRuns(v, layout, apart, [&](uint8_t* const* at, uint32_t n, uint32_t index) {
    for (uint32_t done = 0; done < n; done += kChunk) {
      const uint32_t m = std::min(kChunk, n - done);
      std::memcpy(x, at[1] + done * sizeof(T), m * sizeof(T));
      if (scalar_mode)
        std::fill_n(y, m, scalar);
      else
        std::memcpy(y, at[2] + done * sizeof(T), m * sizeof(T));
      const uint32_t from = index + done;
      for (uint32_t i = 0; i < m; ++i) {
        const uint32_t bit = v.mode == 0 ? (from + i) % v.lanes : from + i;
        if (!GetBit(bits, bit)) x[i] = y[i];
      }
      std::memcpy(at[0] + done * sizeof(T), x, m * sizeof(T));
    }
  });
}

}  // namespace

void ExecuteCompare(Core& core, const Record& r) {
  if (r.vec.op != VecOp::CompareToMask)
    return CompareByType(core, r, core.At(r.operand[0]), 1, r.vec.op == VecOp::Compares ? -1 : 2);
  uint64_t bits[2] = {};
  CompareByType(core, r, reinterpret_cast<uint8_t*>(bits), 0, 1);
  core.Word(StateWord::CmpMask0) = bits[0];
  core.Word(StateWord::CmpMask1) = bits[1];
}

void ExecuteSelect(Core& core, const Record& r) {
  if (r.operand[0].type == DType::F16)
    SelectBits<uint16_t>(core, r);
  else
    SelectBits<uint32_t>(core, r);
}

void ExecuteCmpMask(Core& core, const Record& r) {
  uint64_t bits[2] = {core.Word(StateWord::CmpMask0), core.Word(StateWord::CmpMask1)};
  uint8_t* at = core.At(r.operand[0]);
  if (r.vec.op == VecOp::GetCmpMask) {
    std::memcpy(at, bits, sizeof bits);
    return;
  }
  std::memcpy(bits, at, sizeof bits);
  core.Word(StateWord::CmpMask0) = bits[0];
  core.Word(StateWord::CmpMask1) = bits[1];
}

}  // namespace tilewright::twin
