// bf16 rows on tile registers: 32 k of a panel are unpacked to a tile, and sums leave it once a group.
#pragma once

#include "gemm_w4/host_paths.hpp"

#if TW_LEVEL == TW_LEVEL_amx
namespace tw::gemm_w4::TW_ISA {
namespace {

// Pairs of staged k, as they lie in the rows of A.
TW_INLINE void unpack_tile(const char* codes, VI zero, char* to) {
  for (int word = 0; word < 4; ++word) {
    const VI v = load_i(codes + word * kWordBytes);
    auto* at = reinterpret_cast<int32_t*>(to + word * 4 * kWordBytes);
    store(at, Bf16Pairs::weights<0>(v, zero));
    store(at + kPanel, Bf16Pairs::weights<1>(v, zero));
    store(at + 2 * kPanel, Bf16Pairs::weights<2>(v, zero));
    store(at + 3 * kPanel, Bf16Pairs::weights<3>(v, zero));
  }
}

// Up to 16 rows, which are staged whatever they are, of one panel.
void tile_rows(const Job& j, int64_t row, int64_t panel, const char* weights) {
  alignas(64) char part[kTileSize];
  VF total[kTileRows];
  unrolled<kTileRows>([&](int r) TW_BODY { total[r] = zero_f(); });
  const char* a = j.a + row * j.a_bytes;
  for (int64_t group = 0; group < j.groups; ++group) {
    const int64_t end = (group + 1) * j.group_words < j.words ? (group + 1) * j.group_words : j.words;
    tile_zero<0>();
    for (int64_t word = group * j.group_words; word < end; word += 4) {
      tile_load<1>(a + word * 16, j.a_bytes);
      tile_load<2>(weights + word * 4 * kWordBytes, kWordBytes);
      tile_dot_bf16<0, 1, 2>();
    }
    tile_store<0>(part, kTileBytes);
    const int64_t at = group * kPanelCols;
    const VF scale = load_fp16(j.scale + panel * j.scale_step + at);
    unrolled<kTileRows>([&](int r) TW_BODY {
      total[r] = fma(scale, load(reinterpret_cast<const float*>(part + r * kTileBytes)), total[r]);
    });
    if (j.kind_of_zero != kMin) continue;
    const VF low = load_fp16(j.minimum + panel * j.minimum_step + at);
    for (int r = 0; r < kTileRows && row + r < j.rows; ++r) {
      total[r] = fma(low, bcast(j.sums[(row + r) * j.groups + group]), total[r]);
    }
  }
  for (int r = 0; r < kTileRows && row + r < j.rows; ++r) {
    const int64_t col = panel * kPanelCols;
    put(j, row + r, col, j.bias == nullptr ? total[r] : add(total[r], load(j.bias + col)));
  }
}

void run_tiles(const Job& j) {
  // A panel of 4096 k is 128 KiB: it stays in the second level of cache for all rows.
  char* weights = j.room;
  tiles_begin();
  for (int64_t panel = 0; panel < j.panels; ++panel) {
    for (int64_t group = 0; group < j.groups; ++group) {
      const VI zero = zero_codes(j, panel, group, 0);
      const int64_t end = (group + 1) * j.group_words < j.words ? (group + 1) * j.group_words : j.words;
      for (int64_t word = group * j.group_words; word < end; word += 4) {
        unpack_tile(j.codes + panel * j.codes_bytes + word * kWordBytes, zero,
                    weights + word * 4 * kWordBytes);
      }
    }
    for (int64_t row = 0; row < j.rows; row += kTileRows) tile_rows(j, row, panel, weights);
  }
  tiles_end();
}

}  // namespace
}  // namespace tw::gemm_w4::TW_ISA
#endif
