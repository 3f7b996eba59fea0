// Many rows of floats where bytes have no dot products: weights are dequantised, some k of a panel at a time,
// and multiplied as floats while they lie in the first level of cache.
#pragma once

#include <cstddef>

#include "gemm_w4/host_paths.hpp"
#include "gemm_w4/host_stage.hpp"

#if TW_LEVEL < TW_LEVEL_avx2vnni
namespace tw::gemm_w4::TW_ISA {
namespace {

constexpr int kFloatRows = kLanes == 8 ? 6 : 2;  // whose sums stay in registers

float stage_floats(const StageRow& s) {
  auto* const to = reinterpret_cast<float*>(s.to);
  const int64_t padded = (s.k + kBlock - 1) / kBlock * kBlock;
  for (int64_t k = 0; k < padded; k += kLanes) store(to + k, load_element(s.kind, s.from + k * s.element));
  return 1.0f;
}

// Words [begin, end) of a panel as floats [k][16], within a group.
TW_INLINE void dequantise(const Job& j, int64_t panel, int64_t group, int64_t begin, int64_t end, float* to) {
  const char* codes = j.codes + panel * j.codes_bytes;
  unrolled<kPanelVecs>([&](int w) TW_BODY {
    const int64_t at = group * kPanelCols + w * kLanes;
    const VF scale = load_fp16(j.scale + panel * j.scale_step + at);
    // Exact: a product of 11 and 4 bits, and so is that of a code less its zero.
    const VF low = j.kind_of_zero == kMin
                       ? load_fp16(j.minimum + panel * j.minimum_step + at)
                       : mul(scale, sub(zero_f(), to_float(zero_codes(j, panel * kPanelVecs + w, group))));
    float* out = to + w * kLanes;
    for (int64_t word = begin; word < end; ++word, out += kWordCodes * kPanel) {
      const Words v = words(load_i(codes + word * kWordBytes + w * 4 * kLanes));
      unrolled<kWordCodes>([&](int i) TW_BODY {
        const Words code = (v >> (i < 4 ? 8 * i : 8 * (i - 4) + 4)) & 15u;
        store(out + i * kPanel, fma(scale, to_float(lanes(code)), low));
      });
    }
  });
}

// Adds the products of `count` k of Rows rows and a panel to totals.
template <int Rows>
TW_INLINE void float_rows(const float* a, int64_t step, const float* weights, int64_t count, float* totals) {
  VF sum[Rows][kPanelVecs];
  unrolled<Rows>([&](int r) TW_BODY {
    unrolled<kPanelVecs>([&](int w) TW_BODY { sum[r][w] = load(totals + r * kPanel + w * kLanes); });
  });
  for (int64_t k = 0; k < count; ++k) {
    VF weight[kPanelVecs];
    unrolled<kPanelVecs>([&](int w) TW_BODY { weight[w] = load(weights + k * kPanel + w * kLanes); });
    unrolled<Rows>([&](int r) TW_BODY {
      const VF x = bcast(a[r * step + k]);
      unrolled<kPanelVecs>([&](int w) TW_BODY { sum[r][w] = fma(x, weight[w], sum[r][w]); });
    });
  }
  unrolled<Rows>([&](int r) TW_BODY {
    unrolled<kPanelVecs>([&](int w) TW_BODY { store(totals + r * kPanel + w * kLanes, sum[r][w]); });
  });
}

template <int Rows>
void some_rows(int64_t rows, const float* a, int64_t step, const float* weights, int64_t count,
               float* totals) {
  if constexpr (Rows > 0) {
    if (rows == Rows) return float_rows<Rows>(a, step, weights, count, totals);
    some_rows<Rows - 1>(rows, a, step, weights, count, totals);
  }
}

// All rows and words [begin, end) of a panel, which are at most kManyWords.
void float_panel(const Job& j, int64_t panel, int64_t begin, int64_t end, float* totals) {
  auto* const weights = reinterpret_cast<float*>(j.room);
  for (int64_t word = begin; word < end;) {
    const int64_t group = word / j.group_words, next = (group + 1) * j.group_words;
    const int64_t past = next < end ? next : end;
    dequantise(j, panel, group, word, past, weights + (word - begin) * kWordCodes * kPanel);
    word = past;
  }
  const int64_t step = j.a_bytes / 4, tiles = (j.rows + kFloatRows - 1) / kFloatRows;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t row = t * j.rows / tiles, next = (t + 1) * j.rows / tiles;
    const auto* a = reinterpret_cast<const float*>(j.a + row * j.a_bytes) + begin * kWordCodes;
    some_rows<kFloatRows>(next - row, a, step, weights, (end - begin) * kWordCodes, totals + row * kPanel);
  }
}

void finish(const Job& j, int64_t panel, const float* totals) {
  for (int64_t row = 0; row < j.rows; ++row) {
    unrolled<kPanelVecs>([&](int w) TW_BODY {
      const int64_t col = panel * kPanelCols + w * kLanes;
      const VF value = load(totals + row * kPanel + w * kLanes);
      put(j, row, col, j.bias == nullptr ? value : add(value, load(j.bias + col)));
    });
  }
}

void run_floats(const Job& j) {
  auto* const totals = reinterpret_cast<float*>(j.room + kManyWeights + kManyParts);
  for (int64_t panel = 0; panel < j.panels; ++panel) {
    __builtin_memset(totals, 0, static_cast<std::size_t>(j.rows * kPanel) * sizeof(float));
    for (int64_t word = 0; word < j.words; word += kManyWords) {
      float_panel(j, panel, word, word + kManyWords < j.words ? word + kManyWords : j.words, totals);
    }
    finish(j, panel, totals);
  }
}

}  // namespace
}  // namespace tw::gemm_w4::TW_ISA
#endif
