// int8 keys and values with AVX512-VNNI: unsigned by signed bytes, four products added to an int32.
//
// Queries and weights are taken with 16 bits, as two bytes: x = scale * (256 * high + low). Residuals and
// float vectors, being few, are added in fp32.
#pragma once

#include <limits.h>

#include "paged_attention/host_bf16.hpp"

namespace tw::paged::TW_ISA {

// A row's q (times the keys' channel scales) as signed bytes `high` and `low`, such that sums of products
// with codes stay below 2^31; sets its scale. Returns the sum of the codes.
static int32_t split_query(const Work& w, int64_t head, int64_t row, int8_t* high, int8_t* low) {
  const int64_t d = w.p.dk;
  const double fits = static_cast<double>(INT_MAX) / (127.0 * static_cast<double>(d));
  const float most = fits < 32512.0 ? static_cast<float>(static_cast<int>(fits)) : 32512.0f;
  const float* q = w.q(head, row);
  const float* channel = w.p.kv == kC8s ? w.s.channel_k + head * w.s.dk : nullptr;
  float* scaled = w.s.row;
  float amax = 0.0f, check = 0.0f;
  for (int64_t c = 0; c < d; ++c) {
    scaled[c] = channel != nullptr ? q[c] * channel[c] : q[c];
    amax = amax > __builtin_fabsf(scaled[c]) ? amax : __builtin_fabsf(scaled[c]);
    check += scaled[c] * 0.0f;  // NaN when any is not finite
  }
  const bool usable = amax > 0x1p-100f && check == 0.0f;
  const float factor = usable ? most / amax : 0.0f;
  int32_t total = 0;
  for (int64_t c = 0; c < d; ++c) {
    const int32_t code = usable ? static_cast<int32_t>(__builtin_rintf(scaled[c] * factor)) : 0;
    const int32_t top = (code + 128) >> 8;
    high[c] = static_cast<int8_t>(top);
    low[c] = static_cast<int8_t>(code - 256 * top);
    total += code;
  }
  w.s.q_scale[head * w.s.rows + row] = usable ? amax / most : check;
  return total;
}

static void pack_int8(const Work& w) {
  for (int64_t h = 0; h < w.task.heads; ++h) {
    for (int64_t r = 0; r < w.rows; ++r) {
      int8_t* high = reinterpret_cast<int8_t*>(w.packed(h, r));
      // Codes of keys are taken as unsigned, 128 larger.
      const uint32_t total = static_cast<uint32_t>(split_query(w, h, r, high, high + w.s.dk));
      w.s.q_bias[h * w.s.rows + r] = static_cast<int32_t>(128u * total);
    }
  }
}

// Sums of products of a row with the codes of page `i` to logits.
TW_INLINE void store_int8_logits(const Work& w, int i, int64_t local, int64_t row, VI sums) {
  VF logits = mul(to_float(sums), bcast(w.s.q_scale[local * w.s.rows + row]));
  if (w.p.kv == kC8d) logits = mul(logits, load(w.s.token_k + local * kBlock + i * kPage));
  store(w.logits(local, row) + i * kPage, logits);
}

// The tokens of a page whose vectors are not codes alone, as bits.
TW_INLINE uint32_t selected(const Work& w, const Side& side, int64_t page, int64_t head) {
  if (w.p.residual == kNone) return 0;
  return side.residuals.mask.bits16(page, head) | side.floats.mask.bits16(page, head);
}

// Adds to logits what residuals contribute, and sets those of float vectors.
static void fix_scores(const Work& w, const Block& b, int64_t local, int i, uint32_t tokens) {
  const int64_t page = b.pages[i], head = w.task.head + local;
  for (; tokens != 0; tokens &= tokens - 1) {
    const int t = __builtin_ctz(tokens);
    const bool whole = float_row(w, w.p.k, page, head, t, w.s.row);
    if (!whole && !residual_row(w, w.p.k, page, head, local, t, w.s.row)) continue;
    for (int64_t r = 0; r < w.rows; ++r) {
      float* logit = w.logits(local, r) + i * kPage + t;
      const float product = dot(w.q(local, r), w.s.row, w.s.dk);
      *logit = whole ? product : *logit + product;
    }
  }
}

// Sums of 8 tokens with one query's bytes, high and low together.
template <bool nz>
TW_INLINE void int8_dots(const char* token, int64_t step, const char* q, int64_t low, int64_t units,
                         Ahead* ahead, VF* out) {
  const char* const half[2] = {token, token + 4 * step};
  VI hi[8], lo[8];
  for (int t = 0; t < 8; ++t) hi[t] = zero_i(), lo[t] = zero_i();
  for (int64_t u = 0; u < units; ++u) {
    const VI qh = load_i(q + 64 * u), ql = load_i(q + low + 64 * u);
    ahead->step();
    unrolled<8>([&](int t) TW_BODY {
      const VI k = flip_sign_bits8(load64<nz>(half[t / 4] + t % 4 * step, u));
      hi[t] = dpbusd(hi[t], k, qh);
      lo[t] = dpbusd(lo[t], k, ql);
    });
  }
  for (int t = 0; t < 8; ++t) out[t] = _mm512_castsi512_ps(add(_mm512_slli_epi32(hi[t], 8), lo[t]));
}

// As transposed_sum, of integers.
TW_INLINE VI transposed_sum_i(const VF (&v)[16]) {
  const auto sum2 = [](VF a, VF b) {
    return _mm512_castsi512_ps(add(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  };
  VF four[4];
  for (int i = 0; i < 4; ++i) {
    const VF* x = v + 4 * i;
    const VF a = sum2(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
    const VF b = sum2(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
    four[i] = sum2(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))),
                   _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))));
  }
  const VF a =
      sum2(_mm512_shuffle_f32x4(four[0], four[1], 0x88), _mm512_shuffle_f32x4(four[0], four[1], 0xdd));
  const VF b =
      sum2(_mm512_shuffle_f32x4(four[2], four[3], 0x88), _mm512_shuffle_f32x4(four[2], four[3], 0xdd));
  return _mm512_castps_si512(sum2(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd)));
}

