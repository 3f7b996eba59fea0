// Few rows against an unpacked B: dot products along K (B stored [N, K]) and row updates (B stored [K, N]).
#pragma once

#include "gemm/host_pack.hpp"

namespace tw::gemm::TW_ISA {
namespace {

// Each traits struct adds one chunk of k to c[MR][NB]; a and b point at the chunk.
struct DotF32 : StepF32 {
  static constexpr int kChunk = kLanes, kWordsPerChunk = kLanes;

  TW_INLINE void put(uint32_t* dst, const uint32_t* e) {
    for (int i = 0; i < kChunk; ++i) dst[i] = e[i];
  }
  template <int MR, int NB>
  TW_INLINE void dot(VF (&c)[MR][NB], const uint32_t* a, int64_t a_words, const char* b, int64_t b_bytes) {
    VF bv[NB];
    for (int j = 0; j < NB; ++j) bv[j] = load(reinterpret_cast<const float*>(b + j * b_bytes));
    for (int i = 0; i < MR; ++i) {
      const VF av = load(reinterpret_cast<const float*>(a + i * a_words));
      for (int j = 0; j < NB; ++j) c[i][j] = fma(av, bv[j], c[i][j]);
    }
  }
};

struct DotF16 : StepF16 {
  static constexpr int kChunk = kLanes, kWordsPerChunk = kLanes;

  TW_INLINE void put(uint32_t* dst, const uint16_t* e) {
    for (int i = 0; i < kChunk; ++i) dst[i] = float_bits(fp16_to_float(e[i]));
  }
  template <int MR, int NB>
  TW_INLINE void dot(VF (&c)[MR][NB], const uint32_t* a, int64_t a_words, const char* b, int64_t b_bytes) {
    VF bv[NB];
    for (int j = 0; j < NB; ++j) bv[j] = load_fp16(reinterpret_cast<const uint16_t*>(b + j * b_bytes));
    for (int i = 0; i < MR; ++i) {
      const VF av = load(reinterpret_cast<const float*>(a + i * a_words));
      for (int j = 0; j < NB; ++j) c[i][j] = fma(av, bv[j], c[i][j]);
    }
  }
};

struct DotBF16 : StepBF16 {
  static constexpr int kChunk = 2 * kLanes, kWordsPerChunk = kHasDpbf16 ? kLanes : 2 * kLanes;

  TW_INLINE void put(uint32_t* dst, const uint16_t* e) {
    for (int i = 0; i < kLanes; ++i) {
      if constexpr (kHasDpbf16) {
        dst[i] = pair16(e[2 * i], e[2 * i + 1]);
      } else {
        dst[i] = static_cast<uint32_t>(e[2 * i]) << 16;
        dst[kLanes + i] = static_cast<uint32_t>(e[2 * i + 1]) << 16;
      }
    }
  }
  template <int MR, int NB>
  TW_INLINE void dot(VF (&c)[MR][NB], const uint32_t* a, int64_t a_words, const char* b, int64_t b_bytes) {
    if constexpr (kHasDpbf16) {
      VI bv[NB];
      for (int j = 0; j < NB; ++j) bv[j] = load_i(b + j * b_bytes);
      for (int i = 0; i < MR; ++i) {
        const VI av = load_i(a + i * a_words);
        for (int j = 0; j < NB; ++j) c[i][j] = dpbf16(c[i][j], av, bv[j]);
      }
    } else {
      for (int half = 0; half < 2; ++half) {
        VF bv[NB];
        for (int j = 0; j < NB; ++j) {
          const VI raw = load_i(b + j * b_bytes);
          bv[j] = half == 0 ? bf16_even(raw) : bf16_odd(raw);
        }
        for (int i = 0; i < MR; ++i) {
          const VF av = load(reinterpret_cast<const float*>(a + i * a_words + half * kLanes));
          for (int j = 0; j < NB; ++j) c[i][j] = fma(av, bv[j], c[i][j]);
        }
      }
    }
  }
};

struct DotI8 : StepI8 {
  static constexpr int kChunk = kHasDpbusd ? 4 * kLanes : 2 * kLanes, kWordsPerChunk = kLanes;

