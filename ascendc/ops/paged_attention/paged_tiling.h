// The launch parameters of the paged_attention kernels: 32-bit fields only, written by the host, read by the
// kernel word by word. Lengths count elements, tokens or rows; offsets into the workspace count 512 bytes.
#pragma once

#include <cstdint>

struct TwPagedTiling {
  int32_t heads, kv_heads, group;  // group = heads / kv_heads
  int32_t dk, dv;
  int32_t table_width;     // pages of a row of the block table
  int32_t k_page, v_page;  // elements from page to page of the caches
  int32_t nz;              // 1: pages in fractals
  int32_t codes;           // 0: the caches hold floats; 1: int8 with channel scales; 2: with token scales
  int32_t residual;        // 1: nested residuals and float vectors
  int32_t has_lse, has_alibi;
  float scale, softcap;  // softcap 0: none
  int32_t tile_heads;    // kv heads that a task takes together
  int32_t tile_tokens;   // tokens of an L1 load
  int32_t step_tokens;   // tokens of one softmax step
  int32_t row_blocks;    // most (kv head, query) pairs of a task
  int32_t pass_rows;     // rows that a vector core holds at once
  int32_t cores;
  int32_t merges;                                                   // records of the merge, after all tasks
  int32_t scores, weights, values, queries, keys, parts, part_lse;  // where each begins in the workspace
};

// The plan, an array of int32: for each cube core where its tasks begin, and where the last one's end; then
// the tasks; then the merges. Pages, tokens and positions count from the task's first page.
struct TwPagedTask {
  int32_t sequence;
  int32_t row;  // of q: the first query's
  int32_t queries;
  int32_t head;      // first kv head
  int32_t page;      // first page within the sequence
  int32_t tokens;    // > 0
  int32_t position;  // of the first query; may be negative
  int32_t skip;      // tokens of the first page that lie before the window, which then is of one query
  int32_t part;      // row among the partial results, or -1 where the task is whole
};

// Rows of one tile of queries put together from `splits` partial results, `stride` rows apart. Without
// splits no key is visible: o = 0, lse = -inf.
struct TwPagedMerge {
  int32_t row, queries, head, part, splits, stride, unused0, unused1;
};
