// bf16 keys and values with AVX512-BF16: pairs of bf16 are multiplied and added to fp32 sums.
#pragma once

#include "paged_attention/host_tile.hpp"

namespace tw::paged::TW_ISA {

// Bytes 64 * i to 64 * i + 63 of a row: in one piece, or as two chunks.
template <bool nz>
TW_INLINE VI load64(const char* row, int64_t i, int64_t chunk_step) {
  if constexpr (!nz) return load_i(row + 64 * i);
  const char* low = row + 2 * i * chunk_step;
  const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low));
  const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low + chunk_step));
  return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

// Lane t of the result is the sum of the lanes of v[t].
TW_INLINE VF transposed_sum(const VF (&v)[16]) {
  VF four[4];
  for (int i = 0; i < 4; ++i) {
    const VF* x = v + 4 * i;
    const VF a = add(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
    const VF b = add(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
    four[i] = add(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))),
                  _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))));
  }
  const VF a = add(_mm512_shuffle_f32x4(four[0], four[1], 0x88), _mm512_shuffle_f32x4(four[0], four[1], 0xdd));
  const VF b = add(_mm512_shuffle_f32x4(four[2], four[3], 0x88), _mm512_shuffle_f32x4(four[2], four[3], 0xdd));
  return add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

static void pack_bf16(const Work& w) {
  for (int64_t h = 0; h < w.task.heads; ++h) {
    for (int64_t r = 0; r < w.rows; ++r) {
      const float* q = w.q(h, r);
      uint16_t* out = reinterpret_cast<uint16_t*>(w.packed(h, r));
      for (int64_t c = 0; c < w.s.dk; c += kLanes) store_bf16(out + c, load(q + c));
    }
  }
}

template <bool nz>
static void bf16_scores(const Work& w, const Block& b, int64_t local) {
  const Side& side = w.p.k;
  const int64_t units = side.row_bytes / 64, step = side.token_step;
  for (int i = 0; i < b.page_count; ++i) {
    const char* page = token_row(side, b.pages[i], w.task.head + local, 0);
    for (int64_t r = 0; r < w.rows; ++r) {
      const char* q = w.packed(local, r);
      VF acc[kPage];
      for (int t = 0; t < kPage; ++t) acc[t] = zero_f();
      for (int64_t u = 0; u < units; ++u) {
        const VI query = load_i(q + 64 * u);
        unrolled<kPage>([&](int t) TW_BODY {
          acc[t] = dpbf16(acc[t], load64<nz>(page + t * step, u, side.chunk_step), query);
        });
      }
      store(w.logits(r) + i * kPage, transposed_sum(acc));
    }
    prefetch_page(side, b.ahead[i], w.task.head + local, local, w.task.heads);
  }
}

// Weights of the tokens [begin, end) of the block, and where they lie.
struct Pairs {
  int begin, end;
  const char* page[kBlockPages];
  int64_t token_step, chunk_step;
};

// o[row + i] = o[row + i] * decay + sum over pairs of tokens, for kRows rows and 32 * kUnits channels.
template <bool nz, int kRows, int kUnits>
TW_INLINE void add_pairs(const Work& w, const Pairs& pairs, int64_t local, int64_t row, int64_t unit) {
  VF low[kRows][kUnits], high[kRows][kUnits];
  for (int r = 0; r < kRows; ++r) {
    for (int u = 0; u < kUnits; ++u) low[r][u] = zero_f(), high[r][u] = zero_f();
  }
  const char* weights = w.s.weights + row * kBlock * 2;
  for (int at = pairs.begin; at < pairs.end; at += 2) {
    const char* first = pairs.page[at / kPage] + at % kPage * pairs.token_step;
    const char* second = first + pairs.token_step;
    VI weight[kRows];
    for (int r = 0; r < kRows; ++r) {
      uint32_t two;
      __builtin_memcpy(&two, weights + r * kBlock * 2 + at * 2, 4);
      weight[r] = bcast_i(two);
    }
    unrolled<kUnits>([&](int u) TW_BODY {
      const VI x = load64<nz>(first, unit + u, pairs.chunk_step);
      const VI y = load64<nz>(second, unit + u, pairs.chunk_step);
      const VI lo = _mm512_unpacklo_epi16(x, y), hi = _mm512_unpackhi_epi16(x, y);
      for (int r = 0; r < kRows; ++r) {
        low[r][u] = dpbf16(low[r][u], lo, weight[r]);
        high[r][u] = dpbf16(high[r][u], hi, weight[r]);
      }
    });
  }
  // low holds channels 0..3, high 4..7 of each eight.
  const VI even = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
  const VI odd = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
  for (int r = 0; r < kRows; ++r) {
    const VF decay = bcast(w.s.decay[row + r]);
    for (int u = 0; u < kUnits; ++u) {
      float* o = w.o(local, row + r) + (unit + u) * 32;
      store(o, fma(decay, load(o), _mm512_permutex2var_ps(low[r][u], even, high[r][u])));
      store(o + 16, fma(decay, load(o + 16), _mm512_permutex2var_ps(low[r][u], odd, high[r][u])));
    }
  }
}

