// Products on tile registers (AMX). Keys, and values transposed, are the left operands; rows and weights lie
// as right operands anyway, panel by panel. In words, bf16 and int8 lie alike.
//
// Packed K is [16 keys][chunk of d][16][64 bytes], packed V [chunk of keys][16 dv][16][64 bytes].
#pragma once

#include "attention/host_softmax.hpp"

namespace tw::attention::TW_ISA {
namespace {

// Values in a row of a tile.
template <Kind K>
constexpr int kChunk = kTileRows * kGroup[K];

struct DotBF16 {
  template <int C, int A, int B>
  TW_INLINE void dot() {
    tile_dot_bf16<C, A, B>();
  }
};
struct DotScores {
  template <int C, int A, int B>
  TW_INLINE void dot() {
    tile_dot_int8<C, A, B>();
  }
};
struct DotValues {
  template <int C, int A, int B>
  TW_INLINE void dot() {
    tile_dot_int8_uint8<C, A, B>();
  }
};

void pack_q_tiles(const PackQ& p) {
  pack_q_lanes<kBF16>(p, (p.dk + kChunk<kBF16> - 1) / kChunk<kBF16> * kTileRows);
}

// Where a key's first chunk is.
TW_INLINE char* key_tile(char* dst, int64_t key, int64_t chunks) {
  return dst + key / kTileRows * chunks * kTileSize + key % kTileRows * kTileBytes;
}

TW_INLINE void store_chunks(char* dst, const char* row, int64_t chunks) {
  for (int64_t c = 0; c < chunks; ++c)
    __builtin_memcpy(dst + c * kTileSize, row + c * kTileBytes, kTileBytes);
}

TW_INLINE void clear_chunks(char* dst, int64_t chunks) {
  for (int64_t c = 0; c < chunks; ++c) __builtin_memset(dst + c * kTileSize, 0, kTileBytes);
}

void pack_k_tiles(const PackK& p) {
  constexpr int64_t kPer = kChunk<kBF16>;
  const int64_t chunks = (p.dk + kPer - 1) / kPer, rest = p.dk % kPer;
  alignas(64) uint16_t row[kMostD + kPer];
  for (int64_t key = 0; key < p.padded; ++key) {
    char* dst = key_tile(p.dst, key, chunks);
    if (key >= p.keys) {
      clear_chunks(dst, chunks);
      continue;
    }
    const char* src = p.k.data + key * p.k.row_stride * 2;
    prefetch_row(p.k, key + kRowsAhead, p.keys, p.dk, kElementBF16);
    if (p.k.stride != 1 || rest != 0) {
      copy_row(src, p.k.stride, p.dk, row);
      for (int64_t i = p.dk; i < chunks * kPer; ++i) row[i] = 0;
      src = reinterpret_cast<const char*>(row);
    }
    store_chunks(dst, src, chunks);
  }
}

// [group of keys][dv] words to tiles.
TW_INLINE void transpose_values(const uint32_t* words, int64_t groups, int64_t dv, char* to) {
  for (int64_t chunk = 0; chunk * kTileRows < groups; ++chunk, words += kTileRows * dv) {
    uint32_t* dst = reinterpret_cast<uint32_t*>(to + chunk * dv * kTileBytes);
    for (int64_t i = 0; i < dv; i += 8) {
      for (int half = 0; half < 2; ++half) {
        transpose8x8(reinterpret_cast<const char*>(words + half * 8 * dv + i), dv * 4,
                     dst + i * kTileRows + half * 8, kTileRows);
      }
    }
  }
}

void pack_v_tiles(const PackV& p) {
  const int64_t dv = padded_dv(p.dv);
  uint32_t* pairs = reinterpret_cast<uint32_t*>(p.room);
  pack_v_pairs(p, pairs, dv);
  transpose_values(pairs, p.padded / 2, dv, p.dst);
}

// C[2 or 1 left tiles][2 or 1 panels], in tiles 0 to 3, from `steps` tiles of each.
struct TileProduct {
  const char* a;
  int64_t a_apart, a_step;  // from one left tile to the next, along the other dimension and along the sum
  const char* b;
  int64_t b_apart, steps;
  char* c;
  int64_t c_apart;
};

template <class D, int NA, int NB, bool Add>
TW_INLINE void tile_product(const TileProduct& p) {
  const auto each = [&](const auto& body) TW_BODY {
    body.template operator()<0>(p.c);
    if constexpr (NB == 2) body.template operator()<1>(p.c + p.c_apart);
    if constexpr (NA == 2) body.template operator()<2>(p.c + kTileSize);
    if constexpr (NA == 2 && NB == 2) body.template operator()<3>(p.c + p.c_apart + kTileSize);
  };
  each([&]<int T>(char* c) TW_BODY {
    if constexpr (Add) {
      tile_load<T>(c, kTileBytes);
    } else {
      tile_zero<T>();
    }
  });
  const char *a = p.a, *b = p.b;
  for (int64_t i = 0; i < p.steps; ++i, a += p.a_step, b += kTileSize) {
    tile_load<6>(b, kTileBytes);
    tile_load<4>(a, kTileBytes);
    D::template dot<0, 4, 6>();
    if constexpr (NB == 2) {
      tile_load<7>(b + p.b_apart, kTileBytes);
      D::template dot<1, 4, 7>();
    }
    if constexpr (NA == 2) {
      tile_load<5>(a + p.a_apart, kTileBytes);
      D::template dot<2, 5, 6>();
      if constexpr (NB == 2) D::template dot<3, 5, 7>();
    }
  }
  each([&]<int T>(char* c) TW_BODY { tile_store<T>(c, kTileBytes); });
}

// `tiles` left tiles times every panel.
template <class D, bool Add>
TW_INLINE void tile_products(TileProduct p, int64_t tiles, int64_t panels) {
  const TileProduct start = p;
  for (int64_t i = 0; i < tiles; i += 2) {
    for (int64_t j = 0; j < panels; j += 2) {
      p.a = start.a + i * p.a_apart;
      p.b = start.b + j * p.b_apart;
      p.c = start.c + j * p.c_apart + i * kTileSize;
      const bool two_a = i + 1 < tiles, two_b = j + 1 < panels;
      if (two_a && two_b) {
        tile_product<D, 2, 2, Add>(p);
      } else if (two_a) {
        tile_product<D, 2, 1, Add>(p);
      } else if (two_b) {
        tile_product<D, 1, 2, Add>(p);
      } else {
        tile_product<D, 1, 1, Add>(p);
      }
    }
  }
}

// Scores of [first, last), as D's sums.
template <class D>
TW_INLINE void score_tiles(const Block& b) {
  const int64_t keys = b.last - b.first, chunks = b.groups / kTileRows;
  TileProduct p;
  p.a = b.k + b.first * chunks * kTileBytes;
  p.a_apart = chunks * kTileSize;
  p.a_step = kTileSize;
  p.b = b.q;
  p.b_apart = chunks * kTileSize;
  p.steps = chunks;
  p.c = reinterpret_cast<char*>(b.s);
  p.c_apart = keys * kPanelBytes;
  tile_products<D, false>(p, keys / kTileRows, b.panels);
}

// Weights times values, added to `sums` or stored there.
template <class D, Kind K, bool Add>
TW_INLINE void value_tiles(const Block& b, char* sums) {
  const int64_t chunks = (b.last - b.first) / kChunk<K>;
  TileProduct p;
  p.a = b.v + b.first / kChunk<K> * b.dv * kTileBytes;
  p.a_apart = kTileSize;
  p.a_step = b.dv * kTileBytes;
  p.b = b.p;
  p.b_apart = chunks * kTileSize;
  p.steps = chunks;
  p.c = sums;
  p.c_apart = b.dv * kPanelBytes;
  tile_products<D, Add>(p, b.dv / kTileRows, b.panels);
}

void block_tiles(const Block& b) {
  score_tiles<DotBF16>(b);
  for (int64_t panel = 0; panel < b.panels; ++panel) soften_panel<kBF16>(b, panel);
  value_tiles<DotBF16, kBF16, true>(b, reinterpret_cast<char*>(b.o));
  if (b.specials != 0) {
    add_special(
        b, [&](int64_t panel, int64_t key, int64_t lane) { return weight_at<kBF16>(b, panel, key, lane); });
  }
}

}  // namespace
}  // namespace tw::attention::TW_ISA
