// A task from its first block to its last, for one ISA level.
#pragma once

#include <initializer_list>

#include "paged_attention/host_dot.hpp"
#include "paged_attention/host_softmax.hpp"
#include "paged_attention/host_tile.hpp"
#include "paged_attention/host_work.hpp"

namespace tw::paged::TW_ISA {

// Rows of a head are ordered by query, then by query head.
TW_INLINE void load_queries(const Work& w) {
  const Problem& p = w.p;
  for (int64_t h = 0; h < w.task.heads; ++h) {
    for (int64_t r = 0; r < w.rows; ++r) {
      const int64_t query = w.task.query + r / p.group;
      const int64_t head = (w.task.head + h) * p.group + r % p.group;
      float* out = w.q(h, r);
      const char* src = p.q.at(query, head);
      if (p.q.step[2] == (p.q.dtype == TW_FP32 ? 4 : 2)) {
        kv::TW_ISA::widen(src, p.q.dtype, p.dk, out);
      } else {
        for (int64_t c = 0; c < p.dk; ++c) kv::TW_ISA::widen(p.q.at(query, head, c), p.q.dtype, 1, out + c);
      }
      for (int64_t c = p.dk; c < w.s.dk; ++c) out[c] = 0.0f;
    }
  }
}

TW_INLINE void load_channel_scales(const Work& w, const Side& side, int64_t stride, float* out) {
  for (int64_t h = 0; h < w.task.heads; ++h) {
    for (int64_t c = 0; c < stride; ++c) {
      out[h * stride + c] = 0.0f;
      if (c < side.channels)
        __builtin_memcpy(&out[h * stride + c], side.channel_scale.at(w.task.head + h, c), 4);
    }
  }
}

// The scales (or zeros) of a block's tokens by head: [P,16,HKV] to [heads][kBlock]. Asks for those of the
// next.
TW_INLINE void load_token_scales(const Work& w, const Block& b, const Plane& from, float* out) {
  if (from.data == nullptr) return;
  for (int i = 0; i < b.next_count; ++i) {
    const char* first = from.at(b.next[i], 0, w.task.head);
    const char* last = from.at(b.next[i], kPage - 1, w.task.head + w.task.heads - 1);
    // Strides may be anything; a page whose scales do not lie together is left to the loads.
    if (last - first > 64 * kPage * w.task.heads) break;
    for (const char* at = first; at <= last; at += 64) prefetch(at);
  }
  for (int i = 0; i < b.page_count; ++i) {
    for (int t = 0; t < kPage; ++t) {
      const char* src = from.at(b.pages[i], t, w.task.head);
      float* to = out + i * kPage + t;
      for (int64_t h = 0; h < w.task.heads; ++h, src += from.step[2], to += kBlock) {
        if (from.dtype == TW_FP32) {
          __builtin_memcpy(to, src, 4);
        } else {
          uint16_t half;
          __builtin_memcpy(&half, src, 2);
          *to = fp16_to_float(half);
        }
      }
    }
  }
}

// Asks for the pool rows of the next block's selected vectors.
TW_INLINE void ask_selected(const Work& w, const Block& b, const Selected& from, int64_t row_bytes) {
  for (int i = 0; i < b.next_count; ++i) {
    for (int64_t head = w.task.head; head < w.task.head + w.task.heads; ++head) {
      const int64_t count = __builtin_popcount(from.mask.bits16(b.next[i], head));
      const int64_t rank = from.rank.i32(b.next[i], head);
      if (count == 0 || rank < 0 || rank + count > from.count) continue;  // keys of an open page have none
      for (int64_t row = rank; row < rank + count; ++row) {
        for (int64_t at = 0; at < row_bytes; at += 64) prefetch(from.rows.at(row) + at);
      }
      if (from.scale.data != nullptr) prefetch(from.scale.at(rank));
    }
  }
}

// Which tokens each query of the task sees.
TW_INLINE void load_ranges(const Work& w) {
  for (int64_t r = 0; r < w.rows; ++r) {
    const int64_t position = w.task.position + r / w.p.group;
    int64_t first = 0;
    if (w.p.window > 0.0) {
      const double low = __builtin_floor(static_cast<double>(position) - w.p.window) + 1.0;
      first = low > 0.0 ? static_cast<int64_t>(low) : 0;
    }
    w.s.first[r] = first;
    w.s.last[r] = position + 1;
  }
}

// The block at `page` of the sequence; false when none of its tokens is seen.
TW_INLINE bool load_block(const Work& w, int64_t page, Block* b) {
  const int64_t end = w.task.first_page + w.task.pages;
  b->first = page * kPage;
  const int64_t stop = (page / kBlockPages + 1) * kBlockPages;
  b->page_count = static_cast<int>((stop < end ? stop : end) - page);
  const int64_t left = w.task.length - b->first;
  b->tokens = static_cast<int>(left < b->page_count * kPage ? left : b->page_count * kPage);
  b->any_begin = b->tokens, b->any_end = 0, b->all_begin = 0, b->all_end = b->tokens;
  for (int64_t r = 0; r < w.rows; r += w.p.group) {
    int lo, hi;
    w.seen(*b, r, &lo, &hi);
    if (lo < hi) {
      b->any_begin = lo < b->any_begin ? lo : b->any_begin;
      b->any_end = hi > b->any_end ? hi : b->any_end;
    }
    b->all_begin = lo > b->all_begin ? lo : b->all_begin;
    b->all_end = hi < b->all_end ? hi : b->all_end;
  }
  if (b->any_begin >= b->any_end) return false;
  for (int i = 0; i < b->page_count; ++i) b->pages[i] = w.p.block_table.i32(w.task.sequence, page + i);
  b->next_count = 0;
  for (int64_t next = stop; next < end && b->next_count < kBlockPages; ++next) {
    b->next[b->next_count++] = w.p.block_table.i32(w.task.sequence, next);
  }
  return true;
}

TW_INLINE void weigh_rows(const Work& w, const Block& b, int64_t local) {
  const Problem& p = w.p;
  for (int64_t r = 0; r < w.rows; ++r) {
    float* logits = w.logits(local, r);
    int lo, hi;
    w.seen(b, r, &lo, &hi);
    if (lo >= hi) {
      for (int t = 0; t < kBlock; ++t) logits[t] = 0.0f;
      continue;
    }
    RowRule rule{p.scale, p.softcap, 0.0f, w.task.position + r / p.group};
    if (p.alibi.data != nullptr) {
      __builtin_memcpy(&rule.slope, p.alibi.at((w.task.head + local) * p.group + r % p.group), 4);
    }
    const int64_t at = local * w.s.rows + r;
    const float decay = weigh(logits, lo, hi, b.first, rule, w.s.top + at, w.s.sum + at);
    rescale(decay, w.s.dv, w.o(local, r));
  }
}

// Page by page, each with all its heads: as it lies in memory, a page is a few streams to read on from, while
// a head of a whole block is a piece of every token's row.
TW_INLINE void compute_block(const Work& w, const Block& b, const Path& path) {
  for (int i = 0; i < b.page_count; ++i) {
    for (int64_t h = 0; h < w.task.heads; ++h) {
      Ahead ahead = ahead_of(w, b, false, i, h);
      ahead.pace(path.score_steps);
      path.scores(w, b, i, h, &ahead);
    }
    for (int64_t h = 0; path.finish != nullptr && h < w.task.heads; ++h) path.finish(w, b, i, h);
  }
  for (int64_t h = 0; h < w.task.heads; ++h) {
    weigh_rows(w, b, h);
    if (path.weights != nullptr) path.weights(w, b, h);
  }
  for (int i = 0; i < b.page_count; ++i) {
    for (int64_t h = 0; h < w.task.heads; ++h) {
      Ahead ahead = ahead_of(w, b, true, i, h);
      ahead.pace(path.value_steps);
      path.values(w, b, i, h, &ahead);
    }
  }
}

// Rows go out ordered by query, then by query head of the task.
TW_INLINE void store_partials(const Work& w, const Partials& out) {
  const int64_t heads = w.task.heads * w.p.group;
  for (int64_t h = 0; h < w.task.heads; ++h) {
    for (int64_t r = 0; r < w.rows; ++r) {
      const int64_t at = w.task.partial + r / w.p.group * heads + h * w.p.group + r % w.p.group;
      __builtin_memcpy(out.o + at * out.dv, w.o(h, r), static_cast<size_t>(w.p.dv) * 4);
      out.top[at] = w.s.top[h * w.s.rows + r];
      out.sum[at] = w.s.sum[h * w.s.rows + r];
    }
  }
}

static void attend(const Problem& p, const Task& task, const Scratch& scratch, const Partials& out) {
  const Work w{p, task, scratch, task.queries * p.group};
  const Path path = choose_path(p, w.rows);
  load_queries(w);
  load_ranges(w);
  if (p.kv == kC8s) {
    load_channel_scales(w, p.k, scratch.dk, scratch.channel_k);
    load_channel_scales(w, p.v, scratch.dv, scratch.channel_v);
  }
  if (path.queries != nullptr) path.queries(w);
  for (int64_t i = 0; i < task.heads * scratch.rows; ++i) scratch.top[i] = -kInfinity, scratch.sum[i] = 0.0f;
  for (int64_t i = 0; i < task.heads * scratch.rows * scratch.dv; ++i) scratch.o[i] = 0.0f;
  if (path.begin != nullptr) path.begin();
  const int64_t end = task.first_page + task.pages;
  for (int64_t page = task.first_page; page < end; page = (page / kBlockPages + 1) * kBlockPages) {
    Block b;
    if (!load_block(w, page, &b)) continue;
    load_token_scales(w, b, p.k.token_scale, scratch.token_k);
    load_token_scales(w, b, p.v.token_scale, scratch.token_v);
    load_token_scales(w, b, p.v.token_zero, scratch.zero_v);
    if (p.residual != kNone) {
      for (const Side* side : {&p.k, &p.v}) {
        ask_selected(w, b, side->residuals, side->channels / 2);
        ask_selected(w, b, side->floats, side->channels * (p.o.dtype == TW_FP32 ? 4 : 2));
      }
    }
    compute_block(w, b, path);
  }
  if (path.end != nullptr) path.end();
  store_partials(w, out);
}

}  // namespace tw::paged::TW_ISA
