// Register-tile kernels over packed operands: MR rows by NP panels of 16 columns.
#pragma once

#include "_host/simd/simd.hpp"
#include "gemm/host_kernels.hpp"

namespace tw::gemm::TW_ISA {
namespace {

using namespace tw::TW_ISA;

#if TW_LEVEL >= TW_LEVEL_avx512
constexpr int kMr = 12, kNp = 2;
#elif TW_LEVEL == TW_LEVEL_scalar
constexpr int kMr = 2, kNp = 1;
#else
constexpr int kMr = 6, kNp = 1;
#endif
constexpr int kVecBytes = 4 * kLanes;

TW_INLINE float word_float(const uint32_t* p) {
  float value;
  __builtin_memcpy(&value, p, 4);
  return value;
}

// Each traits struct adds one group of k to the sums c[MR][NP * kPanelVecs].
struct StepF32 {
  using Vec = VF;
  using Sum = float;
  static constexpr Kind kKind = kF32;
  static constexpr int kBytes = kGroupBytes[kF32];
  static constexpr int kWords = 1;

  template <int MR, int NP>
  TW_INLINE void step(VF (&c)[MR][NP * kPanelVecs], const uint32_t* a, const char* b, int64_t panel_bytes) {
    VF bv[NP * kPanelVecs];
    unrolled<NP>([&](int p) TW_BODY {
      unrolled<kPanelVecs>([&](int v) TW_BODY {
        bv[p * kPanelVecs + v] = load(reinterpret_cast<const float*>(b + p * panel_bytes) + v * kLanes);
      });
    });
    unrolled<MR>([&](int i) TW_BODY {
      const VF av = bcast(word_float(a + i));
      unrolled<NP * kPanelVecs>([&](int v) TW_BODY { c[i][v] = fma(av, bv[v], c[i][v]); });
    });
  }
};

struct StepF16 {
  using Vec = VF;
  using Sum = float;
  static constexpr Kind kKind = kF16;
  static constexpr int kBytes = kGroupBytes[kF16];
  static constexpr int kWords = 1;

  template <int MR, int NP>
  TW_INLINE void step(VF (&c)[MR][NP * kPanelVecs], const uint32_t* a, const char* b, int64_t panel_bytes) {
    VF bv[NP * kPanelVecs];
    unrolled<NP>([&](int p) TW_BODY {
      unrolled<kPanelVecs>([&](int v) TW_BODY {
        bv[p * kPanelVecs + v] =
            load_fp16(reinterpret_cast<const uint16_t*>(b + p * panel_bytes) + v * kLanes);
      });
    });
    unrolled<MR>([&](int i) TW_BODY {
      const VF av = bcast(word_float(a + i));
      unrolled<NP * kPanelVecs>([&](int v) TW_BODY { c[i][v] = fma(av, bv[v], c[i][v]); });
    });
  }
};

// Pairs of bf16: the dot instruction, or the even and the odd element widened to fp32 in turn.
struct StepBF16 {
  using Vec = VF;
  using Sum = float;
  static constexpr Kind kKind = kBF16;
  static constexpr int kBytes = kGroupBytes[kBF16];
  static constexpr int kWords = kHasDpbf16 ? 1 : 2;

  template <int MR, int NP>
  TW_INLINE void step(VF (&c)[MR][NP * kPanelVecs], const uint32_t* a, const char* b, int64_t panel_bytes) {
    constexpr int kVecs = NP * kPanelVecs;
    if constexpr (kHasDpbf16) {
      VI bv[kVecs];
      unrolled<NP>([&](int p) TW_BODY {
        unrolled<kPanelVecs>(
            [&](int v) TW_BODY { bv[p * kPanelVecs + v] = load_i(b + p * panel_bytes + v * kVecBytes); });
      });
      unrolled<MR>([&](int i) TW_BODY {
        const VI av = bcast_i(a[i]);
        unrolled<kVecs>([&](int v) TW_BODY { c[i][v] = dpbf16(c[i][v], bv[v], av); });
      });
    } else {
      unrolled<2>([&](int half) TW_BODY {
        VF bv[kVecs];
        unrolled<NP>([&](int p) TW_BODY {
          unrolled<kPanelVecs>([&](int v) TW_BODY {
            const VI raw = load_i(b + p * panel_bytes + v * kVecBytes);
            bv[p * kPanelVecs + v] = half == 0 ? bf16_even(raw) : bf16_odd(raw);
          });
        });
        unrolled<MR>([&](int i) TW_BODY {
          const VF av = bcast(word_float(a + half * MR + i));
          unrolled<kVecs>([&](int v) TW_BODY { c[i][v] = fma(av, bv[v], c[i][v]); });
        });
      });
    }
  }
};

// Quads of int8. With dpbusd, B is offset by 128 to become the unsigned operand and a row's sum starts from
// -128 * sum(a), which cancels it exactly modulo 2^32. Without, even and odd bytes are widened to 16 bits,
// where a pair of products (at most 2 * 128 * 128) cannot overflow the 32-bit result of madd16.
struct StepI8 {
  using Vec = VI;
  using Sum = int32_t;
  static constexpr Kind kKind = kI8;
  static constexpr int kBytes = kGroupBytes[kI8];
  static constexpr int kWords = kHasDpbusd ? 1 : 2;

