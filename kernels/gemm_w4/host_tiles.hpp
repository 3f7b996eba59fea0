// Rows on tile registers: every activation is one to three parts of bf16 whose sum it is, exactly, so fp32
// and fp16 multiply there too, and so do int8, whose sums of a group are whole numbers that fp32 holds.
//
// Sums leave the tiles once a group, into 16 vectors of totals. A few groups of some panels are unpacked at a
// time: they and as much of the rows lie in the first level of cache while they meet.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <type_traits>

#include "gemm_w4/host_paths.hpp"
#include "gemm_w4/host_stage.hpp"

#if TW_LEVEL == TW_LEVEL_amx
namespace tw::gemm_w4::TW_ISA {
namespace {

typedef uint16_t Uint16s __attribute__((vector_size(2 * kLanes)));

constexpr int kParts[4] = {3, 1, 2, 1};  // of a Kind

// What a row is multiplied with so that no part of what counts is subnormal, which a tile takes for 0.
float factor_of(const StageRow& s) {
  constexpr uint32_t kSmall = (127 - 60) << 23;  // 2^-60
  return largest(s, 0, s.k) < kSmall ? kTinyRow : 1.0f;
}

// `from` may be read, as zeros, to the end of a vector.
float stage_row(const StageRow& s) {
  const float factor = s.kind == kF32 || s.kind == kBF16 ? factor_of(s) : 1.0f;
  const Uint16s order = {0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15};
  const int parts = kParts[s.kind];
  const int64_t padded = (s.k + kBlock - 1) / kBlock * kBlock;
  for (int64_t k = 0; k < padded; k += kLanes) {
    VF x = k < s.k ? mul(load_element(s.kind, s.from + k * s.element), bcast(factor)) : zero_f();
    for (int part = 0; part < parts; ++part) {
      const Words bits = words((VI)x);
      const Uint16s high = __builtin_shuffle(__builtin_convertvector(bits >> 16, Uint16s), order);
      __builtin_memcpy(s.to + part * s.part_bytes + k * 2, &high, sizeof high);
      x = sub(x, (VF)(bits & 0xffff0000u));
    }
  }
  return factor;
}

// Pairs of staged k, as they lie in the rows of A, of the words [begin, end) of a panel.
template <class Path>
void unpack(const Job& j, int64_t panel, int64_t begin, int64_t end, char* to) {
  const char* codes = j.codes + panel * j.codes_bytes;
  const char* next = codes + (panel + 1 < j.panels ? j.codes_bytes : 0);
  const auto table = Path::table(j.kind_of_zero);
  for (int64_t word = begin; word < end; ++word) {
    VI zero = zero_i();
    if constexpr (!Path::kShared) zero = zero_codes(j, panel, word / j.group_words);
    const VI v = load_i(codes + word * kWordBytes);
    prefetch(next + word * kWordBytes);
    auto* at = reinterpret_cast<int32_t*>(to + (word - begin) * 4 * kWordBytes);
    store(at, Path::template weights<0>(v, zero, table));
    store(at + kPanel, Path::template weights<1>(v, zero, table));
    store(at + 2 * kPanel, Path::template weights<2>(v, zero, table));
    store(at + 3 * kPanel, Path::template weights<3>(v, zero, table));
  }
}

// Tile C gets the sums of a group of 16 rows, which are staged whatever they are.
template <int Parts, int C>
TW_INLINE void multiply(const char* a, int64_t row_bytes, int64_t part_bytes, const char* weights,
                        int64_t words, float* sums) {
  tile_zero<C>();
  for (int64_t word = 0; word < words; word += 4) {
    tile_load<2 + C>(weights + word * 4 * kWordBytes, kWordBytes);
    if constexpr (Parts == 3) {
      tile_load<6 + C>(a + 2 * part_bytes + word * 16, row_bytes);
      tile_dot_bf16<C, 6 + C, 2 + C>();
    }
    if constexpr (Parts >= 2) {
      tile_load<4 + C>(a + part_bytes + word * 16, row_bytes);
      tile_dot_bf16<C, 4 + C, 2 + C>();
    }
    tile_load<6 + C>(a + word * 16, row_bytes);
    tile_dot_bf16<C, 6 + C, 2 + C>();
  }
  tile_store<C>(sums, kTileBytes);
}

// The sums of groups [begin, end) of 16 rows and a panel, added to totals.
template <int Parts>
void tile_rows(const Job& j, int64_t row, int64_t panel, int64_t begin, int64_t end, const char* weights,
               float (*part)[kTileRows * kPanel], float* totals) {
  VF total[kTileRows];
  unrolled<kTileRows>([&](int r) TW_BODY { total[r] = load(totals + r * kPanel); });
  const int64_t row_bytes = j.a_bytes, part_bytes = j.part_bytes, groups = j.groups, of_group = j.group_words;
  const int64_t words = j.words, first = begin * of_group;
  const char* a = j.a + row * row_bytes;
  const uint16_t* scales = j.scale + panel * j.scale_step;
  const uint16_t* minima = j.kind_of_zero == kMin ? j.minimum + panel * j.minimum_step : nullptr;
  const float* sums = j.sums + (minima == nullptr ? 0 : row * groups);
  auto issue = [&](auto tile, int64_t group) TW_BODY {
    constexpr int C = decltype(tile)::value;
    const int64_t word = group * of_group, most = words - word;
    multiply<Parts, C>(a + word * 16, row_bytes, part_bytes, weights + (word - first) * 4 * kWordBytes,
                       of_group < most ? of_group : most, part[C]);
  };
  auto scale = [&](int c, int64_t group) TW_BODY {
    const VF factor = load_fp16(scales + group * kPanelCols);
    unrolled<kTileRows>([&](int r) TW_BODY { total[r] = fma(factor, load(part[c] + r * kPanel), total[r]); });
    if (minima == nullptr) return;
    const VF low = load_fp16(minima + group * kPanelCols);
    unrolled<kTileRows>([&](int r)
                            TW_BODY { total[r] = fma(low, bcast(sums[r * groups + group]), total[r]); });
  };
  constexpr std::integral_constant<int, 0> kEven;
  constexpr std::integral_constant<int, 1> kOdd;
  issue(kEven, begin);
  // The tile unit works on a group while the sums of the one before are scaled.
  for (int64_t group = begin; group < end; group += 2) {
    if (group + 1 < end) issue(kOdd, group + 1);
    scale(0, group);
    if (group + 1 >= end) break;
    if (group + 2 < end) issue(kEven, group + 2);
    scale(1, group + 1);
  }
  unrolled<kTileRows>([&](int r) TW_BODY { store(totals + r * kPanel, total[r]); });
}

void finish(const Job& j, int64_t panel, const float* totals) {
  const int64_t col = panel * kPanelCols;
  for (int64_t row = 0; row < j.rows; ++row) {
    const VF value = mul(load(totals + row * kPanel), bcast(j.row_scale[row]));
    put(j, row, col, j.bias == nullptr ? value : add(value, load(j.bias + col)));
  }
}

// Panels [first, last) of at most kManyPanels.
template <int Parts, class Path>
void tile_panels(const Job& j, int64_t first, int64_t last) {
  char* weights = j.room;
  auto* part = reinterpret_cast<float (*)[kTileRows * kPanel]>(
      j.room + kManyWeights);  // rows that a tile lacks stay 0
  auto* totals = reinterpret_cast<float*>(j.room + kManyWeights + kManyParts);
  const int64_t rows = (j.rows + kTileRows - 1) / kTileRows * kTileRows, each = rows * kPanel;
  __builtin_memset(totals, 0, static_cast<std::size_t>((last - first) * each) * sizeof(float));
  const int64_t most = kManyWords / j.group_words;
  for (int64_t group = 0; group < j.groups; group += most) {
    const int64_t end = group + most < j.groups ? group + most : j.groups;
    const int64_t word = group * j.group_words;
    const int64_t past = end * j.group_words < j.words ? end * j.group_words : j.words;
    for (int64_t panel = first; panel < last; ++panel) {
      unpack<Path>(j, panel, word, past, weights);
      for (int64_t row = 0; row < rows; row += kTileRows) {
        tile_rows<Parts>(j, row, panel, group, end, weights, part,
                         totals + (panel - first) * each + row * kPanel);
      }
    }
  }
  for (int64_t panel = first; panel < last; ++panel) finish(j, panel, totals + (panel - first) * each);
}

// Tiles of activations and sums have as many rows as there are: a product takes as long as it has rows.
void begin_tiles(int64_t rows) {
#ifdef TW_EMULATE
  (void)rows;
  tiles_begin();
#else
  TilePalette palette;
  for (int tile : {0, 1, 4, 5, 6, 7})
    palette.rows[tile] = static_cast<uint8_t>(rows < kTileRows ? rows : kTileRows);
  __asm__ volatile("ldtilecfg %0" : : "m"(palette));
#endif
}

template <int Parts>
void run_tiles(const Job& j) {
  begin_tiles(j.rows);
  for (int64_t panel = 0; panel < j.panels; panel += kManyPanels) {
    const int64_t end = panel + kManyPanels < j.panels ? panel + kManyPanels : j.panels;
    if (j.kind_of_zero == kAsym) {
      tile_panels<Parts, Bf16Pairs<false>>(j, panel, end);
    } else {
      tile_panels<Parts, Bf16Pairs<true>>(j, panel, end);
    }
  }
  tiles_end();
}

}  // namespace
}  // namespace tw::gemm_w4::TW_ISA
#endif
