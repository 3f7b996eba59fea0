// Mmad: fractals unpacked to plain fp32 or int32 once, then a register-blocked loop whose sums run along k in
// order.
#include <cstring>
#include <type_traits>

#include "api/types.h"
#include "machine.h"

namespace tilewright::twin {

namespace {

typedef float F16v __attribute__((vector_size(64)));
typedef int32_t I16v __attribute__((vector_size(64)));
constexpr int kRows = 4;

// One row block of C, 16 columns: acc[r][:] += sum_k a[r][k] * b[k][:]. Products of half and bfloat16 are
// exact in fp32, and contraction is off, so every clone gives the same bits.
#if defined(__x86_64__)
#define TW_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TW_CLONES
#endif
#define TW_BODY(Vector, Scalar)                                                             \
  Vector sum[kRows];                                                                        \
  for (int r = 0; r < kRows; ++r) std::memcpy(&sum[r], acc + 16 * r, sizeof(Vector));       \
  for (uint32_t i = 0; i < k; ++i) {                                                        \
    Vector column;                                                                          \
    std::memcpy(&column, b + 16 * static_cast<size_t>(i), sizeof(Vector));                  \
    for (int r = 0; r < kRows; ++r) sum[r] += a[static_cast<size_t>(r) * lda + i] * column; \
  }                                                                                         \
  for (int r = 0; r < kRows; ++r) std::memcpy(acc + 16 * r, &sum[r], sizeof(Vector));

TW_CLONES void RowBlock(const float* a, size_t lda, const float* b, uint32_t k,
                        float* acc){TW_BODY(F16v, float)} TW_CLONES
    void RowBlock(const int32_t* a, size_t lda, const int32_t* b, uint32_t k, int32_t* acc) {
  TW_BODY(I16v, int32_t)
}
#undef TW_BODY
#undef TW_CLONES

struct Int4 {  // two to a byte, the first one low
  uint8_t two;
};
template <class T>
constexpr uint32_t kColumns = std::is_same_v<T, Int4> ? 64 : 32 / sizeof(T);

inline float Widen(const half* p, size_t i) { return HalfToFloat(p[i].bits); }
inline float Widen(const bfloat16_t* p, size_t i) { return Bf16ToFloat(p[i].bits); }
inline float Widen(const float* p, size_t i) { return p[i]; }
inline int32_t Widen(const int8_t* p, size_t i) { return p[i]; }
inline int32_t Widen(const Int4* p, size_t i) {
  const int32_t bits = p[i / 2].two >> (i % 2 * 4) & 15;
  return bits < 8 ? bits : bits - 16;
}

inline float Add(float c, float sum) { return c + sum; }
inline int32_t Add(int32_t c, int32_t sum) {  // the integer cube saturates
  const int64_t total = int64_t{c} + sum;
  return total > INT32_MAX ? INT32_MAX : total < INT32_MIN ? INT32_MIN : static_cast<int32_t>(total);
}

template <class T, class Acc>
void Run(Core& core, const Record& r) {
  const MmadArgs& p = r.mmad;
  constexpr uint32_t c0 = kColumns<T>;
  const uint32_t k_blocks = CeilDiv(p.k, c0), n_blocks = CeilDiv(p.n, 16), m16 = AlignUp(p.m, 16);
  const uint32_t a_blocks = p.k_align16 && sizeof(T) == 4 ? CeilDiv(p.k, 16) * 2 : k_blocks;
  const size_t lda = size_t{k_blocks} * c0;
  const uint32_t rows = AlignUp(p.m, kRows);
  Acc* a = reinterpret_cast<Acc*>(core.Scratch(0, rows * lda));
  Acc* b = reinterpret_cast<Acc*>(core.Scratch(1, size_t{n_blocks} * lda * 16));
  const T* l0a = reinterpret_cast<const T*>(core.At(r.operand[1]));
  const T* l0b = reinterpret_cast<const T*>(core.At(r.operand[2]));

  if (p.m == 1) {  // GEMV: the row lies as it is
    for (uint32_t i = 0; i < p.k; ++i) a[i] = Widen(l0a, i);
    for (uint32_t row = 1; row < rows; ++row) std::memset(a + row * lda, 0, lda * sizeof(Acc));
  } else {
    for (uint32_t row = 0; row < rows; ++row) {
      size_t from = size_t{row} / 16 * a_blocks * 16 * c0 + row % 16 * c0;
      Acc* to = a + row * lda;
      for (uint32_t kb = 0; kb < k_blocks; ++kb, from += 16 * c0, to += c0)
        for (uint32_t i = 0; i < c0; ++i) to[i] = Widen(l0a, from + i);
    }
  }
  for (uint32_t nb = 0; nb < n_blocks; ++nb) {
    Acc* to = b + nb * lda * 16;
    for (uint32_t kb = 0; kb < k_blocks; ++kb, to += c0 * 16) {
      const size_t from = (size_t{kb} * n_blocks + nb) * 16 * c0;
      for (uint32_t n = 0; n < 16; ++n)
        for (uint32_t i = 0; i < c0; ++i) to[i * 16 + n] = Widen(l0b, from + n * c0 + i);
    }
  }

  Acc* l0c = reinterpret_cast<Acc*>(core.At(r.operand[0]));
  const Acc* bias = p.init == CInit::Bias ? reinterpret_cast<const Acc*>(core.At(r.operand[3])) : nullptr;
  for (uint32_t nb = 0; nb < n_blocks; ++nb) {
    const uint32_t columns = p.n - nb * 16 < 16 ? p.n - nb * 16 : 16;
    for (uint32_t row = 0; row < p.m; row += kRows) {
      const uint32_t valid = p.m - row < kRows ? p.m - row : kRows;
      alignas(64) Acc acc[kRows * 16] = {};
      Acc* c = l0c + (size_t{nb} * m16 + row) * 16;
      if constexpr (sizeof(T) != 1) {  // fp32 sums start from C, as the accumulator does
        for (uint32_t i = 0; i < valid; ++i) {
          if (p.init == CInit::Accumulate) std::memcpy(acc + 16 * i, c + 16 * i, 64);
          if (p.init == CInit::Bias) std::memcpy(acc + 16 * i, bias + nb * 16, columns * 4);
        }
      }
      RowBlock(a + row * lda, lda, b + nb * lda * 16, p.k, acc);
      for (uint32_t i = 0; i < valid; ++i) {
        if constexpr (sizeof(T) == 1) {
          for (uint32_t n = 0; n < columns; ++n) {
            if (p.init == CInit::Accumulate) acc[16 * i + n] = Add(c[16 * i + n], acc[16 * i + n]);
            if (p.init == CInit::Bias) acc[16 * i + n] = Add(bias[nb * 16 + n], acc[16 * i + n]);
          }
        }
        std::memcpy(c + 16 * i, acc + 16 * i, columns * sizeof(Acc));
      }
    }
  }
}

}  // namespace

void ExecuteMmad(Core& core, const Record& r) {
  switch (r.operand[1].type) {
    case DType::F16:
      return Run<half, float>(core, r);
    case DType::BF16:
      return Run<bfloat16_t, float>(core, r);
    case DType::F32:
      return Run<float, float>(core, r);
    case DType::S4:
      return Run<Int4, int32_t>(core, r);
    default:
      return Run<int8_t, int32_t>(core, r);
  }
}

}  // namespace tilewright::twin