  template <int MR, int NP>
  TW_INLINE void step(VI (&c)[MR][NP * kPanelVecs], const uint32_t* a, const char* b, int64_t panel_bytes) {
    constexpr int kVecs = NP * kPanelVecs;
    if constexpr (kHasDpbusd) {
      VI bv[kVecs];
      unrolled<NP>([&](int p) TW_BODY {
        unrolled<kPanelVecs>([&](int v) TW_BODY {
          bv[p * kPanelVecs + v] = flip_sign_bits8(load_i(b + p * panel_bytes + v * kVecBytes));
        });
      });
      unrolled<MR>([&](int i) TW_BODY {
        const VI av = bcast_i(a[i]);
        unrolled<kVecs>([&](int v) TW_BODY { c[i][v] = dpbusd(c[i][v], bv[v], av); });
      });
    } else {
      unrolled<2>([&](int half) TW_BODY {
        VI bv[kVecs];
        unrolled<NP>([&](int p) TW_BODY {
          unrolled<kPanelVecs>([&](int v) TW_BODY {
            const VI raw = load_i(b + p * panel_bytes + v * kVecBytes);
            bv[p * kPanelVecs + v] = half == 0 ? bytes_even(raw) : bytes_odd(raw);
          });
        });
        unrolled<MR>([&](int i) TW_BODY {
          const VI av = bcast_i(a[half * MR + i]);
          unrolled<kVecs>([&](int v) TW_BODY { c[i][v] = madd16_add(c[i][v], av, bv[v]); });
        });
      });
    }
  }
};

// Widened int8: a group is a pair of 16-bit k, as bytes_even() or bytes_odd() leave them.
struct StepI16 {
  using Vec = VI;
  using Sum = int32_t;
  static constexpr int kWords = 1;
  static constexpr int kBytes = 64;

