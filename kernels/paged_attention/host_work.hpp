// What the stages of a task share, for one ISA level: the state of its rows and the block at hand.
#pragma once

#include "_kv/host_rows.hpp"
#include "paged_attention/host_problem.hpp"

namespace tw::paged::TW_ISA {

using namespace tw::TW_ISA;

struct Block {
  int64_t first;              // its first token, of the sequence
  int tokens;                 // in the task and the sequence
  int page_count;
  int64_t pages[kBlockPages];
  int64_t ahead[kBlockPages];  // the page to prefetch beside each, -1 for none
  int any_begin, any_end;      // tokens that some row sees
  int all_begin, all_end;      // tokens that every row sees
};

struct Work {
  const Problem& p;
  const Task& task;
  const Scratch& s;
  int64_t rows;  // of one head

  float* q(int64_t head, int64_t row) const { return s.q + (head * s.rows + row) * s.dk; }
  char* packed(int64_t head, int64_t row) const { return s.packed + (head * s.rows + row) * 2 * s.dk; }
  float* o(int64_t head, int64_t row) const { return s.o + (head * s.rows + row) * s.dv; }
  float* logits(int64_t row) const { return s.logits + row * kBlock; }
  // The part [*begin, *end) of a block that a row sees.
  void seen(const Block& b, int64_t row, int* begin, int* end) const {
    const int64_t lo = s.first[row] - b.first, hi = s.last[row] - b.first;
    *begin = static_cast<int>(lo < 0 ? 0 : lo > b.tokens ? b.tokens : lo);
    *end = static_cast<int>(hi < 0 ? 0 : hi > b.tokens ? b.tokens : hi);
    if (*end < *begin) *end = *begin;
  }
};

TW_INLINE const char* token_row(const Side& side, int64_t page, int64_t head, int token) {
  return side.pages.at(page) + head * side.head_step + token * side.token_step;
}

// Asks for the part of page `page` that head `index` of `of` stands for, so that a page is read from its
// beginning to its end while its predecessor is computed on.
TW_INLINE void prefetch_page(const Side& side, int64_t page, int64_t head, int64_t index, int64_t of) {
  if (page < 0) return;
  const char* base = side.pages.at(page);
  if (of * side.row_bytes * kPage >= side.page_bytes) {
    const int64_t begin = side.page_bytes * index / of, end = side.page_bytes * (index + 1) / of;
    for (int64_t at = begin / 64 * 64; at < end; at += 64) prefetch_l2(base + at);
    return;
  }
  if (side.chunk_step != 32) {
    const char* own = base + head * side.head_step;
    for (int64_t at = 0; at < side.head_step; at += 64) prefetch_l2(own + at);
    return;
  }
  for (int t = 0; t < kPage; ++t) {
    const char* own = token_row(side, page, head, t);
    for (int64_t at = 0; at < side.row_bytes; at += 64) prefetch_l2(own + at);
  }
}

// acc[0, n) += weight * x[0, n); n is a multiple of kLanes.
TW_INLINE void axpy(float weight, const float* x, int64_t n, float* acc) {
  const VF w = bcast(weight);
  for (int64_t i = 0; i < n; i += kLanes) store(acc + i, fma(w, load(x + i), load(acc + i)));
}

TW_INLINE void rescale(float factor, int64_t n, float* acc) {
  if (factor == 1.0f) return;
  const VF f = bcast(factor);
  for (int64_t i = 0; i < n; i += kLanes) store(acc + i, mul(f, load(acc + i)));
}

// Sum of a[0, n) * b[0, n); n is a multiple of 4 * kLanes, or of kLanes with zeros never in between.
TW_INLINE float dot(const float* a, const float* b, int64_t n) {
  VF s[4] = {zero_f(), zero_f(), zero_f(), zero_f()};
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) s[k] = fma(load(a + i + k * kLanes), load(b + i + k * kLanes), s[k]);
  }
  return sum(add(add(s[0], s[1]), add(s[2], s[3])));
}

}  // namespace tw::paged::TW_ISA