template <bool nz>
static void int8_scores(const Work& w, const Block& b, int i, int64_t local, Ahead* ahead) {
  const Side& side = w.p.k;
  const int64_t units = side.row_bytes / 64, head = w.task.head + local, step = nz ? 32 : side.token_step;
  const char* page = token_row(side, b.pages[i], head, 0);
  for (int64_t r = 0; r < w.rows; ++r) {
    VF sums[kPage];
    for (int t = 0; t < kPage; t += 8) {
      int8_dots<nz>(page + t * step, step, w.packed(local, r), w.s.dk, units, ahead, sums + t);
    }
    const VI bias = _mm512_set1_epi32(w.s.q_bias[local * w.s.rows + r]);
    store_int8_logits(w, i, local, r, _mm512_sub_epi32(transposed_sum_i(sums), bias));
  }
  fix_scores(w, b, local, i, selected(w, side, b.pages[i], head));
}

// A row's weights (times the values' token scales) to unsigned bytes [high: kBlock][low: kBlock]; those of
// tokens that it does not see, or that `skip` names, are zero.
TW_INLINE void pack_weights(const Work& w, const Block& b, int64_t local, int64_t r, uint64_t skip) {
  int lo, hi;
  w.seen(b, r, &lo, &hi);
  const uint64_t below = hi == 64 ? ~0ull : (1ull << hi) - 1;
  const uint64_t use = lo == 64 ? 0 : (below & ~((1ull << lo) - 1) & ~skip);
  VF weight[kBlock / 16];
  VF most = zero_f(), check = zero_f();
  for (int i = 0; i < kBlock / 16; ++i) {
    const __mmask16 mask = static_cast<__mmask16>(use >> (16 * i));
    weight[i] = _mm512_maskz_loadu_ps(mask, w.logits(local, r) + 16 * i);
    if (w.p.kv == kC8d) {
      weight[i] = _mm512_maskz_mul_ps(mask, weight[i], load(w.s.token_v + local * kBlock + 16 * i));
    }
    most = _mm512_max_ps(most, weight[i]);
    check = fma(weight[i], zero_f(), check);
  }
  const float amax = _mm512_reduce_max_ps(most), finite = sum(check);
  const bool usable = amax > 0x1p-100f && finite == 0.0f;
  const VF factor = bcast(usable ? 65535.0f / amax : 0.0f);
  w.s.weight_scale[local * w.s.rows + r] = usable ? amax / 65535.0f : finite;
  char* out = w.weights(local, r);
  for (int i = 0; i < kBlock / 16; ++i) {
    const VI code = _mm512_min_epu32(_mm512_cvtps_epi32(mul(weight[i], factor)), bcast_i(65535));
    const VI kept = usable ? code : zero_i();
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * i),
                     _mm512_cvtepi32_epi8(_mm512_srli_epi32(kept, 8)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + kBlock + 16 * i), _mm512_cvtepi32_epi8(kept));
  }
}

