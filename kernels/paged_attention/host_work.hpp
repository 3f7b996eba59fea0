// What the stages of a task share, for one ISA level: the state of its rows and the block at hand.
#pragma once

#include "_kv/host_rows.hpp"
#include "paged_attention/host_problem.hpp"

namespace tw::paged::TW_ISA {

using namespace tw::TW_ISA;

struct Block {
  int64_t first;  // its first token, of the sequence
  int tokens;     // in the task and the sequence
  int page_count;
  int64_t pages[kBlockPages];
  int next_count;
  int64_t next[kBlockPages];  // pages of the next block
  int any_begin, any_end;     // tokens that some row sees
  int all_begin, all_end;     // tokens that every row sees
};

struct Work {
  const Problem& p;
  const Task& task;
  const Scratch& s;
  int64_t rows;  // of one head

  float* q(int64_t head, int64_t row) const { return s.q + (head * s.rows + row) * s.dk; }
  char* packed(int64_t head, int64_t row) const { return s.packed + (head * s.rows + row) * 2 * s.dk; }
  float* o(int64_t head, int64_t row) const { return s.o + (head * s.rows + row) * s.dv; }
  float* logits(int64_t head, int64_t row) const { return s.logits + (head * s.rows + row) * kBlock; }
  char* weights(int64_t head, int64_t row) const { return s.weights + (head * s.rows + row) * 2 * kBlock; }
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

// Lines to ask for while something else is computed on, in the order in which they will be read: that is how
// the machine's own prefetching goes along. A few at a time: asked for at once, they would fill the buffers
// of the first cache level and stop the loads that work goes on with.
class Ahead {
 public:
  Ahead() = default;

  // One head of a page: 16 rows, in NZ the pieces of one.
  Ahead(const Side& side, int64_t page, int64_t head) : row_(token_row(side, page, head, 0)), left_(kPage) {
    const bool nz = side.chunk_step != 32;
    step_ = nz ? side.head_step / kPage : side.token_step;
    lines_ = ((nz ? step_ : side.row_bytes) + 63) / 64;
  }

  // Asks for as many rows as let all be asked for in `steps` steps.
  void pace(int64_t steps) { each_ = steps >= kPage ? 1 : (kPage + steps - 1) / (steps > 0 ? steps : 1); }

  __attribute__((always_inline)) void step() {
    const char* row = row_;
    const int64_t count = each_ < left_ ? each_ : left_, lines = lines_, step = step_;
    for (int64_t i = 0; i < count; ++i, row += step) {
      for (int64_t line = 0; line < lines; ++line) prefetch_l2(row + 64 * line);
    }
    row_ = row;
    left_ -= count;
  }

 private:
  const char* row_ = nullptr;
  int64_t step_ = 0, lines_ = 0, left_ = 0, each_ = 0;
};

// What to ask for beside one head of page `i` of a block's keys or values. Memory is read in the order keys
// of a block, values of it, keys of the next, each page by page and head by head; what comes about
// `prefetch_kib` later is wanted.
TW_INLINE Ahead ahead_of(const Work& w, const Block& b, bool values, int i, int64_t local) {
  const int64_t wanted = w.p.prefetch_kib * 1024, heads = w.task.heads;
  if (wanted == 0) return {};
  if (w.p.latent) return !values && i < b.next_count ? Ahead(w.p.k, b.next[i], w.task.head + local) : Ahead();
  const int64_t bytes = w.p.k.row_bytes * kPage;
  const int64_t at = local + (wanted + bytes - 1) / bytes;
  const int64_t head = w.task.head + at % heads;
  int64_t page = (values ? b.page_count + i : i) + at / heads;
  if (page < b.page_count) return {w.p.k, b.pages[page], head};
  page -= b.page_count;
  if (page < b.page_count) return {w.p.v, b.pages[page], head};
  page -= b.page_count;
  if (page < b.next_count) return {w.p.k, b.next[page], head};
  page -= b.next_count;
  if (page < b.next_count) return {w.p.v, b.next[page], head};
  return {};
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
