// bf16 keys and values with AVX512-BF16: pairs of bf16 are multiplied and added to fp32 sums.
#pragma once

#include "paged_attention/host_tile.hpp"

namespace tw::paged::TW_ISA {

constexpr int64_t kNzStep = kPage * 32;  // from one chunk of a token to the next in NZ

// Bytes 64 * i to 64 * i + 63 of a row: in one piece, or as two chunks.
template <bool nz>
TW_INLINE VI load64(const char* row, int64_t i) {
  if constexpr (!nz) return load_i(row + 64 * i);
  const char* low = row + 2 * i * kNzStep;
  const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low));
  const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low + kNzStep));
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
  const VF a =
      add(_mm512_shuffle_f32x4(four[0], four[1], 0x88), _mm512_shuffle_f32x4(four[0], four[1], 0xdd));
  const VF b =
      add(_mm512_shuffle_f32x4(four[2], four[3], 0x88), _mm512_shuffle_f32x4(four[2], four[3], 0xdd));
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

// The 16 tokens of a page of one head, addressed by four pointers and multiples of a step.
struct Tokens {
  const char* at[4];
  int64_t step;

  Tokens(const char* first, int64_t token_step) : step(token_step) {
    for (int i = 0; i < 4; ++i) at[i] = first + 4 * i * token_step;
  }
  template <bool nz>
  __attribute__((always_inline)) VI load(int t, int64_t unit) const {
    return load64<nz>(at[t / 4] + t % 4 * step, unit);
  }
};

template <bool nz>
static void bf16_scores(const Work& w, const Block& b, int i, int64_t local, Ahead* ahead) {
  const Side& side = w.p.k;
  const int64_t units = side.row_bytes / 64;
  const Tokens page(token_row(side, b.pages[i], w.task.head + local, 0), nz ? 32 : side.token_step);
  for (int64_t r = 0; r < w.rows; ++r) {
    const char* q = w.packed(local, r);
    VF acc[kPage];
    for (int t = 0; t < kPage; ++t) acc[t] = zero_f();
    for (int64_t u = 0; u < units; ++u) {
      const VI query = load_i(q + 64 * u);
      ahead->step();
      unrolled<kPage>([&](int t) TW_BODY { acc[t] = dpbf16(acc[t], page.load<nz>(t, u), query); });
    }
    store(w.logits(local, r) + i * kPage, transposed_sum(acc));
  }
}

// Tokens [begin, end) of page `i` one by one, for the rows that see them.
static void add_tokens(const Work& w, const Side& side, const Block& b, int i, int64_t local, int begin,
                       int end) {
  char room[kBlock * 64];
  for (int t = begin; t < end; ++t) {
    const char* src = token_row(side, b.pages[i], w.task.head + local, t);
    src = kv::TW_ISA::gather(src, side.chunk_step, w.p.dv * 2, room);
    kv::TW_ISA::widen(src, TW_BF16, w.p.dv, w.s.row);
    const int at = i * kPage + t;
    for (int64_t r = 0; r < w.rows; ++r) {
      int lo, hi;
      w.seen(b, r, &lo, &hi);
      if (at >= lo && at < hi) axpy(w.logits(local, r)[at], w.s.row, w.p.dv, w.o(local, r));
    }
  }
}

// Tokens [begin, end) of a page, an even number, and their weights.
struct Pairs {
  int begin, end;
  const char* page;
  int64_t token_step;
  int64_t local, at;  // the head, and the page's first token in the block
};

