// Rows, keys and values as the products want them, for kinds on lanes.
#pragma once

#include "_host/simd/math.hpp"
#include "attention/host_kernels.hpp"

namespace tw::attention::TW_ISA {
namespace {

using namespace tw::TW_ISA;

constexpr int64_t kMostD = 512;  // longest row of q, k or v

// Rows lie a row of all heads apart, beyond what the processor prefetches by itself.
constexpr int64_t kRowsAhead = 12;

TW_INLINE void prefetch_row(const Matrix& m, int64_t row, int64_t rows, int64_t n, Element element) {
  if (row >= rows || m.stride != 1) return;
  const char* src = m.data + row * m.row_stride * kElementBytes[element];
  for (int64_t i = 0; i < n * kElementBytes[element]; i += 64) prefetch(src + i);
}

// Part `part` of it, to the second cache.
TW_INLINE void fetch_part(const Fetch& f, int64_t part, int64_t parts) {
  const auto lines = [&](const char* data, int64_t bytes) TW_BODY {
    const int64_t end = (part + 1) * bytes / parts;
    for (int64_t i = part * bytes / parts; i < end; i += 64) prefetch_l2(data + i);
  };
  lines(f.k, f.k_bytes);
  lines(f.v, f.v_bytes);
}

// n elements as fp32.
TW_INLINE void widen_row(const char* src, Element element, int64_t stride, int64_t n, float* dst) {
  const auto* wide = reinterpret_cast<const float*>(src);
  const auto* half = reinterpret_cast<const uint16_t*>(src);
  int64_t i = 0;
  if (stride == 1) {
    for (; i + kLanes <= n; i += kLanes) {
      store(dst + i, element == kElementF32    ? load(wide + i)
                     : element == kElementBF16 ? load_bf16(half + i)
                                               : load_fp16(half + i));
    }
  }
  for (; i < n; ++i) {
    const int64_t at = i * stride;
    dst[i] = element == kElementF32    ? wide[at]
             : element == kElementBF16 ? bf16_to_float(half[at])
                                       : fp16_to_float(half[at]);
  }
}

// n elements of 16 bits.
TW_INLINE void copy_row(const char* src, int64_t stride, int64_t n, uint16_t* dst) {
  int64_t i = 0;
  if (stride == 1) {
    for (; i + 32 <= n; i += 32) __builtin_memcpy(dst + i, src + i * 2, 64);
  }
  for (; i < n; ++i) dst[i] = reinterpret_cast<const uint16_t*>(src)[i * stride];
}

// Whether any of n elements is inf or NaN.
template <class Bits>
TW_INLINE bool any_special(const char* src, int64_t stride, int64_t n, Bits exponent) {
  const Bits* p = reinterpret_cast<const Bits*>(src);
  Bits found = 0;
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) found |= static_cast<Bits>((p[i] & exponent) == exponent);
  } else {
    for (int64_t i = 0; i < n; ++i) found |= static_cast<Bits>((p[i * stride] & exponent) == exponent);
  }
  return found != 0;
}

TW_INLINE bool row_special(const char* src, Element element, int64_t stride, int64_t n) {
  if (element == kElementF32) return any_special<uint32_t>(src, stride, n, 0x7f800000u);
  return any_special<uint16_t>(src, stride, n, element == kElementBF16 ? 0x7f80 : 0x7c00);
}

// The element as fp32.
TW_INLINE float element_at(const char* src, Element element, int64_t at) {
  if (element == kElementF32) return reinterpret_cast<const float*>(src)[at];
  const uint16_t half = reinterpret_cast<const uint16_t*>(src)[at];
  return element == kElementBF16 ? bf16_to_float(half) : fp16_to_float(half);
}

TW_INLINE bool finite(float x) { return (float_bits(x) & 0x7f800000u) != 0x7f800000u; }

// A row of keys or values, contiguous, with zeros where it holds inf or NaN.
struct CleanRow {
  alignas(64) char bytes[kMostD * 4];

  void take(const char* src, Element element, int64_t stride, int64_t n) {
    const int64_t size = kElementBytes[element];
    for (int64_t i = 0; i < n; ++i) {
      if (finite(element_at(src, element, i * stride))) {
        __builtin_memcpy(bytes + i * size, src + i * stride * size, static_cast<size_t>(size));
      } else {
        __builtin_memset(bytes + i * size, 0, static_cast<size_t>(size));
      }
    }
  }
};

// A row to pack: as it lies, or its clean copy, noted as special.
struct Row {
  const char* data;
  int64_t stride;
};

TW_INLINE Row clean_row(const PackV& p, int64_t key, CleanRow& copy) {
  const char* src = p.v.data + key * p.v.row_stride * kElementBytes[p.element];
  prefetch_row(p.v, key + kRowsAhead, p.keys, p.dv, p.element);
  if (!row_special(src, p.element, p.v.stride, p.dv)) return {src, p.v.stride};
  copy.take(src, p.element, p.v.stride, p.dv);
  p.special[(*p.specials)++] = static_cast<int32_t>(key);
  return {copy.bytes, 1};
}

// [16][words] to [words][16] 32-bit words.
TW_INLINE void transpose_panel(const uint32_t* src, int64_t words, uint32_t* dst) {
  int64_t w = 0;
  for (; w + 8 <= words; w += 8) {
    for (int half = 0; half < 2; ++half) {
      transpose8x8(reinterpret_cast<const char*>(src + half * 8 * words + w), words * 4,
                   dst + w * kPanelRows + half * 8, kPanelRows);
    }
  }
  for (; w < words; ++w) {
    for (int r = 0; r < kPanelRows; ++r) dst[w * kPanelRows + r] = src[r * words + w];
  }
}

