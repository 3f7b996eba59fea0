// What the scheduling half of the host attention (host_run.cpp, baseline code) knows of the computing half
// (host_simd.cpp, compiled once per ISA level): plain structs and one table of functions per level.
//
// Words used here. row: one query of one head; rows of the heads that share a key head lie side by side, so a
// key is loaded once for all of them. panel: 16 rows; a row is a lane of the vectors, so that maxima and sums
// over keys never cross lanes. block: the rows that pass over packed keys together. Scores, weights and
// outputs are stored transposed, [panel][key or dv][16].
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace tw::attention {

// How products are computed: fp32 lanes, bf16 dot products, int8 dot products.
enum Kind : int { kF32 = 0, kBF16 = 1, kI8 = 2 };
constexpr int kKinds = 3;
enum Element : int { kElementF32 = 0, kElementBF16 = 1, kElementF16 = 2 };
constexpr int kElementBytes[] = {4, 2, 2};

constexpr int kPanelRows = 16;
constexpr int kPanelBytes = 4 * kPanelRows;  // of one key, dv or group of a panel
constexpr int kDvUnit = 16;                  // packed dv is zero padded to a multiple of this

// Consecutive d (or keys) that one 32-bit lane holds, by Kind.
constexpr int kGroup[kKinds] = {1, 2, 4};

// Element (r, c) at data + (r * row_stride + c * stride) elements.
struct Matrix {
  const char* data;
  int64_t row_stride, stride;
};

struct PackQ {
  const char* const* rows;  // first element of each row
  int64_t count, panels;    // rows there are; those missing to whole panels become zero
  int64_t stride, dk;
  Element element;
  char* dst;           // [panel][group][16][values of a group]
  float* wide;         // int8: [panel][dk][16], as it was
  float* row_scale;    // int8: [panel][16], what a code of the row is worth
  int32_t* row_start;  // int8: [panel][16], what its sums start from
};

struct PackK {
  Matrix k;
  int64_t keys, padded, dk;
  Element element;
  char* dst;
  float* room;        // int8: [keys][dk]
  float* mean;        // int8: [dk] over the keys, subtracted before rounding
  float* key_scale;   // int8: one, what a code is worth
  int32_t* special;   // int8: keys that hold inf or NaN, rounded as zeros
  int64_t* specials;  // int8: how many
};

struct PackV {
  Matrix v;
  int64_t keys, padded, dv;
  Element element;
  char* dst;
  int32_t* special;   // keys that hold inf or NaN; packed as zeros there, since 0 * NaN is not nothing
  int64_t* specials;  // how many
  float* dv_scale;    // int8: [dv], what a code is worth
  char* room;         // as many bytes as packed V; int8: [keys][dv] of fp32
};

// What int8 needs besides codes.
struct Whole {
  const float* q;  // [panel][dk][16] of fp32
  int64_t dk;
  const float* row_scale;  // [panel][16]
  const int32_t* row_start;
  const float* mean;  // [dk] of the keys
  float key_scale;
  const float* dv_scale;   // [dv]
  const int32_t* special;  // keys with inf or NaN in K
  int64_t specials;
  Matrix keys;      // K as it was before packing
  int32_t* sums;    // room: [panel][dv][16]
  float* portions;  // room: [panel][16], what a code of a weight is worth
};

// Packed keys and values that are wanted next, to be fetched meanwhile.
struct Fetch {
  const char* k;
  int64_t k_bytes;
  const char* v;
  int64_t v_bytes;
};

// One block of rows passing over packed keys.
struct Block {
  int64_t panels, groups, dv;  // dv padded
  const char* q;               // [panel][groups][16][values of a group]
  const char* k;
  const char* v;
  int64_t first, last;  // keys to pass over, multiples of the key unit
  float* s;             // room: [panel][last - first][16]
  char* p;              // room: the same, as the kind multiplies weights
  float* o;             // [panel][dv][16], sums of weights times values, relative to 2^m
  float* m;             // [panel][16], in powers of two; near the largest score so far
  float* l;             // [panel][16], sums of weights
  int64_t key0;         // place of packed key 0 in its sequence
  const int32_t* low;   // [panel][16], places of the first and last key that a row sees
  const int32_t* high;
  bool masked;             // some row does not see all of [first, last)
  bool exact;              // weights to fp32 precision, since their logarithm is asked for
  float scale;             // of scores, to powers of two, unless there is a cap
  float cap, cap_scale;    // 0, or scores are cap * tanh(s * cap_scale), in powers of two
  const float* slope;      // null, or [panel][16], in powers of two
  const int32_t* place;    // [panel][16], the row's own place
  const int32_t* special;  // keys with inf or NaN in V
  int64_t specials;
  Matrix source;  // V as it was before packing
  Element element;
  int64_t dv_used;
  Fetch fetch;
  Whole whole;  // int8
};

struct Finish {
  const float* o;
  const float* m;
  const float* l;
  int64_t panels, count, dv, dv_used;
  char* const* rows;  // where each row of the output starts
  int64_t stride;
  Element element;
  float* const* lse;  // null, or where each row's log-sum-exp goes
  float* room;        // [16][dv]
};

struct KernelTable {
  bool dots[kKinds];     // whether the level has the kind's products
  int d_unit[kKinds];    // dk is zero padded to a multiple of this
  int key_unit[kKinds];  // and keys to a multiple of this
  void (*pack_q[kKinds])(const PackQ&);
  void (*pack_k[kKinds])(const PackK&);
  void (*pack_v[kKinds])(const PackV&);
  // Blocks that pass over the same packed keys, one after the other.
  void (*blocks[kKinds])(const Block*, int64_t);
  void (*finish)(const Finish&);
  void (*begin[kKinds])();  // null, or what a thread does before its first and after its last block
  void (*end[kKinds])();
};

}  // namespace tw::attention