// o += sum over fours of tokens, for kRows rows and the 64 channels of one unit.
template <bool nz, int kRows>
TW_INLINE void add_fours(const Work& w, const Pairs& fours, int64_t row, int64_t unit, Ahead* ahead) {
  VI hi[kRows][4], lo[kRows][4];
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < 4; ++i) hi[r][i] = zero_i(), lo[r][i] = zero_i();
  }
  const int64_t local = fours.local;
  const char* weights = w.weights(local, row) + fours.at;
  for (int at = fours.begin; at < fours.end; at += 4) {
    ahead->step();
    const char* token = fours.page + at * fours.token_step;
    VI x[4];
    for (int t = 0; t < 4; ++t) x[t] = load64<nz>(token + t * fours.token_step, unit);
    const VI a = _mm512_unpacklo_epi8(x[0], x[1]), c = _mm512_unpacklo_epi8(x[2], x[3]);
    const VI e = _mm512_unpackhi_epi8(x[0], x[1]), g = _mm512_unpackhi_epi8(x[2], x[3]);
    const VI v[4] = {_mm512_unpacklo_epi16(a, c), _mm512_unpackhi_epi16(a, c), _mm512_unpacklo_epi16(e, g),
                     _mm512_unpackhi_epi16(e, g)};
    for (int r = 0; r < kRows; ++r) {
      uint32_t high, low;
      __builtin_memcpy(&high, weights + r * kBlock * 2 + at, 4);
      __builtin_memcpy(&low, weights + r * kBlock * 2 + kBlock + at, 4);
      const VI wh = bcast_i(high), wl = bcast_i(low);
      unrolled<4>([&](int i) TW_BODY {
        hi[r][i] = dpbusd(hi[r][i], wh, v[i]);
        lo[r][i] = dpbusd(lo[r][i], wl, v[i]);
      });
    }
  }
  const float* channel = w.s.channel_v + local * w.s.dv + unit * 64;
  for (int r = 0; r < kRows; ++r) {
    const VF scale = bcast(w.s.weight_scale[local * w.s.rows + row + r]);
    VI s[4];
    for (int i = 0; i < 4; ++i) s[i] = add(_mm512_slli_epi32(hi[r][i], 8), lo[r][i]);
    // Lane L of vector i holds channels 16 L + 4 i to 16 L + 4 i + 3.
    const VI a = _mm512_shuffle_i32x4(s[0], s[1], 0x44), c = _mm512_shuffle_i32x4(s[2], s[3], 0x44);
    const VI e = _mm512_shuffle_i32x4(s[0], s[1], 0xee), g = _mm512_shuffle_i32x4(s[2], s[3], 0xee);
    const VI n[4] = {_mm512_shuffle_i32x4(a, c, 0x88), _mm512_shuffle_i32x4(a, c, 0xdd),
                     _mm512_shuffle_i32x4(e, g, 0x88), _mm512_shuffle_i32x4(e, g, 0xdd)};
    float* o = w.o(local, row + r) + unit * 64;
    for (int i = 0; i < 4; ++i) {
      const VF factor = w.p.kv == kC8s ? mul(scale, load(channel + 16 * i)) : scale;
      store(o + 16 * i, fma(to_float(n[i]), factor, load(o + 16 * i)));
    }
  }
}

// Adds residuals and float vectors of values, times the weights of the rows that see them.
static void fix_values(const Work& w, const Block& b, int64_t local, int i, uint32_t tokens) {
  const int64_t page = b.pages[i], head = w.task.head + local;
  for (; tokens != 0; tokens &= tokens - 1) {
    const int t = __builtin_ctz(tokens), at = i * kPage + t;
    if (at < b.any_begin || at >= b.any_end) continue;
    if (!float_row(w, w.p.v, page, head, t, w.s.row) &&
        !residual_row(w, w.p.v, page, head, local, t, w.s.row)) {
      continue;
    }
    for (int64_t r = 0; r < w.rows; ++r) {
      int lo, hi;
      w.seen(b, r, &lo, &hi);
      if (at >= lo && at < hi) axpy(w.logits(local, r)[at], w.s.row, w.s.dv, w.o(local, r));
    }
  }
}

static void int8_weights(const Work& w, const Block& b, int64_t local) {
  uint64_t floats = 0;
  for (int i = 0; i < b.page_count && w.p.residual != kNone; ++i) {
    const uint64_t mask = w.p.v.floats.mask.bits16(b.pages[i], w.task.head + local);
    floats |= mask << (kPage * i);
  }
  for (int64_t r = 0; r < w.rows; ++r) pack_weights(w, b, local, r, floats);
}

template <bool nz>
static void int8_values(const Work& w, const Block& b, int i, int64_t local, Ahead* ahead) {
  const Side& side = w.p.v;
  const int64_t head = w.task.head + local, units = side.row_bytes / 64;
  int begin, end;
  page_range(b, i, &begin, &end);
  if (begin >= end) return;
  const Pairs fours{
      begin / 4 * 4, (end + 3) / 4 * 4, token_row(side, b.pages[i], head, 0), nz ? 32 : side.token_step,
      local,         i * kPage};
  int64_t r = 0;
  for (; r + 2 <= w.rows; r += 2) {
    for (int64_t u = 0; u < units; ++u) add_fours<nz, 2>(w, fours, r, u, ahead);
  }
  for (; r < w.rows; ++r) {
    for (int64_t u = 0; u < units; ++u) add_fours<nz, 1>(w, fours, r, u, ahead);
  }
  fix_values(w, b, local, i, selected(w, side, b.pages[i], head));
}

}  // namespace tw::paged::TW_ISA