// Panels of fp32 or of bf16 pairs, d padded with zeros to `groups` groups.
template <Kind K>
void pack_q_lanes(const PackQ& p, int64_t groups) {
  alignas(64) uint32_t room[kPanelRows * kMostD];
  for (int64_t panel = 0; panel < p.panels; ++panel) {
    __builtin_memset(room, 0, static_cast<size_t>(groups * kPanelBytes));
    for (int r = 0; r < kPanelRows && panel * kPanelRows + r < p.count; ++r) {
      const char* src = p.rows[panel * kPanelRows + r];
      if (panel * kPanelRows + r + kRowsAhead < p.count) {
        prefetch_row({p.rows[panel * kPanelRows + r + kRowsAhead], 0, p.stride}, 0, 1, p.dk, p.element);
      }
      uint32_t* row = room + r * groups;
      if constexpr (K == kF32) {
        widen_row(src, p.element, p.stride, p.dk, reinterpret_cast<float*>(row));
      } else {
        copy_row(src, p.stride, p.dk, reinterpret_cast<uint16_t*>(row));
      }
    }
    transpose_panel(room, groups, reinterpret_cast<uint32_t*>(p.dst + panel * groups * kPanelBytes));
  }
}

void pack_q_f32(const PackQ& p) { pack_q_lanes<kF32>(p, p.dk); }
[[maybe_unused]] void pack_q_bf16(const PackQ& p) { pack_q_lanes<kBF16>(p, (p.dk + 1) / 2); }

// Rows of keys, one after the other.
void pack_k_f32(const PackK& p) {
  float* dst = reinterpret_cast<float*>(p.dst);
  for (int64_t key = 0; key < p.keys; ++key, dst += p.dk) {
    prefetch_row(p.k, key + kRowsAhead, p.keys, p.dk, p.element);
    widen_row(p.k.data + key * p.k.row_stride * kElementBytes[p.element], p.element, p.k.stride, p.dk, dst);
  }
  __builtin_memset(dst, 0, static_cast<size_t>((p.padded - p.keys) * p.dk * 4));
}

[[maybe_unused]] void pack_k_bf16(const PackK& p) {
  const int64_t row = (p.dk + 1) / 2 * 2;
  uint16_t* dst = reinterpret_cast<uint16_t*>(p.dst);
  for (int64_t key = 0; key < p.keys; ++key, dst += row) {
    prefetch_row(p.k, key + kRowsAhead, p.keys, p.dk, p.element);
    copy_row(p.k.data + key * p.k.row_stride * 2, p.k.stride, p.dk, dst);
    if (row != p.dk) dst[p.dk] = 0;
  }
  __builtin_memset(dst, 0, static_cast<size_t>((p.padded - p.keys) * row * 2));
}

constexpr int64_t padded_dv(int64_t dv) { return (dv + kDvUnit - 1) / kDvUnit * kDvUnit; }

// Rows of values, dv padded.
void pack_v_f32(const PackV& p) {
  CleanRow copy;
  const int64_t dv = padded_dv(p.dv);
  float* dst = reinterpret_cast<float*>(p.dst);
  for (int64_t key = 0; key < p.keys; ++key, dst += dv) {
    const Row row = clean_row(p, key, copy);
    widen_row(row.data, p.element, row.stride, p.dv, dst);
    for (int64_t i = p.dv; i < dv; ++i) dst[i] = 0.0f;
  }
  __builtin_memset(dst, 0, static_cast<size_t>((p.padded - p.keys) * dv * 4));
}

// Pairs of values of two keys that follow each other: n words from two rows.
TW_INLINE void interleave(const uint16_t* low, const uint16_t* high, int64_t n, uint32_t* dst) {
  for (int64_t i = 0; i < n; ++i) dst[i] = low[i] | static_cast<uint32_t>(high[i]) << 16;
}

// [pair of keys][dv] words; `dst_row` words from one pair to the next.
TW_INLINE void pack_v_pairs(const PackV& p, uint32_t* dst, int64_t dst_row) {
  CleanRow copy[2];
  alignas(64) uint16_t gathered[2][kMostD];
  const int64_t dv = padded_dv(p.dv);
  for (int64_t key = 0; key < p.padded; key += 2, dst += dst_row) {
    const uint16_t* rows[2];
    for (int i = 0; i < 2; ++i) {
      rows[i] = gathered[i];
      if (key + i >= p.keys) {
        __builtin_memset(gathered[i], 0, static_cast<size_t>(p.dv * 2));
        continue;
      }
      const Row row = clean_row(p, key + i, copy[i]);
      if (row.stride == 1) {
        rows[i] = reinterpret_cast<const uint16_t*>(row.data);
      } else {
        copy_row(row.data, row.stride, p.dv, gathered[i]);
      }
    }
    interleave(rows[0], rows[1], p.dv, dst);
    for (int64_t i = p.dv; i < dv; ++i) dst[i] = 0;
  }
}

[[maybe_unused]] void pack_v_bf16(const PackV& p) {
  pack_v_pairs(p, reinterpret_cast<uint32_t*>(p.dst), padded_dv(p.dv));
}

}  // namespace
}  // namespace tw::attention::TW_ISA
