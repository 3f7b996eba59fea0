// What the levels of gemm_w4 are called with.
#pragma once

#include <cstdint>

namespace tw::gemm_w4 {

constexpr int64_t kPanelCols = 16;
constexpr int64_t kWordCodes = 8;                     // codes an int32 holds
constexpr int64_t kBlock = 32;                        // k a panel is padded to
constexpr int64_t kWordBytes = 4 * kPanelCols;        // 8 k of a panel
constexpr int64_t kPanelBlockBytes = 4 * kWordBytes;  // 32 k of a panel

enum Kind { kF32, kBF16, kF16, kI8 };
enum Out { kOutF32, kOutBF16, kOutF16 };
enum Zero { kSym, kAsym, kMin };

// How a level wants its rows: what a word of 8 codes is multiplied with.
enum Stage {
  kFloats,   // 8 floats in order
  kPairs16,  // 4 pairs of bf16 or int16, of k = (0, 2), (1, 3), (4, 6), (5, 7)
  kBytes,    // 8 signed bytes in order
};

// Rows that meet tile registers together, panels whose totals wait meanwhile, and words of 8 k of a panel
// that are unpacked at a time.
constexpr int64_t kTileChunk = 64, kTilePanels = 16, kTileWords = 16;
constexpr int64_t kTileWeights = kTileWords * 4 * kWordBytes;
constexpr int64_t kTileParts = 2 * 16 * 4 * kPanelCols;  // sums of two groups of 16 rows
constexpr int64_t kTileRoom = kTileWeights + kTileParts + kTilePanels * kTileChunk * kPanelCols * 4;
constexpr float kTinyRow = 0x1p64f;  // what rows below 2^-60 are multiplied with before they are staged

// A row to be staged for tile registers.
struct StageRow {
  const char* from;  // contiguous, followed by 64 readable bytes
  Kind kind;
  int64_t element;  // bytes
  int64_t k;
  char* to;
  int64_t part_bytes;  // from part to part
};

// Bytes of one staged element.
constexpr int64_t stage_bytes(Stage stage) { return stage == kFloats ? 4 : stage == kPairs16 ? 2 : 1; }

// Consecutive panels, all rows of them.
struct Job {
  const char* a;  // staged rows, `a_bytes` apart, zero padded to 32 k
  int64_t a_bytes;
  int64_t part_bytes;       // from part to part of a row for tile registers
  const float* sums;        // [rows][groups] sums of a group's activations; null where nothing needs them
  const char* codes;        // of the first panel
  int64_t codes_bytes;      // from panel to panel
  const uint16_t* scale;    // fp16 [panel][groups][16]
  const uint8_t* zero;      // same shape, asym
  const uint16_t* minimum;  // same shape, min
  int64_t scale_step, zero_step, minimum_step;  // elements from panel to panel
  const float* row_scale;                       // null: 1
  const float* bias;                            // of the first column, padded to whole panels; null: 0
  char* c;                                      // of the first column
  int64_t c_row, c_col;                         // strides in elements
  int64_t rows, panels, cols;                   // cols: of these panels that exist
  int64_t words, groups, group_words;           // words of 8 k; of a group
  char* room;                                   // kTileRoom bytes for tile registers, zeros at first
  Zero kind_of_zero;
  Out out;
};

struct KernelTable {
  Stage stage[4];      // of a Kind
  bool needs_sums[4];  // also where there are no minima
  int64_t panels;      // that a job is best a multiple of
  void (*run[4])(const Job& job);

  // Where there are tile registers; null elsewhere. Their sums of floats have an order of their own.
  int parts[4];                               // bf16 values of a staged element
  int tile_least[4];                          // rows from which they are faster
  void (*run_tiles[4])(const Job& job);       // `row_scale` is always given
  float (*stage_tiles)(const StageRow& row);  // returns the power of two that the row was multiplied with
};

}  // namespace tw::gemm_w4
