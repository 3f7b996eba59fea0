// Packing: any strides in, row tiles of A and 16-column panels of B out, zero padded along K and N.
#pragma once

#include <emmintrin.h>

#include "gemm/host_micro.hpp"

namespace tw::gemm::TW_ISA {
namespace {

template <int Bytes>
struct UintOf;
template <>
struct UintOf<1> {
  using type = uint8_t;
};
template <>
struct UintOf<2> {
  using type = uint16_t;
};
template <>
struct UintOf<4> {
  using type = uint32_t;
};
template <Kind K>
using Element = typename UintOf<kElementBytes[K]>::type;

TW_INLINE uint32_t pair16(uint32_t low, uint32_t high) { return (low & 0xffffu) | high << 16; }
TW_INLINE uint32_t widen8(uint8_t x) {
  return static_cast<uint32_t>(static_cast<int32_t>(static_cast<int8_t>(x)));
}

// The words of one group of one row, `apart` each other, from its KR elements (zero beyond the end of K).
template <Kind K, class S>
TW_INLINE void put_group(uint32_t* dst, int64_t apart, const Element<K>* e) {
  if constexpr (K == kF32) {
    dst[0] = e[0];
  } else if constexpr (K == kF16) {
    dst[0] = float_bits(fp16_to_float(e[0]));
  } else if constexpr (K == kBF16) {
    if constexpr (S::kWords == 1) {
      dst[0] = pair16(e[0], e[1]);
    } else {
      dst[0] = static_cast<uint32_t>(e[0]) << 16;
      dst[apart] = static_cast<uint32_t>(e[1]) << 16;
    }
  } else {
    if constexpr (S::kWords == 1) {
      dst[0] = e[0] | static_cast<uint32_t>(e[1]) << 8 | static_cast<uint32_t>(e[2]) << 16 |
               static_cast<uint32_t>(e[3]) << 24;
    } else {
      dst[0] = pair16(widen8(e[0]), widen8(e[2]));
      dst[apart] = pair16(widen8(e[1]), widen8(e[3]));
    }
  }
}

template <Kind K, class S, bool Unit>
void pack_rows(const PackA& p) {
  constexpr int kR = kGroup[K];
  const int64_t groups = (p.k + kR - 1) / kR, step = p.rows * S::kWords;
  const int64_t stride = Unit ? 1 : p.a.col_stride;
  for (int64_t i = 0; i < p.rows; ++i) {
    const Element<K>* src = reinterpret_cast<const Element<K>*>(p.a.data) + i * p.a.row_stride;
    uint32_t* dst = p.dst + i;
    const int64_t full = p.k / kR;
    for (int64_t g = 0; g < full; ++g) {
      Element<K> e[kR];
      for (int r = 0; r < kR; ++r) e[r] = src[(g * kR + r) * stride];
      put_group<K, S>(dst + g * step, p.rows, e);
    }
    if (full < groups) {
      Element<K> e[kR] = {};
      for (int64_t r = 0; full * kR + r < p.k; ++r) e[r] = src[(full * kR + r) * stride];
      put_group<K, S>(dst + full * step, p.rows, e);
    }
  }
}

// -128 times the sum of each row, modulo 2^32.
void start_rows(const PackA& p) {
  for (int64_t i = 0; i < p.rows; ++i) {
    const int8_t* src = reinterpret_cast<const int8_t*>(p.a.data) + i * p.a.row_stride;
    uint32_t total = 0;
    for (int64_t k = 0; k < p.k; ++k)
      total += static_cast<uint32_t>(static_cast<int32_t>(src[k * p.a.col_stride]));
    p.row_start[i] = static_cast<int32_t>(0u - 128u * total);
  }
}

template <class S>
void pack_a(const PackA& p) {
  constexpr Kind kK = S::kKind;
  if (p.a.col_stride == 1) {
    pack_rows<kK, S, true>(p);
  } else {
    pack_rows<kK, S, false>(p);
  }
  if constexpr (kK == kI8 && kHasDpbusd) start_rows(p);
}

// Groups [g0, groups) of a panel, element by element.
template <Kind K>
void pack_panel_any(const PackB& p, int64_t panel, int64_t g0) {
  constexpr int kR = kGroup[K];
  const int64_t first = panel * kPanel;
  const int64_t cols = p.n - first < kPanel ? p.n - first : kPanel;
  const Element<K>* src = reinterpret_cast<const Element<K>*>(p.b.data) + first * p.b.col_stride;
  Element<K>* dst = reinterpret_cast<Element<K>*>(p.dst + panel * p.panel_bytes);
  for (int64_t g = g0; g < p.groups; ++g) {
    for (int64_t j = 0; j < kPanel; ++j) {
      for (int64_t r = 0; r < kR; ++r) {
        const int64_t k = g * kR + r;
        dst[(g * kPanel + j) * kR + r] =
            j < cols && k < p.k ? src[k * p.b.row_stride + j * p.b.col_stride] : Element<K>{0};
      }
    }
  }
}

// A panel whose columns are contiguous along K: transposes of 32-bit words, each one group (two k for fp16).
template <Kind K>
void pack_panel_nk(const PackB& p, int64_t panel) {
  constexpr int kPerWord = 4 / kElementBytes[K];
  const int64_t words = p.n - panel * kPanel >= kPanel ? p.k / kPerWord / 8 * 8 : 0;
  const int64_t col_bytes = p.b.col_stride * kElementBytes[K];
  const char* src = p.b.data + panel * kPanel * col_bytes;
  char* out = p.dst + panel * p.panel_bytes;
  for (int64_t w = 0; w < words; w += 8) {
    if constexpr (K == kF16) {
      uint32_t both[8 * kPanel];
      transpose8x8(src + w * 4, col_bytes, both, kPanel);
      transpose8x8(src + w * 4 + 8 * col_bytes, col_bytes, both + 8, kPanel);
      uint16_t* dst = reinterpret_cast<uint16_t*>(out) + w * 2 * kPanel;
      for (int i = 0; i < 8; ++i) {
        for (int j = 0; j < kPanel; ++j) {
          dst[2 * i * kPanel + j] = static_cast<uint16_t>(both[i * kPanel + j]);
          dst[(2 * i + 1) * kPanel + j] = static_cast<uint16_t>(both[i * kPanel + j] >> 16);
        }
      }
    } else {
      uint32_t* dst = reinterpret_cast<uint32_t*>(out) + w * kPanel;
      transpose8x8(src + w * 4, col_bytes, dst, kPanel);
      transpose8x8(src + w * 4 + 8 * col_bytes, col_bytes, dst + 8, kPanel);
    }
  }
  pack_panel_any<K>(p, panel, words * kPerWord / kGroup[K]);
}

TW_INLINE __m128i load16(const char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
TW_INLINE void store16(char* p, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }

// One group of one full panel whose rows are contiguous along N.
template <Kind K>
TW_INLINE void pack_group_kn(const char* src, int64_t row_bytes, char* dst) {
  if constexpr (K == kF32) {
    for (int i = 0; i < 64; i += 16) store16(dst + i, load16(src + i));
  } else if constexpr (K == kF16) {
    for (int i = 0; i < 32; i += 16) store16(dst + i, load16(src + i));
  } else if constexpr (K == kBF16) {
    for (int i = 0; i < 2; ++i) {
      const __m128i x = load16(src + 16 * i), y = load16(src + row_bytes + 16 * i);
      store16(dst + 32 * i, _mm_unpacklo_epi16(x, y));
      store16(dst + 32 * i + 16, _mm_unpackhi_epi16(x, y));
    }
  } else {
    const __m128i r0 = load16(src), r1 = load16(src + row_bytes);
    const __m128i r2 = load16(src + 2 * row_bytes), r3 = load16(src + 3 * row_bytes);
    const __m128i low01 = _mm_unpacklo_epi8(r0, r1), high01 = _mm_unpackhi_epi8(r0, r1);
    const __m128i low23 = _mm_unpacklo_epi8(r2, r3), high23 = _mm_unpackhi_epi8(r2, r3);
    store16(dst, _mm_unpacklo_epi16(low01, low23));
    store16(dst + 16, _mm_unpackhi_epi16(low01, low23));
    store16(dst + 32, _mm_unpacklo_epi16(high01, high23));
    store16(dst + 48, _mm_unpackhi_epi16(high01, high23));
  }
}

template <Kind kK>
void pack_b(const PackB& p) {
  constexpr int kBytes = kGroupBytes[kK];
  if (p.b.row_stride == 1) {
    for (int64_t panel = 0; panel < p.panels; ++panel) pack_panel_nk<kK>(p, panel);
    return;
  }
  int64_t full_panels = 0, full_groups = 0;
  if (p.b.col_stride == 1) {
    full_panels = p.n / kPanel < p.panels ? p.n / kPanel : p.panels;
    full_groups = p.k / kGroup[kK] < p.groups ? p.k / kGroup[kK] : p.groups;
    const int64_t row_bytes = p.b.row_stride * kElementBytes[kK];
    for (int64_t g = 0; g < full_groups; ++g) {
      const char* src = p.b.data + g * kGroup[kK] * row_bytes;
      for (int64_t panel = 0; panel < full_panels; ++panel) {
        pack_group_kn<kK>(src + panel * kPanel * kElementBytes[kK], row_bytes,
                          p.dst + panel * p.panel_bytes + g * kBytes);
      }
    }
  }
  for (int64_t panel = 0; panel < p.panels; ++panel) {
    pack_panel_any<kK>(p, panel, panel < full_panels ? full_groups : 0);
  }
}

}  // namespace
}  // namespace tw::gemm::TW_ISA
