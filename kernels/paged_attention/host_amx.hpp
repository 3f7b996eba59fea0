// Logits on the tile registers of AMX: the 16 keys of a page, as they lie, times up to 16 columns of queries.
//
// A tile of queries has a word of two bf16 or four int8 channels of one column in each 32 bits. Columns are
// rows of the task, for int8 two of them a row: high and low bytes.
#pragma once

#include "paged_attention/host_int8.hpp"

namespace tw::paged::TW_ISA {

constexpr int kKeyTile = 1, kQueryTile = 2;

// Tile 0 holds sums; a row of keys is 64 bytes, in NZ one chunk of 32.
template <bool nz>
static void amx_begin() {
  TilePalette palette;
  palette.row_bytes[kKeyTile] = nz ? 32 : 64;
  palette.rows[kQueryTile] = nz ? 8 : 16;
  __asm__ volatile("ldtilecfg %0" : : "m"(palette));
}

TW_INLINE char* query_tiles(const Work& w, int64_t head) {
  return w.s.packed + head * ((w.s.rows + 15) / 16 * 16) * 2 * w.s.dk;
}

// Four columns of 16 tokens as four vectors of tokens.
TW_INLINE void columns4(const char* sums, int column, VF (&out)[4]) {
  VF x[4];
  for (int i = 0; i < 4; ++i) {
    const auto at = [&](int t) {
      return _mm_loadu_ps(reinterpret_cast<const float*>(sums + 64 * t) + column);
    };
    VF v = _mm512_castps128_ps512(at(i));
    v = _mm512_insertf32x4(v, at(i + 4), 1);
    v = _mm512_insertf32x4(v, at(i + 8), 2);
    x[i] = _mm512_insertf32x4(v, at(i + 12), 3);
  }
  const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1]));
  const __m512d b = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3]));
  const __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
  const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));
  out[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
  out[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
  out[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
  out[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
}

// Sums of 16 keys and the columns of one tile, to [16 tokens][16 columns].
template <bool nz, bool kInt8>
TW_INLINE void tile_sums(const char* page, int64_t token_step, const char* queries, int64_t row_bytes,
                         Ahead* ahead, char* sums) {
  constexpr int64_t kWide = nz ? 32 : 64, kTile = nz ? 512 : 1024;
  tile_zero<0>();
  for (int64_t u = 0; u * kWide < row_bytes; ++u) {
    ahead->step();
    tile_load<kKeyTile>(page + u * (nz ? kNzStep : 64), nz ? 32 : token_step);
    tile_load<kQueryTile>(queries + u * kTile, 64);
    if constexpr (kInt8) {
      tile_dot_int8<0, kKeyTile, kQueryTile>();
    } else {
      tile_dot_bf16<0, kKeyTile, kQueryTile>();
    }
  }
  tile_store<0>(sums, 64);
}

// Queries to tiles: [16 columns at a time][unit][word][column].
template <bool nz>
static void amx_pack_bf16(const Work& w) {
  constexpr int64_t kChannels = nz ? 16 : 32;
  for (int64_t h = 0; h < w.task.heads; ++h) {
    uint16_t* out = reinterpret_cast<uint16_t*>(query_tiles(w, h));
    for (int64_t first = 0; first < w.rows; first += 16) {
      for (int64_t unit = 0; unit < w.p.dk; unit += kChannels) {
        for (int64_t c = 0; c < kChannels; c += 2, out += 32) {
          for (int64_t column = 0; column < 16; ++column) {
            const bool there = first + column < w.rows;
            const float* q = w.q(h, there ? first + column : 0) + unit + c;
            out[2 * column] = there ? float_to_bf16(q[0]) : 0;
            out[2 * column + 1] = there ? float_to_bf16(q[1]) : 0;
          }
        }
      }
    }
  }
}

// Where the products of a head's columns stand, 1024 bytes for each tile of queries.
TW_INLINE char* sums_of(const Work& w, int64_t local) {
  return w.s.sums + local * ((w.s.rows + 7) / 8) * 1024;
}

// Products of all tiles of queries with a page, left where `finish` picks them up: a product takes the tile
// registers a hundred cycles, in which those of other heads begin.
template <bool nz, bool kInt8>
static void amx_products(const Work& w, const Block& b, int i, int64_t local, Ahead* ahead) {
  const Side& side = w.p.k;
  const char* page = token_row(side, b.pages[i], w.task.head + local, 0);
  const char* queries = query_tiles(w, local);
  char* sums = sums_of(w, local);
  constexpr int64_t kRows = kInt8 ? 8 : 16;
  for (int64_t first = 0; first < w.rows; first += kRows, queries += kRows * 2 * w.p.dk, sums += 1024) {
    tile_sums<nz, kInt8>(page, side.token_step, queries, side.row_bytes, ahead, sums);
  }
}

static void amx_bf16_finish(const Work& w, const Block&, int i, int64_t local) {
  const char* sums = sums_of(w, local);
  for (int64_t r = 0; r < w.rows; r += 4) {
    VF rows[4];
    columns4(sums + r / 16 * 1024, static_cast<int>(r % 16), rows);
    for (int k = 0; k < 4 && r + k < w.rows; ++k) store(w.logits(local, r + k) + i * kPage, rows[k]);
  }
}

template <bool nz>
static void amx_pack_int8(const Work& w) {
  constexpr int64_t kChannels = nz ? 32 : 64;
  for (int64_t h = 0; h < w.task.heads; ++h) {
    int8_t* out = reinterpret_cast<int8_t*>(query_tiles(w, h));
    for (int64_t first = 0; first < w.rows; first += 8) {
      int8_t* tile = out + first * 2 * w.p.dk;
      for (int64_t column = 0; column < 8; ++column) {
        int8_t* high = reinterpret_cast<int8_t*>(w.s.page_scale);
        int8_t* low = high + w.s.dk;
        if (first + column < w.rows) {
          split_query(w, h, first + column, high, low);
        } else {
          __builtin_memset(high, 0, static_cast<size_t>(2 * w.s.dk));
        }
        for (int64_t c = 0; c < w.p.dk; ++c) {
          int8_t* at = tile + c / kChannels * (kChannels * 16) + c % kChannels / 4 * 64 + column * 8 + c % 4;
          at[0] = high[c];
          at[4] = low[c];
        }
      }
    }
  }
}

static void amx_int8_finish(const Work& w, const Block& b, int i, int64_t local) {
  const char* sums = sums_of(w, local);
  for (int64_t r = 0; r < w.rows; r += 2) {
    VF halves[4];
    columns4(sums + r / 8 * 1024, static_cast<int>(2 * (r % 8)), halves);
    for (int k = 0; k < 2 && r + k < w.rows; ++k) {
      const VI high = _mm512_castps_si512(halves[2 * k]), low = _mm512_castps_si512(halves[2 * k + 1]);
      store_int8_logits(w, i, local, r + k, add(_mm512_slli_epi32(high, 8), low));
    }
  }
  fix_scores(w, b, local, i, selected(w, w.p.k, b.pages[i], w.task.head + local));
}

}  // namespace tw::paged::TW_ISA
