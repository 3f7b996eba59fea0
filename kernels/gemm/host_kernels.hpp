// What the scheduling half of the host gemm (host.cpp, baseline code) knows of the computing half
// (host_simd.cpp, compiled once per ISA level): plain structs and one table of functions per level.
//
// Words used here. panel: 16 columns of B, stored [group][16][KR]. group: KR consecutive k. row tile: up to
// KernelTable::mr rows of A, stored [group][word][row] (with tile registers: [16 groups][16 rows][16
// groups]). acc: fp32 or int32 sums, row-major.
#pragma once

#include <stdint.h>

namespace tw::gemm {

enum Kind : int { kF32 = 0, kBF16 = 1, kF16 = 2, kI8 = 3 };
constexpr int kKinds = 4;
constexpr int kPanelCols = 16;

// Consecutive k per group and bytes of one group of a panel, by Kind.
constexpr int kGroup[kKinds] = {1, 2, 1, 4};
constexpr int kGroupBytes[kKinds] = {64, 64, 32, 64};
constexpr int kElementBytes[kKinds] = {4, 2, 2, 1};

// [0, total) in `count` parts of whole units (but for the end of the last one) that differ by at most one.
struct Parts {
  int64_t count, base, extra, unit, total;
  constexpr int64_t begin(int64_t i) const { return (i * base + (i < extra ? i : extra)) * unit; }
  constexpr int64_t size(int64_t i) const {
    const int64_t whole = (base + (i < extra ? 1 : 0)) * unit, left = total - begin(i);
    return whole < left ? whole : left;
  }
  // What every part fits into.
  constexpr int64_t room() const { return (base + (extra != 0 ? 1 : 0)) * unit; }
};

// One matrix operand: element (r, c) is at data + (r * row_stride + c * col_stride) elements.
struct Operand {
  const char* data;
  int64_t row_stride, col_stride;
};

struct PackA {
  Operand a;           // at the first row of the tile, k = 0
  int64_t rows, k;     // rows of the tile
  uint32_t* dst;       // rows * groups * a_words words
  int32_t* row_start;  // int8: what each row's sums start from
};

struct PackB {
  Operand b;  // (k, n) order: row_stride steps k, col_stride steps n; at the first k and n of the region
  int64_t k, n;
  char* dst;
  int64_t panel_bytes;  // from one packed panel to the next
  int64_t groups, panels;
};

struct Tile {
  const uint32_t* a;     // packed row block, k = 0
  int64_t rows;          // rows of the block, cut into row tiles by cut(rows, mr, row_unit)
  int64_t total_groups;  // groups of all of K, padded
  int64_t first_group, groups;
  const char* b;  // first panel, at first_group
  int64_t panel_bytes, panels;
  int64_t group_bytes;  // of one panel
  void* wide;           // room for 128 bytes per group and panel
  void* acc;            // [rows][acc_stride], 16 * panels columns are used
  int64_t acc_stride;
  const int32_t* row_start;  // null: sums start from zero
  const char* prefetch;      // the panel(s) wanted next, same shape; null for none
};

struct Dot {
  const uint32_t* a;  // prepared rows, `a_row_words` apart
  int64_t a_row_words, rows;
  const char* b;        // [cols] rows of K contiguous elements
  int64_t b_col_bytes;  // from one column of B to the next
  int64_t k, cols;
  void* acc;
  int64_t acc_stride;
  const int32_t* row_start;
  int64_t prefetch_bytes;  // how far ahead to prefetch, 0 for not at all
};

struct Axpy {
  const float* a;  // [rows][k], widened
  int64_t rows, k, cols;
  const char* b;  // [k] rows of contiguous columns
  int64_t b_row_bytes;
  float* acc;
  int64_t acc_stride;
  bool prefetch;  // the next rows of B, while these are added
};

enum Out : int { kOutF32 = 0, kOutBF16 = 1, kOutF16 = 2, kOutI32 = 3 };
constexpr int kOutBytes[] = {4, 2, 2, 4};  // of an element, by Out

struct Epilogue {
  const void* acc;  // int32 when `integer`, else fp32
  int64_t acc_stride, rows, cols;
  bool integer;
  Out out;
  char* c;
  int64_t c_row_stride, c_col_stride;  // elements
  const void* bias;                    // [cols] fp32 (int32 for kOutI32), or null
  const float* row_scale;              // [rows] or null
  const float* col_scale;              // [cols] or null; with it the sums are scaled
};

struct KernelTable {
  int mr[kKinds];          // most rows of a row tile
  int np[kKinds];          // most panels per call of `tile`
  int row_unit[kKinds];    // rows are padded to a multiple of this, in packed A and in acc
  int k_unit[kKinds];      // groups of k are padded to a multiple of this in packed A, and K blocks cut at it
  int band_bytes[kKinds];  // packed A of the rows that are packed at a time
  bool needs_row_start;    // int8 sums start from -128 * sum(row)
  bool one_order[kKinds];  // tile, stream and dot give the same bits: exact, or added in the same order
  int a_words[kKinds];     // 32-bit words per row and group of packed A
  int dot_chunk[kKinds];   // k per chunk of `dot`
  int dot_words[kKinds];   // words per chunk of a row prepared for `dot`
  void (*pack_a[kKinds])(const PackA&);
  void (*pack_b[kKinds])(const PackB&);
  void (*tile[kKinds])(const Tile&);    // adds one K block; the first one starts the sums
  void (*stream[kKinds])(const Tile&);  // rows <= mr: one row tile, all of K, any number of panels
  void (*pack_dot[kKinds])(const PackA&);
  void (*dot[kKinds])(const Dot&);
  void (*axpy[kKinds])(const Axpy&);  // null for int8
  void (*epilogue)(const Epilogue&);
  void (*begin[kKinds])();  // what a thread does before its first and after its last call of tile, stream and
  void (*end[kKinds])();    // dot; null for nothing
};

// As few parts of at most `most` as possible, then as even as possible; a part is at least one unit.
constexpr Parts cut(int64_t total, int64_t most, int64_t unit = 1) {
  const int64_t units = (total + unit - 1) / unit, each = most < unit ? 1 : most / unit;
  const int64_t count = (units + each - 1) / each;
  return {count, count ? units / count : 0, count ? units % count : 0, unit, total};
}

}  // namespace tw::gemm
