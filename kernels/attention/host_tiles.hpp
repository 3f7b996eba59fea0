// bf16 products on tile registers (AMX). Keys, and values transposed, are the left operands; rows and
// weights lie as right operands anyway, panel by panel.
//
// Packed K is [16 keys][chunk of d][16][64 bytes], packed V [chunk of keys][16 dv][16][64 bytes].
#pragma once

#include "attention/host_softmax.hpp"

namespace tw::attention::TW_ISA {
namespace {

constexpr int kChunk = 32;  // bf16 values in a row of a tile

void pack_q_tiles(const PackQ& p) { pack_q_lanes<kBF16>(p, (p.dk + kChunk - 1) / kChunk * kTileRows); }

void pack_k_tiles(const PackK& p) {
  const int64_t chunks = (p.dk + kChunk - 1) / kChunk, rest = p.dk % kChunk;
  alignas(64) uint16_t row[kMostD];
  for (int64_t key = 0; key < p.padded; ++key) {
    char* dst = p.dst + key / kTileRows * chunks * kTileSize + key % kTileRows * kTileBytes;
    const char* src = p.k.data + key * p.k.row_stride * 2;
    if (key >= p.keys) {
      for (int64_t c = 0; c < chunks; ++c) __builtin_memset(dst + c * kTileSize, 0, kTileBytes);
      continue;
    }
    if (p.k.stride != 1 || rest != 0) {
      copy_row(src, p.k.stride, p.dk, row);
      for (int64_t i = p.dk; i < chunks * kChunk; ++i) row[i] = 0;
      src = reinterpret_cast<const char*>(row);
    }
    for (int64_t c = 0; c < chunks; ++c) {
      __builtin_memcpy(dst + c * kTileSize, src + c * kTileBytes, kTileBytes);
    }
  }
}

// Pairs of keys first, then words transposed.
void pack_v_tiles(const PackV& p) {
  const int64_t dv = padded_dv(p.dv);
  uint32_t* pairs = reinterpret_cast<uint32_t*>(p.room);
  pack_v_pairs(p, pairs, dv);
  for (int64_t chunk = 0; chunk * kChunk < p.padded; ++chunk, pairs += kTileRows * dv) {
    uint32_t* dst = reinterpret_cast<uint32_t*>(p.dst + chunk * dv * kTileBytes);
    for (int64_t i = 0; i < dv; i += 8) {
      for (int half = 0; half < 2; ++half) {
        transpose8x8(reinterpret_cast<const char*>(pairs + half * 8 * dv + i), dv * 4,
                     dst + i * kTileRows + half * 8, kTileRows);
      }
    }
  }
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

template <int NA, int NB, bool Add>
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
    tile_dot_bf16<0, 4, 6>();
    if constexpr (NB == 2) {
      tile_load<7>(b + p.b_apart, kTileBytes);
      tile_dot_bf16<1, 4, 7>();
    }
    if constexpr (NA == 2) {
      tile_load<5>(a + p.a_apart, kTileBytes);
      tile_dot_bf16<2, 5, 6>();
      if constexpr (NB == 2) tile_dot_bf16<3, 5, 7>();
    }
  }
  each([&]<int T>(char* c) TW_BODY { tile_store<T>(c, kTileBytes); });
}

// `tiles` left tiles times every panel.
template <bool Add>
TW_INLINE void tile_products(TileProduct p, int64_t tiles, int64_t panels) {
  const TileProduct start = p;
  for (int64_t j = 0; j < panels; j += 2) {
    for (int64_t i = 0; i < tiles; i += 2) {
      p.a = start.a + i * p.a_apart;
      p.b = start.b + j * p.b_apart;
      p.c = start.c + j * p.c_apart + i * kTileSize;
      const bool two_a = i + 1 < tiles, two_b = j + 1 < panels;
      if (two_a && two_b) {
        tile_product<2, 2, Add>(p);
      } else if (two_a) {
        tile_product<2, 1, Add>(p);
      } else if (two_b) {
        tile_product<1, 2, Add>(p);
      } else {
        tile_product<1, 1, Add>(p);
      }
    }
  }
}

void block_tiles(const Block& b) {
  const int64_t keys = b.last - b.first, chunks = b.groups / kTileRows;
  TileProduct scores;
  scores.a = b.k + b.first * chunks * kTileBytes;
  scores.a_apart = chunks * kTileSize;
  scores.a_step = kTileSize;
  scores.b = b.q;
  scores.b_apart = chunks * kTileSize;
  scores.steps = chunks;
  scores.c = reinterpret_cast<char*>(b.s);
  scores.c_apart = keys * kPanelBytes;
  tile_products<false>(scores, keys / kTileRows, b.panels);
  for (int64_t panel = 0; panel < b.panels; ++panel) soften_panel<kBF16>(b, panel);
  TileProduct values;
  values.a = b.v + b.first / kChunk * b.dv * kTileBytes;
  values.a_apart = kTileSize;
  values.a_step = b.dv * kTileBytes;
  values.b = b.p;
  values.b_apart = keys / kChunk * kTileSize;
  values.steps = keys / kChunk;
  values.c = reinterpret_cast<char*>(b.o);
  values.c_apart = b.dv * kPanelBytes;
  tile_products<true>(values, b.dv / kTileRows, b.panels);
  if (b.specials != 0) {
    add_special(
        b, [&](int64_t panel, int64_t key, int64_t lane) { return weight_at<kBF16>(b, panel, key, lane); });
  }
}

}  // namespace
}  // namespace tw::attention::TW_ISA
