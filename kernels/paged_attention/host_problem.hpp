// A checked paged_attention problem, its tasks, and what the scheduling half (baseline code) and the
// computing half (host_simd.cpp, compiled once per ISA level) know of each other.
//
// Words used here. head: a head of keys and values. row: one query of one query head. group: the query heads
// that share a head. block: up to kBlock consecutive tokens, at absolute multiples of kBlock, whose logits
// are computed together. task: some queries of one sequence, some heads, some pages.
#pragma once

#include <stdint.h>

#include "_host/abi.h"

namespace tw::paged {

constexpr int kPage = 16;
constexpr int kBlock = 64;
constexpr int kBlockPages = kBlock / kPage;
constexpr int kMaxQueries = 16;  // of one task

enum Kv : int { kFloat = 0, kC8s = 1, kC8d = 2, kKv4 = 3 };
enum Residual : int { kNone = 0, kNested = 1, kE3m0 = 2 };

// Up to three strided dimensions; strides count bytes. Absent when data is null.
struct Plane {
  const char* data = nullptr;
  int32_t dtype = TW_FP32;
  int64_t step[3] = {0, 0, 0};

  const char* at(int64_t i, int64_t j = 0, int64_t k = 0) const {
    return data + i * step[0] + j * step[1] + k * step[2];
  }
  int32_t i32(int64_t i, int64_t j = 0) const {
    int32_t value;
    __builtin_memcpy(&value, at(i, j), 4);
    return value;
  }
  uint32_t bits16(int64_t i, int64_t j = 0) const {
    uint16_t value;
    __builtin_memcpy(&value, at(i, j), 2);
    return value;
  }
};

// Vectors of selected tokens: mask and rank [P,HKV], rows [count, ...], contiguous each.
struct Selected {
  Plane mask, rank, rows, scale;
  int64_t count = 0;
};

// Keys or values. Element bytes of (page, head, token, 32-byte chunk) are at the sum of the steps.
struct Side {
  bool key = false;
  Plane pages;  // step[0] only
  int64_t head_step = 0, token_step = 0, chunk_step = 0;
  int64_t page_bytes = 0;  // of one page without what lies between pages
  int64_t channels = 0, row_bytes = 0;
  Plane channel_scale;            // [HKV,D]
  Plane token_scale, token_zero;  // [P,16,HKV]
  Plane page_scale, page_zero;    // [P,HKV,D]
  Plane open;                     // [NS,16,HKV*D]: keys of partial pages; step[2] is of heads
  Selected residuals, floats;
};

struct Problem {
  int64_t tq, hq, heads, dk, dv, sequences, pages, table_width;
  int64_t group;  // query heads of a head
  Kv kv;
  Residual residual;
  bool latent, batch_invariant;
  float scale, softcap;
  double window;
  Plane q, o, lse, alibi;  // [TQ,HQ,D], [TQ,HQ,DV], [TQ,HQ], [HQ]
  Plane cu_q, seq_lens, block_table;
  Side k, v;
  int64_t split_pages, prefetch_kib;
  int threads;
};

struct Task {
  int64_t sequence, length;
  int64_t query, queries;  // first row of q, and how many
  int64_t position;        // of the first query
  int64_t head, heads;
  int64_t first_page, pages;  // of the sequence
  int64_t partial;            // where its result stands, in units of one (query, query head)
};

// Memory of one thread, for tasks of up to `rows` rows a head and `heads` heads. Row lengths are padded
// to 64.
struct Scratch {
  int64_t rows, dk, dv;
  float* q;         // [heads][rows][dk]
  char* packed;     // [heads][rows to 16][2 * dk] bytes: bf16, or two int8 halves
  char* sums;       // [heads][rows / 8, rounded up][1024] bytes: tiles of products
  float* q_scale;   // [heads][rows]
  int32_t* q_bias;  // [heads][rows]
  float* o;         // [heads][rows][dv]
  float* top;       // [heads][rows]: largest logit so far, times log2(e)
  float* sum;       // [heads][rows]
  float* logits;    // [heads][rows][kBlock], then weights

  char* weights;        // [heads][rows][2 * kBlock]
  float* weight_scale;  // [heads][rows]
  float* tile;          // [kPage][max(dk, dv)]
  float* row;           // [max(dk, dv)]
  float* channel_k;     // [heads][dk]
  float* channel_v;     // [heads][dv]
  float* token_k;       // [heads][kBlock]
  float* token_v;       // [heads][kBlock]
  float* zero_v;        // [heads][kBlock]
  float* page_scale;    // [dk]
  float* page_zero;     // [dk]
  int64_t* first;       // [rows]: the first token a row sees
  int64_t* last;        // [rows]: one beyond the last
};

// Unnormalised results of a task: o [rows][dv] with row (query, query head) at `partial` + query * hq + head.
struct Partials {
  float* o;
  float* top;
  float* sum;
  int64_t dv;
};

struct KernelTable {
  void (*attend)(const Problem&, const Task&, const Scratch&, const Partials&);
};

}  // namespace tw::paged
