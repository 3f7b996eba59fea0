// Kernels on tile registers (AMX) for bf16 and int8: C tiles of 16 rows by one panel, 64 bytes of k at a
// time.
//
// Packed A is [row tile][chunk][16][64 bytes], zero padded, and a chunk of a panel is a B tile as it lies.
// The end of K, where a panel has less than a chunk, goes through a zero-padded copy.
#pragma once

#include "gemm/host_pack.hpp"

namespace tw::gemm::TW_ISA {
namespace {

constexpr int kChunkGroups = kTileRows;  // groups of k per chunk

struct TileBF16 {
  using Sum = float;
  static constexpr Kind kKind = kBF16;
  template <int C, int A, int B>
  TW_INLINE void dot() {
    tile_dot_bf16<C, A, B>();
  }
};

struct TileI8 {
  using Sum = int32_t;
  static constexpr Kind kKind = kI8;
  template <int C, int A, int B>
  TW_INLINE void dot() {
    tile_dot_int8<C, A, B>();
  }
};

template <class S>
constexpr int kChunkK = kChunkGroups * kGroup[S::kKind];  // values of k per chunk

// One row tile.
template <class S>
void pack_a_tiles(const PackA& p) {
  using E = Element<S::kKind>;
  constexpr int kK = kChunkK<S>;
  const int64_t chunks = (p.k + kK - 1) / kK;
  char* const dst = reinterpret_cast<char*>(p.dst);
  __builtin_memset(dst, 0, static_cast<size_t>(p.rows < kTileRows || p.k % kK != 0 ? chunks * kTileSize : 0));
  for (int64_t i = 0; i < p.rows; ++i) {
    const E* src = reinterpret_cast<const E*>(p.a.data) + i * p.a.row_stride;
    for (int64_t c = 0; c < chunks; ++c, src += kK * p.a.col_stride) {
      E* to = reinterpret_cast<E*>(dst + c * kTileSize + i * kTileBytes);
      const int64_t left = p.k - c * kK, n = left < kK ? left : kK;
      if (p.a.col_stride == 1 && n == kK) {
        __builtin_memcpy(to, src, kTileBytes);
      } else if (p.a.col_stride == 1) {
        __builtin_memcpy(to, src, static_cast<size_t>(n) * sizeof(E));
      } else {
        for (int64_t j = 0; j < n; ++j) to[j] = src[j * p.a.col_stride];
      }
    }
  }
}

// The rest of K in NP panels (or rows), as whole tiles.
template <int NP>
struct Tails {
  alignas(64) char tile[NP][kTileSize] = {};
};

struct TileCall {
  const char* a;  // chunks of the first row tile; the next one is `a_bytes` on
  int64_t a_bytes;
  const char* b;
  int64_t panel_bytes, chunks;
  const char* tails;  // null when the panels end with a whole chunk
  void* acc;
  int64_t acc_stride;
  bool first;
  const char* prefetch;  // panels wanted next, `panel_bytes` apart
  int64_t prefetch_step, prefetch_lines;
};

// Sums of row tile r and panel p are in tile 2 * r + p; A is in 4 and 5, B in 6 and 7.
template <class S, int RT, int NP>
TW_INLINE void tile_chunk(const char* a, int64_t a_bytes, const char* b, int64_t b_apart) {
  tile_load<6>(b, kTileBytes);
  tile_load<4>(a, kTileBytes);
  S::template dot<0, 4, 6>();
  if constexpr (RT == 2) {
    tile_load<5>(a + a_bytes, kTileBytes);
    S::template dot<2, 5, 6>();
  }
  if constexpr (NP == 2) {
    tile_load<7>(b + b_apart, kTileBytes);
    S::template dot<1, 4, 7>();
    if constexpr (RT == 2) S::template dot<3, 5, 7>();
  }
}

template <int RT, int NP, class Body>
TW_INLINE void each_sum(const Body& body) {
  body.template operator()<0>(0, 0);
  if constexpr (NP == 2) body.template operator()<1>(0, 1);
  if constexpr (RT == 2) body.template operator()<2>(1, 0);
  if constexpr (RT == 2 && NP == 2) body.template operator()<3>(1, 1);
}

template <class S, int RT, int NP>
void tile_micro(const TileCall& t) {
  using Sum = typename S::Sum;
  const int64_t acc_bytes = t.acc_stride * 4;
  const auto sums = [&](int r, int p) TW_BODY {
    return static_cast<Sum*>(t.acc) + r * kTileRows * t.acc_stride + p * kPanel;
  };
  each_sum<RT, NP>([&]<int T>(int r, int p) TW_BODY {
    if (t.first) {
      tile_zero<T>();
    } else {
      tile_load<T>(sums(r, p), acc_bytes);
    }
  });
  const char *a = t.a, *b = t.b, *ahead = t.prefetch;
  for (int64_t c = 0; c < t.chunks; ++c) {
    tile_chunk<S, RT, NP>(a, t.a_bytes, b, t.panel_bytes);
    for (int64_t i = 0; i < t.prefetch_lines; ++i) {
      for (int p = 0; p < NP; ++p) prefetch_l2(ahead + p * t.panel_bytes + i * kTileBytes);
    }
    ahead += t.prefetch_step;
    a += kTileSize;
    b += kTileSize;
  }
  if (t.tails != nullptr) tile_chunk<S, RT, NP>(a, t.a_bytes, t.tails, kTileSize);
  each_sum<RT, NP>([&]<int T>(int r, int p) TW_BODY { tile_store<T>(sums(r, p), acc_bytes); });
}

template <class S, int RT>
TW_INLINE void tile_panels(const TileCall& t, int64_t panels) {
  if (panels == 2) return tile_micro<S, RT, 2>(t);
  tile_micro<S, RT, 1>(t);
}

// Copies what follows the whole chunks of each panel.
template <int NP>
TW_INLINE void copy_tails(Tails<NP>& to, const char* from, int64_t apart, int64_t panels, int64_t bytes) {
  for (int64_t p = 0; p < panels; ++p) {
    __builtin_memcpy(to.tile[p], from + p * apart, static_cast<size_t>(bytes));
  }
}

template <class S>
void tile_block(const Tile& t) {
  const int64_t chunks = t.groups / kChunkGroups, rest = t.groups % kChunkGroups;
  const int64_t row_tiles = (t.rows + kTileRows - 1) / kTileRows, pairs = (row_tiles + 1) / 2;
  Tails<2> tails;
  if (rest != 0) copy_tails(tails, t.b + chunks * kTileSize, t.panel_bytes, t.panels, rest * t.group_bytes);
  TileCall call;
  call.a_bytes = t.total_groups * kTileRows * 4;
  call.b = t.b;
  call.panel_bytes = t.panel_bytes;
  call.chunks = chunks;
  call.tails = rest != 0 ? tails.tile[0] : nullptr;
  call.acc_stride = t.acc_stride;
  call.first = t.first_group == 0;
  const int64_t turns = pairs * chunks;
  call.prefetch_lines = t.prefetch && turns != 0 ? (t.groups + turns - 1) / turns : 0;
  call.prefetch_step = call.prefetch_lines * kTileBytes;
  for (int64_t i = 0; i < pairs; ++i) {
    const int64_t row = 2 * i * kTileRows;
    call.a = reinterpret_cast<const char*>(t.a + row * t.total_groups + kTileRows * t.first_group);
    call.acc = static_cast<typename S::Sum*>(t.acc) + row * t.acc_stride;
    call.prefetch = t.prefetch ? t.prefetch + i * chunks * call.prefetch_step : t.b;
    if (2 * i + 1 < row_tiles) {
      tile_panels<S, 2>(call, t.panels);
    } else {
      tile_panels<S, 1>(call, t.panels);
    }
  }
}

constexpr int kStreams = 4;                    // tiles of C side by side, to hide the latency of a product
constexpr int64_t kTileAhead = 4 * kTileSize;  // bytes

// C[16, 16 * NP] += one operand in `shared` chunks times NP streamed ones, or (Flip) the other way round.
template <class S, int NP, bool Flip>
TW_INLINE void stream_chunk(const char* shared, const char* streamed, int64_t apart, int64_t row_bytes) {
  tile_load<4>(shared, kTileBytes);
  const auto one = [&]<int C, int T>() TW_BODY {
    tile_load<T>(streamed + C * apart, row_bytes);
    if constexpr (Flip) {
      S::template dot<C, T, 4>();
    } else {
      S::template dot<C, 4, T>();
    }
  };
  one.template operator()<0, 5>();
  if constexpr (NP > 1) one.template operator()<1, 6>();
  if constexpr (NP > 2) one.template operator()<2, 7>();
  if constexpr (NP > 3) one.template operator()<3, 5>();
}

template <int NP, class Body>
TW_INLINE void each_stream(const Body& body) {
  body.template operator()<0>();
  if constexpr (NP > 1) body.template operator()<1>();
  if constexpr (NP > 2) body.template operator()<2>();
  if constexpr (NP > 3) body.template operator()<3>();
}

template <class S, int NP>
void stream_tiles(const Tile& t, int64_t panel) {
  const int64_t chunks = t.groups / kChunkGroups, rest = t.groups % kChunkGroups;
  const char* a = reinterpret_cast<const char*>(t.a);
  const char* b = t.b + panel * t.panel_bytes;
  each_stream<NP>([&]<int C>() TW_BODY { tile_zero<C>(); });
  for (int64_t c = 0; c < chunks; ++c, a += kTileSize, b += kTileSize) {
    if (t.prefetch != nullptr) {
      for (int p = 0; p < NP; ++p) {
        for (int i = 0; i < kTileRows; ++i) prefetch_l2(b + p * t.panel_bytes + kTileAhead + i * kTileBytes);
      }
    }
    stream_chunk<S, NP, false>(a, b, t.panel_bytes, kTileBytes);
  }
  if (rest != 0) {
    Tails<NP> tails;
    copy_tails(tails, b, t.panel_bytes, NP, rest * kGroupBytes[S::kKind]);
    stream_chunk<S, NP, false>(a, tails.tile[0], kTileSize, kTileBytes);
  }
  typename S::Sum* acc = static_cast<typename S::Sum*>(t.acc) + panel * kPanel;
  each_stream<NP>([&]<int C>() TW_BODY { tile_store<C>(acc + C * kPanel, t.acc_stride * 4); });
}

template <class S>
void stream_block(const Tile& t) {
  int64_t panel = 0;
  for (; panel + kStreams <= t.panels; panel += kStreams) stream_tiles<S, kStreams>(t, panel);
  switch (t.panels - panel) {
    case 3:
      return stream_tiles<S, 3>(t, panel);
    case 2:
      return stream_tiles<S, 2>(t, panel);
    case 1:
      return stream_tiles<S, 1>(t, panel);
  }
}

// Rows for `dot`: B tiles of their transpose, [chunk][16 groups][16 rows][KR], zero padded.
template <class S>
void pack_dot_tiles(const PackA& p) {
  using E = Element<S::kKind>;
  constexpr int kR = kGroup[S::kKind], kK = kChunkK<S>;
  const int64_t chunks = (p.k + kK - 1) / kK;
  __builtin_memset(p.dst, 0, static_cast<size_t>(chunks * kTileSize));
  for (int64_t i = 0; i < p.rows; ++i) {
    const E* src = reinterpret_cast<const E*>(p.a.data) + i * p.a.row_stride;
    E* to = reinterpret_cast<E*>(p.dst) + i * kR;
    for (int64_t k = 0; k < p.k; ++k) to[k / kR * kTileRows * kR + k % kR] = src[k * p.a.col_stride];
  }
}

// 16 * NB columns of B, stored as rows along K, are the A tiles; the sums come out transposed. Nothing is
// prefetched: a line of each of 64 columns per chunk left no room for the loads themselves (measured).
template <class S, int NB>
void dot_tiles(const Dot& d, int64_t col) {
  constexpr int kBytes = kElementBytes[S::kKind];
  const int64_t full = d.k / kChunkK<S>, rest = d.k % kChunkK<S> * kBytes;
  const int64_t cols = d.cols - col < NB * kTileRows ? d.cols - col : NB * kTileRows;
  const bool whole = cols == NB * kTileRows;
  const int64_t apart = kTileRows * d.b_col_bytes;
  const char* a = reinterpret_cast<const char*>(d.a);
  const char* b = d.b + col * d.b_col_bytes;
  each_stream<NB>([&]<int C>() TW_BODY { tile_zero<C>(); });
  Tails<NB> copy;
  const auto copied = [&](int64_t bytes) TW_BODY {
    for (int64_t j = 0; j < cols; ++j) {
      __builtin_memcpy(copy.tile[0] + j * kTileBytes, b + j * d.b_col_bytes, static_cast<size_t>(bytes));
    }
    stream_chunk<S, NB, true>(a, copy.tile[0], kTileSize, kTileBytes);
  };
  for (int64_t c = 0; c < full; ++c, a += kTileSize, b += kTileBytes) {
    if (!whole) {
      copied(kTileBytes);
      continue;
    }
    stream_chunk<S, NB, true>(a, b, apart, d.b_col_bytes);
  }
  if (rest != 0) {
    copy = {};
    copied(rest);
  }
  typename S::Sum sums[NB * kTileRows][kTileRows];
  each_stream<NB>([&]<int C>() TW_BODY { tile_store<C>(sums[C * kTileRows], kTileBytes); });
  typename S::Sum* acc = static_cast<typename S::Sum*>(d.acc) + col;
  for (int64_t i = 0; i < d.rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) acc[i * d.acc_stride + j] = sums[j][i];
  }
}

template <class S>
void dot_block_tiles(const Dot& d) {
  constexpr int64_t kCols = kStreams * kTileRows;
  int64_t col = 0;
  for (; col + kCols <= d.cols; col += kCols) dot_tiles<S, kStreams>(d, col);
  switch ((d.cols - col + kTileRows - 1) / kTileRows) {
    case 4:
      return dot_tiles<S, 4>(d, col);
    case 3:
      return dot_tiles<S, 3>(d, col);
    case 2:
      return dot_tiles<S, 2>(d, col);
    case 1:
      return dot_tiles<S, 1>(d, col);
  }
}

// What one kind needs of KernelTable.
template <class S>
struct OnTiles {
  static constexpr int kMr = kTileRows, kNp = 2, kRowUnit = kTileRows, kKUnit = kChunkGroups, kAWords = 1;
  // Tile products outrun the outer caches: packed rows stay in the second level until they are used.
  static constexpr int kBandBytes = 512 << 10;
  static constexpr int kDotChunk = kChunkK<S>, kDotWords = kTileBytes / 4;
  static constexpr auto kPackA = pack_a_tiles<S>;
  static constexpr auto kTile = tile_block<S>;
  static constexpr auto kStream = stream_block<S>;
  static constexpr auto kPackDot = pack_dot_tiles<S>;
  static constexpr auto kDot = dot_block_tiles<S>;
  static constexpr void (*kBegin)() = tiles_begin;
  static constexpr void (*kEnd)() = tiles_end;
};

}  // namespace
}  // namespace tw::gemm::TW_ISA
