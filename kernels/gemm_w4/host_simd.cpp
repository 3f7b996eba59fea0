// Tiles of rows times panels; compiled once per ISA level with -DTW_ISA=<level>.
//
// A sum runs through k in one order whatever the tile, so the bits of a row do not depend on its mates; but
// many rows may have another (`KernelTable::run_many`), and a few take that only where it is asked for.
#include <type_traits>

#include "gemm_w4/host_floats.hpp"
#include "gemm_w4/host_paths.hpp"
#include "gemm_w4/host_stage.hpp"
#include "gemm_w4/host_tiles.hpp"

namespace tw::gemm_w4::TW_ISA {
namespace {

constexpr int kVecs = kPanelVecs;
constexpr int64_t kUnit = kLanes == 16 ? 4 : 2;  // panels

// Vectors of columns that a tile reads, from vector `first` on.
template <int Count>
struct Columns {
  const char* codes[Count];
  const uint16_t *scale[Count], *minimum[Count];

  TW_INLINE Columns at(const Job& j, int64_t first) {
    Columns c{};
    unrolled<Count>([&](int w) TW_BODY {
      const int64_t panel = (first + w) / kVecs, lane = (first + w) % kVecs * kLanes;
      c.codes[w] = j.codes + panel * j.codes_bytes + 4 * lane;
      c.scale[w] = j.scale + panel * j.scale_step + lane;
      if (j.kind_of_zero == kMin) c.minimum[w] = j.minimum + panel * j.minimum_step + lane;
    });
    return c;
  }
};

// Weights of a few rows come from memory: what is read next is asked for early, past the end of a panel that
// of the next ones.
constexpr int64_t kAhead = 24;
template <int Count>
TW_INLINE void prefetch_ahead(const Job& j, const Columns<Count>& c, int64_t word) {
  constexpr int64_t kPanels = (Count + kVecs - 1) / kVecs;
  const int64_t next = word + kAhead;
  const int64_t at =
      next < j.words ? next * kWordBytes : (next - j.words) * kWordBytes + kPanels * j.codes_bytes;
  for (int w = 0; w < Count; w += kVecs) prefetch(c.codes[w] + at);
}

template <class Path, int Rows, int Count>
void tile(const Job& j, int64_t row, int64_t first) {
  using Part = typename Path::Part;
  using Acc = typename Path::Acc;
  constexpr int64_t kBlockWords = kBlock / kWordCodes, kWordStaged = Path::kSteps * 4;
  VF total[Rows][Count];
  unrolled<Rows>([&](int r) TW_BODY { unrolled<Count>([&](int w) TW_BODY { total[r][w] = zero_f(); }); });
  const char* a = j.a + row * j.a_bytes;
  const auto columns = Columns<Count>::at(j, first);
  const auto table = Path::table(j.kind_of_zero);
  for (int64_t group = 0; group < j.groups; ++group) {
    VI zero[Count];
    Acc acc[Rows][Count];
    Part part[Rows][Count];
    auto clear = [&]() TW_BODY {
      unrolled<Rows>([&](int r) TW_BODY { unrolled<Count>([&](int w) TW_BODY { part[r][w] = Part{}; }); });
    };
    auto take = [&]() TW_BODY {
      unrolled<Rows>([&](int r) TW_BODY {
        unrolled<Count>([&](int w) TW_BODY { acc[r][w] = Path::take(acc[r][w], part[r][w]); });
      });
    };
    unrolled<Count>([&](int w) TW_BODY { zero[w] = zero_codes(j, first + w, group); });
    unrolled<Rows>([&](int r) TW_BODY {
      unrolled<Count>([&](int w)
                          TW_BODY { acc[r][w] = Path::begin(j, zero[w], (row + r) * j.groups + group); });
    });
    const int64_t end = (group + 1) * j.group_words < j.words ? (group + 1) * j.group_words : j.words;
    clear();
    for (int64_t word = group * j.group_words; word < end; word += kBlockWords) {
      const char* x = a + word / kBlockWords * Path::kBlockBytes;
      unrolled<kBlockWords>([&](int i) TW_BODY {
        if constexpr (Rows <= Path::kFewRows) prefetch_ahead(j, columns, word + i);
        VI v[Count];
        unrolled<Count>([&](int w) TW_BODY { v[w] = load_i(columns.codes[w] + (word + i) * kWordBytes); });
        auto step = [&](auto index) TW_BODY {
          constexpr int I = decltype(index)::value;
          VI weights[Count];
          unrolled<Count>([&](int w)
                              TW_BODY { weights[w] = Path::template weights<I>(v[w], zero[w], table); });
          unrolled<Rows>([&](int r) TW_BODY {
            const char* at = x + r * j.a_bytes + i * kWordStaged;
            unrolled<Count>([&](int w)
                                TW_BODY { part[r][w] = Path::template dot<I>(part[r][w], at, weights[w]); });
          });
        };
        step(std::integral_constant<int, 0>{});
        step(std::integral_constant<int, 1>{});
        if constexpr (Path::kSteps == 4) {
          step(std::integral_constant<int, 2>{});
          step(std::integral_constant<int, 3>{});
        }
      });
      if (!Path::kHeld) {
        take();
        clear();
      }
    }
    if (Path::kHeld) take();
    unrolled<Count>([&](int w) TW_BODY {
      const int64_t at = group * kPanelCols;
      const VF scale = load_fp16(columns.scale[w] + at);
      unrolled<Rows>([&](int r) TW_BODY {
        const VF sum = Path::whole(j, acc[r][w], (row + r) * j.groups + group);
        total[r][w] = fma(scale, sum, total[r][w]);
      });
      if (j.kind_of_zero != kMin) return;
      const VF low = load_fp16(columns.minimum[w] + at);
      unrolled<Rows>([&](int r) TW_BODY {
        total[r][w] = fma(low, bcast(j.sums[(row + r) * j.groups + group]), total[r][w]);
      });
    });
  }
  unrolled<Rows>([&](int r) TW_BODY {
    const VF by_row = bcast(j.row_scale == nullptr ? 1.0f : j.row_scale[row + r]);
    unrolled<Count>([&](int w) TW_BODY {
      const int64_t col = (first + w) * kLanes;
      const VF value = mul(total[r][w], by_row);
      put(j, row + r, col, j.bias == nullptr ? value : add(value, load(j.bias + col)));
    });
  });
}

template <class Path, int Rows>
void panels(const Job& j, int64_t row, int64_t begin, int64_t end) {
  if constexpr (Rows <= Path::kFewRows && !std::is_same_v<Path, typename Path::Few>) {
    if (Path::few(j.kind_of_zero)) return panels<typename Path::Few, Rows>(j, row, begin, end);
  }
  constexpr int kMany = Path::vectors(Rows), kRest = kMany < kVecs ? kMany : kVecs;
  int64_t first = begin * kVecs;
  for (; first + kMany <= end * kVecs; first += kMany) tile<Path, Rows, kMany>(j, row, first);
  for (; first < end * kVecs; first += kRest) tile<Path, Rows, kRest>(j, row, first);
}

// Up to Rows rows.
template <class Path, int Rows>
void rows(const Job& j, int64_t row, int64_t count, int64_t begin, int64_t end) {
  if constexpr (Rows > 0) {
    if (count == Rows) return panels<Path, Rows>(j, row, begin, end);
    rows<Path, Rows - 1>(j, row, count, begin, end);
  }
}

template <class Path>
void run(const Job& j) {
  const int64_t tiles = (j.rows + Path::kRows - 1) / Path::kRows;
  for (int64_t panel = 0; panel < j.panels; panel += kUnit) {
    const int64_t end = panel + kUnit < j.panels ? panel + kUnit : j.panels;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = t * j.rows / tiles, next = (t + 1) * j.rows / tiles;
      rows<Path, Path::kRows>(j, row, next - row, panel, end);
    }
  }
}

// Where there are tile registers, dot products of bf16 in vectors are slower than those of bytes.
#if TW_LEVEL == TW_LEVEL_avx512
using Bf16 = Bf16Pairs<false>;
constexpr int kBf16Bytes = 0;
#else
using Bf16 = Bytes<3>;
constexpr int kBf16Bytes = 3;
#endif

constexpr KernelTable kTable = {
    .bytes = {4, kBf16Bytes, 3, 1},
    .panels = kUnit,
    .run = {run<Bytes<4>>, run<Bf16>, run<Bytes<3>>, run<Bytes<1>>},
    .stage_bytes = stage_bytes,
#if TW_LEVEL == TW_LEVEL_amx
    .many_bytes = {2 * kParts[kF32], 2 * kParts[kBF16], 2 * kParts[kF16], 2 * kParts[kI8]},
    .many_least = {4, 3, 3, 10},
    .many_whole = false,
    .run_many = {run_tiles<kParts[kF32]>, run_tiles<kParts[kBF16]>, run_tiles<kParts[kF16]>,
                 run_tiles<kParts[kI8]>},
    .stage_many = stage_row,
#elif TW_LEVEL < TW_LEVEL_avx2vnni
    .many_bytes = {4, 4, 4, 0},
    .many_least = {3, 4, 4, 0},
    .many_whole = true,
    .run_many = {run_floats, run_floats, run_floats, nullptr},
    .stage_many = stage_floats,
#else
    .many_bytes = {},
    .many_least = {},
    .many_whole = false,
    .run_many = {},
    .stage_many = nullptr,
#endif
};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::gemm_w4::TW_ISA