  TW_INLINE void put(uint32_t* dst, const uint8_t* e) {
    for (int i = 0; i < kLanes; ++i) {
      if constexpr (kHasDpbusd) {
        __builtin_memcpy(dst + i, e + 4 * i, 4);
      } else {
        dst[i] = pair16(widen8(e[2 * i]), widen8(e[2 * i + 1]));
      }
    }
  }
  template <int MR, int NB>
  TW_INLINE void dot(VI (&c)[MR][NB], const uint32_t* a, int64_t a_words, const char* b, int64_t b_bytes) {
    VI bv[NB];
    for (int j = 0; j < NB; ++j) {
      const char* p = b + j * b_bytes;
      bv[j] = kHasDpbusd ? flip_sign_bits8(load_i(p)) : load_i8_as_i16(reinterpret_cast<const int8_t*>(p));
    }
    for (int i = 0; i < MR; ++i) {
      const VI av = load_i(a + i * a_words);
      for (int j = 0; j < NB; ++j) {
        c[i][j] = kHasDpbusd ? dpbusd(c[i][j], bv[j], av) : madd16_add(c[i][j], av, bv[j]);
      }
    }
  }
};

template <class D>
void pack_dot(const PackA& p) {
  constexpr Kind kK = D::kKind;
  const int64_t chunks = (p.k + D::kChunk - 1) / D::kChunk;
  for (int64_t i = 0; i < p.rows; ++i) {
    const Element<kK>* src = reinterpret_cast<const Element<kK>*>(p.a.data) + i * p.a.row_stride;
    uint32_t* dst = p.dst + i * chunks * D::kWordsPerChunk;
    for (int64_t c = 0; c < chunks; ++c) {
      Element<kK> e[D::kChunk] = {};
      const int64_t left = p.k - c * D::kChunk, n = left < D::kChunk ? left : D::kChunk;
      for (int64_t j = 0; j < n; ++j) e[j] = src[(c * D::kChunk + j) * p.a.col_stride];
      D::put(dst + c * D::kWordsPerChunk, e);
    }
  }
  if constexpr (kK == kI8 && kHasDpbusd) start_rows(p);
}

template <class D, int MR, int NB>
void dot_block(const Dot& d, int64_t row, int64_t col) {
  constexpr int kBytes = kElementBytes[D::kKind], kU = MR == 1 ? 2 : 1;
  using Sum = typename D::Sum;
  typename D::Vec c[kU][MR][NB] = {};
  const uint32_t* a = d.a + row * d.a_row_words;
  const char* b = d.b + col * d.b_col_bytes;
  const int64_t full = d.k / D::kChunk, rest = d.k % D::kChunk;
  const int64_t ahead = d.prefetch_bytes;
  int64_t i = 0;
  for (; i + kU <= full; i += kU) {
    for (int u = 0; u < kU; ++u) {
      D::template dot<MR, NB>(c[u], a, d.a_row_words, b, d.b_col_bytes);
      a += D::kWordsPerChunk;
      b += D::kChunk * kBytes;
    }
    for (int j = 0; j < NB; ++j) prefetch(b + j * d.b_col_bytes + ahead);
  }
  for (; i < full; ++i) {
    D::template dot<MR, NB>(c[0], a, d.a_row_words, b, d.b_col_bytes);
    a += D::kWordsPerChunk;
    b += D::kChunk * kBytes;
  }
  if (rest != 0) {
    char tail[NB][D::kChunk * kBytes] = {};
    for (int j = 0; j < NB; ++j) {
      __builtin_memcpy(tail[j], b + j * d.b_col_bytes, static_cast<size_t>(rest * kBytes));
    }
    D::template dot<MR, NB>(c[0], a, d.a_row_words, tail[0], D::kChunk * kBytes);
  }
  Sum* acc = static_cast<Sum*>(d.acc) + row * d.acc_stride + col;
  for (int r = 0; r < MR; ++r) {
    for (int j = 0; j < NB; ++j) {
      typename D::Vec total = c[0][r][j];
      for (int u = 1; u < kU; ++u) total = add(total, c[u][r][j]);
      Sum value = sum(total);
      if constexpr (D::kKind == kI8) {
        if (d.row_start) {
          value = static_cast<int32_t>(static_cast<uint32_t>(value) +
                                       static_cast<uint32_t>(d.row_start[row + r]));
        }
      }
      acc[r * d.acc_stride + j] = value;
    }
  }
}

template <class D, int MR>
void dot_rows(const Dot& d, int64_t row, int64_t col, int64_t cols) {
  if (cols == 1) return dot_block<D, MR, 1>(d, row, col);
  if (cols == 2) return dot_block<D, MR, 2>(d, row, col);
  if (cols == 3) return dot_block<D, MR, 3>(d, row, col);
  if constexpr (MR <= 3) return dot_block<D, MR, 4>(d, row, col);
}

// Columns in steps of 3 or 4, all rows against each step while its columns are in the cache.
template <class D>
void dot(const Dot& d) {
  const Parts rows = cut(d.rows, 4);
  const int64_t most_cols = rows.extra != 0 ? (rows.base + 1 <= 3 ? 4 : 3) : (rows.base <= 3 ? 4 : 3);
  for (int64_t col = 0; col < d.cols; col += most_cols) {
    const int64_t left = d.cols - col, cols = left < most_cols ? left : most_cols;
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t row = rows.begin(i);
      switch (rows.size(i)) {
        case 1:
          dot_rows<D, 1>(d, row, col, cols);
          break;
        case 2:
          dot_rows<D, 2>(d, row, col, cols);
          break;
        case 3:
          dot_rows<D, 3>(d, row, col, cols);
          break;
        default:
          dot_rows<D, 4>(d, row, col, cols);
      }
    }
  }
}

template <Kind K>
TW_INLINE VF load_wide(const char* p) {
  if constexpr (K == kF32) return load(reinterpret_cast<const float*>(p));
  if constexpr (K == kBF16) return load_bf16(reinterpret_cast<const uint16_t*>(p));
  if constexpr (K == kF16) return load_fp16(reinterpret_cast<const uint16_t*>(p));
}

// acc[rows, kLanes] += a[rows, KB] * b[KB, kLanes], in ascending k.
template <Kind K, int KB>
TW_INLINE void axpy_vec(const Axpy& x, int64_t k, int64_t col, const char* b, int64_t b_row_bytes) {
  VF bv[KB];
  for (int j = 0; j < KB; ++j) bv[j] = load_wide<K>(b + j * b_row_bytes);
  for (int64_t i = 0; i < x.rows; ++i) {
    float* out = x.acc + i * x.acc_stride + col;
    const float* a = x.a + i * x.k + k;
    VF c = k == 0 ? zero_f() : load(out);
    for (int j = 0; j < KB; ++j) c = fma(bcast(a[j]), bv[j], c);
    store(out, c);
  }
}

template <Kind K, int KB>
void axpy_block(const Axpy& x, int64_t k, int64_t col, int64_t cols) {
  constexpr int kBytes = kElementBytes[K];
  const char* b = x.b + k * x.b_row_bytes + col * kBytes;
  int64_t j = 0;
  for (; j + kLanes <= cols; j += kLanes) {
    if (x.prefetch) {
      for (int r = 0; r < KB; ++r) prefetch(b + (KB + r) * x.b_row_bytes + j * kBytes);
    }
    axpy_vec<K, KB>(x, k, col + j, b + j * kBytes, x.b_row_bytes);
  }
  if (j < cols) {
    char tail[KB][kLanes * kBytes] = {};
    for (int r = 0; r < KB; ++r) {
      __builtin_memcpy(tail[r], b + r * x.b_row_bytes + j * kBytes, static_cast<size_t>((cols - j) * kBytes));
    }
    axpy_vec<K, KB>(x, k, col + j, tail[0], kLanes * kBytes);
  }
}

constexpr int64_t kAxpyFloats = 4096;  // sums kept in L1 at a time

template <Kind K>
void axpy(const Axpy& x) {
  const int64_t strip = kAxpyFloats / x.rows / kPanel * kPanel;
  for (int64_t col = 0; col < x.cols; col += strip) {
    const int64_t cols = x.cols - col < strip ? x.cols - col : strip;
    int64_t k = 0;
    for (; k + 8 <= x.k; k += 8) axpy_block<K, 8>(x, k, col, cols);
    for (; k < x.k; ++k) axpy_block<K, 1>(x, k, col, cols);
  }
}

// What one kind needs of KernelTable.
template <class S, class D>
struct OnLanes {
  static constexpr int kMr = gemm::TW_ISA::kMr, kNp = gemm::TW_ISA::kNp, kRowUnit = 1, kKUnit = 1;
  static constexpr int kBandBytes = 8 << 20;
  static constexpr int kAWords = S::kWords, kDotChunk = D::kChunk, kDotWords = D::kWordsPerChunk;
  static constexpr auto kPackA = pack_a<S>;
  static constexpr auto kTile = tile<S>;
  static constexpr auto kStream = stream<S>;
  static constexpr auto kPackDot = pack_dot<D>;
  static constexpr auto kDot = dot<D>;
  static constexpr void (*kBegin)() = nullptr;
  static constexpr void (*kEnd)() = nullptr;
};

}  // namespace
}  // namespace tw::gemm::TW_ISA
