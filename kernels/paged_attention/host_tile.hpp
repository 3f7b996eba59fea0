// The path that takes every format on every level: vectors are widened to fp32 rows, and rows are multiplied.
#pragma once

#include "paged_attention/host_work.hpp"

namespace tw::paged::TW_ISA {

// The vector that residual codes add to what base codes stand for; false when token `t` has none.
TW_INLINE bool residual_row(const Work& w, const Side& side, int64_t page, int64_t head, int64_t local, int t,
                            float* out) {
  if (w.p.residual == kNone) return false;
  const Selected& chosen = side.residuals;
  const uint32_t mask = chosen.mask.bits16(page, head);
  if ((mask >> t & 1u) == 0) return false;
  const int64_t row = kv::TW_ISA::pool_row(mask, chosen.rank.i32(page, head), t), d = side.channels;
  const char* src = chosen.rows.at(row);
  if (w.p.residual == kE3m0) {
    float scale;
    __builtin_memcpy(&scale, chosen.scale.at(row), 4);
    kv::TW_ISA::unpack_e3m0(src, d, scale, out);
    return true;
  }
  kv::TW_ISA::unpack4<true>(src, d, out);
  const float* channel = side.key ? w.s.channel_k + local * w.s.dk : w.s.channel_v + local * w.s.dv;
  if (w.p.kv == kC8s || (w.p.kv == kKv4 && side.key)) {
    const float* scale = w.p.kv == kC8s ? channel : w.s.page_scale;
    for (int64_t c = 0; c < d; ++c) out[c] *= scale[c] * 0.0625f;
  } else {
    float scale;
    kv::TW_ISA::widen(side.token_scale.at(page, t, head), side.token_scale.dtype, 1, &scale);
    for (int64_t c = 0; c < d; ++c) out[c] *= scale * 0.0625f;
  }
  return true;
}

// The vector that stands in place of the codes; false when token `t` has none.
TW_INLINE bool float_row(const Work& w, const Side& side, int64_t page, int64_t head, int t, float* out) {
  if (w.p.residual == kNone) return false;
  const uint32_t mask = side.floats.mask.bits16(page, head);
  if ((mask >> t & 1u) == 0) return false;
  const int64_t row = kv::TW_ISA::pool_row(mask, side.floats.rank.i32(page, head), t);
  kv::TW_ISA::widen(side.floats.rows.at(row), side.floats.rows.dtype, side.channels, out);
  return true;
}

// Scales and zeros of a page's keys, where they belong to channels.
TW_INLINE void load_page_scales(const Work& w, const Side& side, int64_t page, int64_t head) {
  if (w.p.kv != kKv4 || !side.key) return;
  kv::TW_ISA::widen(side.page_scale.at(page, head), TW_FP16, side.channels, w.s.page_scale);
  kv::TW_ISA::widen(side.page_zero.at(page, head), TW_FP16, side.channels, w.s.page_zero);
}

// What the codes of one token stand for.
TW_INLINE void base_row(const Work& w, const Side& side, int64_t page, int64_t head, int64_t local, int t,
                        int64_t at, float* out) {
  char room[kBlock * 64];
  const int64_t d = side.channels;
  const char* codes =
      kv::TW_ISA::gather(token_row(side, page, head, t), side.chunk_step, side.row_bytes, room);
  if (w.p.kv != kKv4) {
    kv::TW_ISA::widen(codes, side.pages.dtype, d, out);
    if (w.p.kv == kFloat) return;
    const float* channel = side.key ? w.s.channel_k + local * w.s.dk : w.s.channel_v + local * w.s.dv;
    const float token = w.p.kv == kC8d ? (side.key ? w.s.token_k : w.s.token_v)[local * kBlock + at] : 0.0f;
    if (w.p.kv == kC8s) {
      for (int64_t c = 0; c < d; ++c) out[c] *= channel[c];
    } else {
      for (int64_t c = 0; c < d; ++c) out[c] *= token;
    }
    return;
  }
  kv::TW_ISA::unpack4<false>(codes, d, out);
  if (side.key) {
    for (int64_t c = 0; c < d; ++c) out[c] = w.s.page_zero[c] + w.s.page_scale[c] * out[c];
    return;
  }
  const float scale = w.s.token_v[local * kBlock + at], zero = w.s.zero_v[local * kBlock + at];
  for (int64_t c = 0; c < d; ++c) out[c] = zero + scale * out[c];
}

// Tokens [begin, end) of page `index` of a block as fp32 rows of `stride`.
TW_INLINE void fill_tile(const Work& w, const Side& side, const Block& b, int index, int64_t local, int begin,
                         int end, int64_t stride, Ahead* ahead) {
  const int64_t page = b.pages[index], head = w.task.head + local;
  const int64_t start = b.first + index * kPage;
  const bool open = side.key && w.p.kv == kKv4 && start + kPage > w.task.length;
  if (!open) load_page_scales(w, side, page, head);
  for (int t = begin; t < end; ++t) {
    ahead->step();
    float* out = w.s.tile + t * stride;
    for (int64_t c = side.channels; c < stride; ++c) out[c] = 0.0f;
    if (open) {
      const char* own = side.open.at(w.task.sequence, t, head);
      kv::TW_ISA::widen(own, side.open.dtype, side.channels, out);
      continue;
    }
    if (float_row(w, side, page, head, t, out)) continue;
    base_row(w, side, page, head, local, t, index * kPage + t, out);
    if (residual_row(w, side, page, head, local, t, w.s.row)) {
      for (int64_t c = 0; c < side.channels; ++c) out[c] += w.s.row[c];
    }
  }
}

// The tokens of page `index` that some row sees.
TW_INLINE void page_range(const Block& b, int index, int* begin, int* end) {
  const int low = b.any_begin - index * kPage, high = b.any_end - index * kPage;
  *begin = low < 0 ? 0 : low;
  *end = high > kPage ? kPage : high;
}

// logits[row][token] = q . k, for the tokens of page `i`
static void tile_scores(const Work& w, const Block& b, int i, int64_t local, Ahead* ahead) {
  int begin, end;
  page_range(b, i, &begin, &end);
  if (begin >= end) return;
  fill_tile(w, w.p.k, b, i, local, begin, end, w.s.dk, ahead);
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int t = begin; t < end; ++t) {
      w.logits(local, r)[i * kPage + t] = dot(w.q(local, r), w.s.tile + t * w.s.dk, w.s.dk);
    }
  }
}

// o[row] += sum of weight * v over the tokens of page `i`; a row takes no token that it does not see, whose
// value may be NaN.
static void tile_values(const Work& w, const Block& b, int i, int64_t local, Ahead* ahead) {
  const Side& side = w.p.latent ? w.p.k : w.p.v;
  int begin, end;
  page_range(b, i, &begin, &end);
  if (begin >= end) return;
  const int64_t stride = w.p.latent ? w.s.dk : w.s.dv;
  fill_tile(w, side, b, i, local, begin, end, stride, ahead);
  for (int64_t r = 0; r < w.rows; ++r) {
    int lo, hi;
    w.seen(b, r, &lo, &hi);
    lo = lo - i * kPage < begin ? begin : lo - i * kPage;
    hi = hi - i * kPage > end ? end : hi - i * kPage;
    for (int t = lo; t < hi; ++t) {
      axpy(w.logits(local, r)[i * kPage + t], w.s.tile + t * stride, w.s.dv, w.o(local, r));
    }
  }
}

}  // namespace tw::paged::TW_ISA