  template <int MR, int NP>
  TW_INLINE void step(VI (&c)[MR][NP * kPanelVecs], const uint32_t* a, const char* b, int64_t panel_bytes) {
    VI bv[NP * kPanelVecs];
    unrolled<NP>([&](int p) TW_BODY {
      unrolled<kPanelVecs>(
          [&](int v) TW_BODY { bv[p * kPanelVecs + v] = load_i(b + p * panel_bytes + v * kVecBytes); });
    });
    unrolled<MR>([&](int i) TW_BODY {
      const VI av = bcast_i(a[i]);
      unrolled<NP * kPanelVecs>([&](int v) TW_BODY { c[i][v] = madd16_add(c[i][v], av, bv[v]); });
    });
  }
};

TW_INLINE VF load_sum(const float* p) { return load(p); }
TW_INLINE VI load_sum(const int32_t* p) { return load_i(p); }
TW_INLINE VF start_sum(VF, const int32_t*, int) { return zero_f(); }
TW_INLINE VI start_sum(VI, const int32_t* start, int row) {
  return start ? bcast_i(static_cast<uint32_t>(start[row])) : zero_i();
}

struct Micro {
  const uint32_t* a;
  const char* b;
  int64_t panel_bytes, groups;
  void* acc;
  int64_t acc_stride;
  const int32_t* row_start;
  bool first;
  const char* prefetch;
  int64_t prefetch_step;
};

template <class S, int MR, int NP>
void micro(const Micro& m) {
  constexpr int kVecs = NP * kPanelVecs;
  using Sum = typename S::Sum;
  typename S::Vec c[MR][kVecs];
  Sum* acc = static_cast<Sum*>(m.acc);
  unrolled<MR>([&](int i) TW_BODY {
    unrolled<kVecs>([&](int v) TW_BODY {
      c[i][v] = m.first ? start_sum(c[i][v], m.row_start, i) : load_sum(acc + i * m.acc_stride + v * kLanes);
    });
  });
  const uint32_t* a = m.a;
  const char* b = m.b;
  const char* ahead = m.prefetch;
  const int64_t panel_bytes = m.panel_bytes, ahead_step = m.prefetch_step;
#pragma GCC unroll 2
  for (int64_t g = 0; g < m.groups; ++g) {
    S::template step<MR, NP>(c, a, b, panel_bytes);
    unrolled<NP>([&](int p) TW_BODY { prefetch(ahead + p * panel_bytes); });
    ahead += ahead_step;
    a += MR * S::kWords;
    b += S::kBytes;
  }
  unrolled<MR>([&](int i) TW_BODY {
    unrolled<kVecs>([&](int v) TW_BODY { store(acc + i * m.acc_stride + v * kLanes, c[i][v]); });
  });
}

// Independent chains of sums per output, so that one row or two still keep the multipliers busy.
template <int MR>
constexpr int kChains = MR * kPanelVecs >= 12 ? 1 : (12 / (MR * kPanelVecs) > 8 ? 8 : 12 / (MR * kPanelVecs));

constexpr int64_t kStreamAhead = 512;  // bytes

template <class S, int MR>
void stream_panel(const Micro& m) {
  constexpr int kU = kChains<MR>;
  using Sum = typename S::Sum;
  typename S::Vec c[kU][MR][kPanelVecs];
  unrolled<kU>([&](int u) TW_BODY {
    unrolled<MR>([&](int i) TW_BODY {
      unrolled<kPanelVecs>(
          [&](int v) TW_BODY { c[u][i][v] = start_sum(c[u][i][v], u == 0 ? m.row_start : nullptr, i); });
    });
  });
  const uint32_t* a = m.a;
  const char* b = m.b;
  const char* ahead = m.prefetch;
  int64_t g = 0;
  for (; g + kU <= m.groups; g += kU) {
    unrolled<kU>([&](int u) TW_BODY {
      S::template step<MR, 1>(c[u], a + u * MR * S::kWords, b + u * S::kBytes, 0);
      prefetch(ahead + u * S::kBytes);
    });
    ahead += kU * m.prefetch_step;
    a += kU * MR * S::kWords;
    b += kU * S::kBytes;
  }
  for (; g < m.groups; ++g) {
    S::template step<MR, 1>(c[0], a, b, 0);
    a += MR * S::kWords;
    b += S::kBytes;
  }
  Sum* acc = static_cast<Sum*>(m.acc);
  unrolled<MR>([&](int i) TW_BODY {
    unrolled<kPanelVecs>([&](int v) TW_BODY {
      typename S::Vec total = c[0][i][v];
      for (int u = 1; u < kU; ++u) total = add(total, c[u][i][v]);
      store(acc + i * m.acc_stride + v * kLanes, total);
    });
  });
}

using MicroFn = void (*)(const Micro&);

template <int... I>
struct Rows {};
template <int N, int... I>
struct CountRows : CountRows<N - 1, N, I...> {};
template <int... I>
struct CountRows<0, I...> {
  using type = Rows<I...>;
};

// Entry r - 1 serves r rows.
template <class S, class R = typename CountRows<kMr>::type>
struct MicroTable;
template <class S, int... I>
struct MicroTable<S, Rows<I...>> {
  static constexpr MicroFn kTile[kNp][kMr] = {
      {micro<S, I, 1>...},
#if TW_LEVEL >= TW_LEVEL_avx512
      {micro<S, I, 2>...},
#endif
  };
  static constexpr MicroFn kStream[kMr] = {stream_panel<S, I>...};
};

// Where the multiply-add needs B wider than it is stored, a panel used by several row tiles is widened once:
// `Wide` are the steps over it, `kSplit` of them per group. Same sums in the same order.
template <class S>
struct Widening {
  using Wide = S;
  static constexpr int kSplit = 0;
};
template <>
struct Widening<StepF16> {
  using Wide = StepF32;
  static constexpr int kSplit = 1;
  TW_INLINE void widen(const char* from, float* to) {
    unrolled<kPanelVecs>([&](int v) TW_BODY {
      store(to + v * kLanes, load_fp16(reinterpret_cast<const uint16_t*>(from) + v * kLanes));
    });
  }
};
#if TW_LEVEL < TW_LEVEL_avx512
template <>
struct Widening<StepBF16> {
  using Wide = StepF32;
  static constexpr int kSplit = 2;
  TW_INLINE void widen(const char* from, float* to) {
    unrolled<kPanelVecs>([&](int v) TW_BODY {
      const VI raw = load_i(from + v * kVecBytes);
      store(to + v * kLanes, bf16_even(raw));
      store(to + kPanel + v * kLanes, bf16_odd(raw));
    });
  }
};
#endif
#if TW_LEVEL < TW_LEVEL_avx2vnni
template <>
struct Widening<StepI8> {
  using Wide = StepI16;
  static constexpr int kSplit = 2;
  TW_INLINE void widen(const char* from, int32_t* to) {
    unrolled<kPanelVecs>([&](int v) TW_BODY {
      const VI raw = load_i(from + v * kVecBytes);
      store(to + v * kLanes, bytes_even(raw));
      store(to + kPanel + v * kLanes, bytes_odd(raw));
    });
  }
};
#endif

constexpr int64_t kWidenRowTiles = 3;

// All row tiles of the block against `panels` panels; S are the steps, `m` holds what row tiles share.
template <class S>
void tile_rows(const Tile& t, Micro m, const Parts& rows, int64_t words, int64_t split) {
  m.groups = t.groups * split;
  const int64_t calls = m.groups * rows.count;
  m.prefetch_step = t.prefetch ? (t.groups * t.group_bytes + calls - 1) / calls : 0;
  for (int64_t i = 0; i < rows.count; ++i) {
    const int64_t row = rows.begin(i), mr = rows.size(i);
    m.a = t.a + (row * t.total_groups + mr * t.first_group) * words;
    m.acc = static_cast<typename S::Sum*>(t.acc) + row * t.acc_stride;
    m.row_start = t.row_start ? t.row_start + row : nullptr;
    m.prefetch = t.prefetch ? t.prefetch + i * m.groups * m.prefetch_step : m.b;
    MicroTable<S>::kTile[t.panels - 1][mr - 1](m);
  }
}

template <class S>
void tile(const Tile& t) {
  const Parts rows = cut(t.rows, kMr);
  Micro m{};
  m.b = t.b;
  m.panel_bytes = t.panel_bytes;
  m.acc_stride = t.acc_stride;
  m.first = t.first_group == 0;
  using W = Widening<S>;
  if constexpr (W::kSplit != 0) {
    if (rows.count >= kWidenRowTiles) {
      constexpr int64_t kWords = kPanel * W::kSplit;
      for (int64_t p = 0; p < t.panels; ++p) {
        const char* from = t.b + p * t.panel_bytes;
        typename W::Wide::Sum* to = static_cast<typename W::Wide::Sum*>(t.wide) + p * t.groups * kWords;
        for (int64_t g = 0; g < t.groups; ++g) W::widen(from + g * S::kBytes, to + g * kWords);
      }
      m.b = static_cast<const char*>(t.wide);
      m.panel_bytes = t.groups * kWords * 4;
      return tile_rows<typename W::Wide>(t, m, rows, S::kWords, W::kSplit);
    }
  }
  tile_rows<S>(t, m, rows, S::kWords, 1);
}

template <class S>
void stream(const Tile& t) {
  Micro m;
  m.a = t.a;
  m.groups = t.groups;
  m.acc_stride = t.acc_stride;
  m.row_start = t.row_start;
  m.prefetch_step = t.prefetch ? S::kBytes : 0;
  for (int64_t p = 0; p < t.panels; ++p) {
    m.b = t.b + p * t.panel_bytes;
    m.prefetch = t.prefetch ? m.b + kStreamAhead : m.b;
    m.acc = static_cast<typename S::Sum*>(t.acc) + p * kPanel;
    MicroTable<S>::kStream[t.rows - 1](m);
  }
}

}  // namespace
}  // namespace tw::gemm::TW_ISA