// o += sum over pairs of tokens, for kRows rows and 32 * kUnits channels.
template <bool nz, int kRows, int kUnits>
TW_INLINE void add_pairs(const Work& w, const Pairs& pairs, int64_t row, int64_t unit, Ahead* ahead) {
  VF low[kRows][kUnits], high[kRows][kUnits];
  for (int r = 0; r < kRows; ++r) {
    for (int u = 0; u < kUnits; ++u) low[r][u] = zero_f(), high[r][u] = zero_f();
  }
  const char* weights = w.weights(pairs.local, row) + pairs.at * 2;
  for (int at = pairs.begin; at < pairs.end; at += 2) {
    ahead->step();
    const char* first = pairs.page + at * pairs.token_step;
    const char* second = first + pairs.token_step;
    VI weight[kRows];
    for (int r = 0; r < kRows; ++r) {
      uint32_t two;
      __builtin_memcpy(&two, weights + r * kBlock * 2 + at * 2, 4);
      weight[r] = bcast_i(two);
    }
    unrolled<kUnits>([&](int u) TW_BODY {
      const VI x = load64<nz>(first, unit + u), y = load64<nz>(second, unit + u);
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
    for (int u = 0; u < kUnits; ++u) {
      float* o = w.o(pairs.local, row + r) + (unit + u) * 32;
      store(o, add(load(o), _mm512_permutex2var_ps(low[r][u], even, high[r][u])));
      store(o + 16, add(load(o + 16), _mm512_permutex2var_ps(low[r][u], odd, high[r][u])));
    }
  }
}

template <bool nz, int kRows, int kUnits>
TW_INLINE void add_rows(const Work& w, const Pairs& pairs, int64_t row, Ahead* ahead) {
  const int64_t units = w.p.dv / 32;
  int64_t u = 0;
  for (; u + kUnits <= units; u += kUnits) add_pairs<nz, kRows, kUnits>(w, pairs, row, u, ahead);
  for (; u < units; ++u) add_pairs<nz, kRows, 1>(w, pairs, row, u, ahead);
}

// As add_pairs, token by token in fp32: where a product of pairs takes longer than two in fp32.
template <bool nz, int kRows, int kUnits>
TW_INLINE void add_singles(const Work& w, const Pairs& tokens, int64_t row, int64_t unit, Ahead* ahead) {
  VF even[kRows][kUnits], odd[kRows][kUnits];
  for (int r = 0; r < kRows; ++r) {
    for (int u = 0; u < kUnits; ++u) even[r][u] = zero_f(), odd[r][u] = zero_f();
  }
  const float* weights = w.logits(tokens.local, row) + tokens.at;
  const char* token = tokens.page + tokens.begin * tokens.token_step;
  for (int at = tokens.begin; at < tokens.end; ++at, token += tokens.token_step) {
    ahead->step();
    VF weight[kRows];
    for (int r = 0; r < kRows; ++r) weight[r] = bcast(weights[r * kBlock + at]);
    unrolled<kUnits>([&](int u) TW_BODY {
      const VI x = load64<nz>(token, unit + u);
      const VF low = bf16_even(x), high = bf16_odd(x);
      for (int r = 0; r < kRows; ++r) {
        even[r][u] = fma(low, weight[r], even[r][u]);
        odd[r][u] = fma(high, weight[r], odd[r][u]);
      }
    });
  }
  const VI first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const VI second = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
  for (int r = 0; r < kRows; ++r) {
    for (int u = 0; u < kUnits; ++u) {
      float* o = w.o(tokens.local, row + r) + (unit + u) * 32;
      store(o, add(load(o), _mm512_permutex2var_ps(even[r][u], first, odd[r][u])));
      store(o + 16, add(load(o + 16), _mm512_permutex2var_ps(even[r][u], second, odd[r][u])));
    }
  }
}

template <bool nz, int kRows, int kUnits>
TW_INLINE void add_single_rows(const Work& w, const Pairs& tokens, int64_t row, Ahead* ahead) {
  const int64_t units = w.p.dv / 32;
  int64_t u = 0;
  for (; u + kUnits <= units; u += kUnits) add_singles<nz, kRows, kUnits>(w, tokens, row, u, ahead);
  for (; u < units; ++u) add_singles<nz, kRows, 1>(w, tokens, row, u, ahead);
}

// Tokens that every row sees go for all rows at once. What only some see goes one by one: it may be NaN to
// the others, which a weight of zero would not keep out.
template <bool nz>
static void bf16_single_values(const Work& w, const Block& b, int i, int64_t local, Ahead* ahead) {
  const Side& side = w.p.latent ? w.p.k : w.p.v;
  int begin, end;
  page_range(b, i, &begin, &end);
  if (begin >= end) return;
  const int low = b.all_begin - i * kPage, high = b.all_end - i * kPage;
  const Pairs tokens{low > begin ? low : begin,
                     high < end ? high : end,
                     token_row(side, b.pages[i], w.task.head + local, 0),
                     nz ? 32 : side.token_step,
                     local,
                     i * kPage};
  if (tokens.begin >= tokens.end) {
    add_tokens(w, side, b, i, local, begin, end);
    return;
  }
  int64_t r = 0;
  for (; r + 4 <= w.rows; r += 4) add_single_rows<nz, 4, 2>(w, tokens, r, ahead);
  if (r + 3 == w.rows) add_single_rows<nz, 3, 2>(w, tokens, r, ahead);
  if (r + 2 == w.rows) add_single_rows<nz, 2, 4>(w, tokens, r, ahead);
  if (r + 1 == w.rows) add_single_rows<nz, 1, 4>(w, tokens, r, ahead);
  add_tokens(w, side, b, i, local, begin, tokens.begin);
  add_tokens(w, side, b, i, local, tokens.end, end);
}

// Weights as bf16, in place of which add_pairs finds them.
static void bf16_weights(const Work& w, const Block&, int64_t local) {
  for (int64_t r = 0; r < w.rows; ++r) {
    uint16_t* out = reinterpret_cast<uint16_t*>(w.weights(local, r));
    for (int t = 0; t < kBlock; t += kLanes) store_bf16(out + t, load(w.logits(local, r) + t));
  }
}

// Tokens that every row sees go in pairs. The others, and an odd one, go one by one: what a row does not see
// may be NaN, which a weight of zero would not keep out.
template <bool nz>
static void bf16_values(const Work& w, const Block& b, int i, int64_t local, Ahead* ahead) {
  const Side& side = w.p.latent ? w.p.k : w.p.v;
  int begin, end;
  page_range(b, i, &begin, &end);
  if (begin >= end) return;
  const int low = b.all_begin - i * kPage, high = b.all_end - i * kPage;
  Pairs pairs{low > 0 ? (low + 1) / 2 * 2 : 0,
              high < kPage ? (high > 0 ? high / 2 * 2 : 0) : kPage,
              token_row(side, b.pages[i], w.task.head + local, 0),
              nz ? 32 : side.token_step,
              local,
              i * kPage};
  if (pairs.begin >= pairs.end) {
    add_tokens(w, side, b, i, local, begin, end);
    return;
  }
  int64_t r = 0;
  for (; r + 4 <= w.rows; r += 4) add_rows<nz, 4, 2>(w, pairs, r, ahead);
  if (r + 3 == w.rows) add_rows<nz, 3, 2>(w, pairs, r, ahead);
  if (r + 2 == w.rows) add_rows<nz, 2, 4>(w, pairs, r, ahead);
  if (r + 1 == w.rows) add_rows<nz, 1, 4>(w, pairs, r, ahead);
  add_tokens(w, side, b, i, local, begin, pairs.begin);
  add_tokens(w, side, b, i, local, pairs.end, end);
}

}  // namespace tw::paged::TW_ISA
