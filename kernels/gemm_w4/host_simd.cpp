// Tiles of rows times panels; compiled once per ISA level with -DTW_ISA=<level>.
//
// A sum runs through k in one order whatever the tile, so the bits of a row do not depend on its mates; but
// tile registers sum floats in another, and take a few rows only where that is asked for.
#include <type_traits>

#include "gemm_w4/host_paths.hpp"
#include "gemm_w4/host_tiles.hpp"

namespace tw::gemm_w4::TW_ISA {
namespace {

constexpr int kVecs = kPanelVecs;
// Accumulators are MR x NP x kVecs of a group's sums and as many totals, in 32, 16 or 16 registers. Many rows
// of one panel spare unpacking; few rows need several panels to keep the multipliers busy.
template <class Path>
constexpr int kRows = kLanes == 16  ? Path::kMostRows
                      : kLanes == 8 ? 3
                                    : 1;
constexpr int panels_for(int rows) { return kLanes != 16 ? 1 : rows <= 2 ? 4 : rows <= 6 ? 2 : 1; }

// Weights of a few rows come from memory: what is read next is asked for early, past the end of a panel that
// of the next ones.
constexpr int64_t kAhead = 24;
template <int NP>
TW_INLINE void prefetch_ahead(const Job& j, const char* codes, int64_t word) {
  const int64_t next = word + kAhead;
  const int64_t at = next < j.words ? next * kWordBytes : (next - j.words) * kWordBytes + NP * j.codes_bytes;
  unrolled<NP>([&](int p) TW_BODY { prefetch(codes + at + p * j.codes_bytes); });
}

template <class Path, int MR, int NP>
void tile(const Job& j, int64_t row, int64_t panel) {
  constexpr int kWide = NP * kVecs;
  using Acc = typename Path::Acc;
  VF total[MR][kWide];
  unrolled<MR>([&](int r) TW_BODY { unrolled<kWide>([&](int w) TW_BODY { total[r][w] = zero_f(); }); });
  const char* a = j.a + row * j.a_bytes;
  const char* codes = j.codes + panel * j.codes_bytes;
  const auto table = Path::table(j.kind_of_zero);
  for (int64_t group = 0; group < j.groups; ++group) {
    VI zero[kWide];
    unrolled<kWide>([&](int w) TW_BODY { zero[w] = zero_codes(j, panel + w / kVecs, group, w % kVecs); });
    Acc part[MR][kWide];
    unrolled<MR>([&](int r) TW_BODY {
      const float sum = Path::kNeedsSums ? j.sums[(row + r) * j.groups + group] : 0.0f;
      unrolled<kWide>([&](int w) TW_BODY { part[r][w] = Path::start(zero[w], sum); });
    });
    const int64_t end = (group + 1) * j.group_words < j.words ? (group + 1) * j.group_words : j.words;
    for (int64_t word = group * j.group_words; word < end; ++word) {
      const char* at = codes + word * kWordBytes;
      if constexpr (MR <= Path::kFewRows) prefetch_ahead<NP>(j, codes, word);
      VI v[kWide];
      unrolled<kWide>(
          [&](int w) TW_BODY { v[w] = load_i(at + w / kVecs * j.codes_bytes + w % kVecs * 4 * kLanes); });
      const char* x = a + word * Path::kSteps * Path::kStepBytes;
      auto step = [&](auto index) TW_BODY {
        constexpr int I = decltype(index)::value;
        decltype(Path::template weights<I>(v[0], zero[0], table)) weights[kWide];
        unrolled<kWide>([&](int w) TW_BODY { weights[w] = Path::template weights<I>(v[w], zero[w], table); });
        unrolled<MR>([&](int r) TW_BODY {
          const auto activation = Path::activation(x + r * j.a_bytes + I * Path::kStepBytes);
          unrolled<kWide>(
              [&](int w) TW_BODY { part[r][w] = Path::template dot<I>(part[r][w], activation, weights[w]); });
        });
      };
      step(std::integral_constant<int, 0>{});
      step(std::integral_constant<int, 1>{});
      if constexpr (Path::kSteps >= 4) {
        step(std::integral_constant<int, 2>{});
        step(std::integral_constant<int, 3>{});
      }
      if constexpr (Path::kSteps == 8) {
        step(std::integral_constant<int, 4>{});
        step(std::integral_constant<int, 5>{});
        step(std::integral_constant<int, 6>{});
        step(std::integral_constant<int, 7>{});
      }
    }
    unrolled<kWide>([&](int w) TW_BODY {
      const int64_t p = panel + w / kVecs, at = group * kPanelCols + w % kVecs * kLanes;
      const VF scale = load_fp16(j.scale + p * j.scale_step + at);
      unrolled<MR>([&](int r) TW_BODY { total[r][w] = fma(scale, Path::whole(part[r][w]), total[r][w]); });
      if (j.kind_of_zero != kMin) return;
      const VF low = load_fp16(j.minimum + p * j.minimum_step + at);
      unrolled<MR>([&](int r) TW_BODY {
        total[r][w] = fma(low, bcast(j.sums[(row + r) * j.groups + group]), total[r][w]);
      });
    });
  }
  unrolled<MR>([&](int r) TW_BODY {
    const VF by_row = bcast(j.row_scale == nullptr ? 1.0f : j.row_scale[row + r]);
    unrolled<kWide>([&](int w) TW_BODY {
      const int64_t col = panel * kPanelCols + w * kLanes;
      const VF value = mul(total[r][w], by_row);
      put(j, row + r, col, j.bias == nullptr ? value : add(value, load(j.bias + col)));
    });
  });
}

template <class Path, int MR>
void panels(const Job& j, int64_t row, int64_t begin, int64_t end) {
  if constexpr (MR <= Path::kFewRows && !std::is_same_v<Path, typename Path::Few>) {
    if (Path::few(j.kind_of_zero)) return panels<typename Path::Few, MR>(j, row, begin, end);
  }
  constexpr int kMany = panels_for(MR);
  int64_t panel = begin;
  for (; panel + kMany <= end; panel += kMany) tile<Path, MR, kMany>(j, row, panel);
  for (; panel < end; ++panel) tile<Path, MR, 1>(j, row, panel);
}

// Up to MR rows.
template <class Path, int MR>
void rows(const Job& j, int64_t row, int64_t count, int64_t begin, int64_t end) {
  if constexpr (MR > 0) {
    if (count == MR) return panels<Path, MR>(j, row, begin, end);
    rows<Path, MR - 1>(j, row, count, begin, end);
  }
}

template <class Path>
void run(const Job& j) {
  constexpr int64_t kStep = panels_for(1);
  const int64_t tiles = (j.rows + kRows<Path> - 1) / kRows<Path>;
  for (int64_t panel = 0; panel < j.panels; panel += kStep) {
    const int64_t end = panel + kStep < j.panels ? panel + kStep : j.panels;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = t * j.rows / tiles, next = (t + 1) * j.rows / tiles;
      rows<Path, kRows<Path>>(j, row, next - row, panel, end);
    }
  }
}

using Int8 = std::conditional_t<kHasDpbusd, Bytes, Int16Pairs>;

// Where there are tile registers, dot products of bf16 in vectors are slower than sums of floats.
using Bf16 = std::conditional_t<kHasTiles, Floats<false>, Bf16Vectors>;

constexpr KernelTable kTable = {
    .stage = {kFloats, Bf16::kStage, kFloats, Int8::kStage},
    .needs_sums = {false, false, false, Int8::kNeedsSums},
    .panels = panels_for(1),
    .run = {run<Floats<false>>, run<Bf16>, run<Floats<false>>, run<Int8>},
#if TW_LEVEL == TW_LEVEL_amx
    .parts = {kParts[kF32], kParts[kBF16], kParts[kF16], kParts[kI8]},
    .tile_least = {4, 3, 3, 10},
    .run_tiles = {run_tiles<kParts[kF32]>, run_tiles<kParts[kBF16]>, run_tiles<kParts[kF16]>,
                  run_tiles<kParts[kI8]>},
    .stage_tiles = stage_row,
#else
    .parts = {},
    .tile_least = {},
    .run_tiles = {},
    .stage_tiles = nullptr,
#endif
};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::gemm_w4::TW_ISA