template <bool nz, int kRows, int kUnits>
TW_INLINE void add_rows(const Work& w, const Pairs& pairs, int64_t local, int64_t row) {
  const int64_t units = w.p.dv / 32;
  int64_t u = 0;
  for (; u + kUnits <= units; u += kUnits) add_pairs<nz, kRows, kUnits>(w, pairs, local, row, u);
  for (; u < units; ++u) add_pairs<nz, kRows, 1>(w, pairs, local, row, u);
}

// Tokens of [begin, end) one by one, for the rows that see them.
TW_INLINE void add_tokens(const Work& w, const Side& side, const Block& b, int64_t local, int begin, int end) {
  char room[kBlock * 64];
  for (int at = begin; at < end; ++at) {
    const char* src = token_row(side, b.pages[at / kPage], w.task.head + local, at % kPage);
    src = kv::TW_ISA::gather(src, side.chunk_step, w.p.dv * 2, room);
    kv::TW_ISA::widen(src, TW_BF16, w.p.dv, w.s.row);
    for (int64_t r = 0; r < w.rows; ++r) {
      int lo, hi;
      w.seen(b, r, &lo, &hi);
      if (at >= lo && at < hi) axpy(w.logits(r)[at], w.s.row, w.p.dv, w.o(local, r));
    }
  }
}

// Tokens that every row sees go in pairs. The others, and an odd one, go one by one: what a row does not see may
// be NaN, which a weight of zero would not keep out.
template <bool nz>
static void bf16_values(const Work& w, const Block& b, int64_t local) {
  const Side& side = w.p.latent ? w.p.k : w.p.v;
  Pairs pairs{(b.all_begin + 1) / 2 * 2, b.all_end / 2 * 2, {}, side.token_step, side.chunk_step};
  for (int i = 0; i < b.page_count; ++i) {
    pairs.page[i] = token_row(side, b.pages[i], w.task.head + local, 0);
    if (!w.p.latent) prefetch_page(side, b.ahead[i], w.task.head + local, local, w.task.heads);
  }
  if (pairs.begin >= pairs.end) {
    for (int64_t r = 0; r < w.rows; ++r) rescale(w.s.decay[r], w.s.dv, w.o(local, r));
    add_tokens(w, side, b, local, b.any_begin, b.any_end);
    return;
  }
  for (int64_t r = 0; r < w.rows; ++r) {
    uint16_t* out = reinterpret_cast<uint16_t*>(w.s.weights + r * kBlock * 2);
    for (int t = 0; t < kBlock; t += kLanes) store_bf16(out + t, load(w.logits(r) + t));
  }
  int64_t r = 0;
  for (; r + 4 <= w.rows; r += 4) add_rows<nz, 4, 2>(w, pairs, local, r);
  if (r + 3 == w.rows) add_rows<nz, 3, 2>(w, pairs, local, r);
  if (r + 2 == w.rows) add_rows<nz, 2, 4>(w, pairs, local, r);
  if (r + 1 == w.rows) add_rows<nz, 1, 4>(w, pairs, local, r);
  add_tokens(w, side, b, local, b.any_begin, pairs.begin);
  add_tokens(w, side, b, local, pairs.end, b.any_end);
}

}  // namespace tw::paged::TW_ISA
