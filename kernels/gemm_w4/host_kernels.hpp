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

// Many rows: those that meet unpacked weights together, panels whose totals wait meanwhile, words of 8 k of a
// panel that are unpacked at a time, into as many bytes, and sums of two groups of 16 rows on tile registers.
constexpr int64_t kManyRows = 64, kManyPanels = 16, kManyWords = 16;
constexpr int64_t kManyWeights = kManyWords * kWordCodes * kPanelCols * 4;
constexpr int64_t kManyParts = 2 * 16 * 4 * kPanelCols;
constexpr int64_t kManyRoom = kManyWeights + kManyParts + kManyPanels * kManyRows * kPanelCols * 4;
constexpr float kTinyRow = 0x1p64f;  // what rows below 2^-60 are multiplied with on tile registers

// A row to be staged.
struct StageRow {
  const char* from;  // contiguous, followed by kRowEnd bytes of zeros
  Kind kind;
  int64_t element;  // bytes
  int64_t k;
  char* to;
  int64_t part_bytes;  // tile registers: from part to part

  // Bytes: of each group.
  int64_t group;
  int32_t* wholes;
  float *factors, *sums;
};
constexpr int64_t kRowEnd = 128;

// Consecutive panels, all rows of them.
struct Job {
  const char* a;  // staged rows, `a_bytes` apart, zero padded to 32 k
  int64_t a_bytes;
  int64_t part_bytes;       // from part to part of a row for tile registers
  const float* sums;        // [rows][groups] sums of a group's activations, for minima
  const float* factors;     // [rows][groups] what their bytes are multiplied with
  const int32_t* wholes;    // [rows][groups][2] sums of their bytes, of the low two of each and of the others
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
  char* room;                                   // many rows: kManyRoom bytes, zeros at first
  Zero kind_of_zero;
  Out out;
};

struct KernelTable {
  // Signed bytes that a staged activation of a Kind is; 0: pairs of bf16, of k = (0, 2), (1, 3), (4, 6), (5,
  // 7).
  int bytes[4];
  int64_t panels;  // that a job is best a multiple of
  void (*run[4])(const Job& job);
  void (*stage_bytes)(const StageRow& row);

  // Many rows take an order of sums of their own: on tile registers, or where bytes have no dot products.
  // Null elsewhere.
  int many_bytes[4];                         // of a staged element
  int many_least[4];                         // rows from which they are faster, 0: never
  bool many_whole;                           // whether minima are part of the weights, and need no sums
  void (*run_many[4])(const Job& job);       // `row_scale` is always given
  float (*stage_many)(const StageRow& row);  // returns the power of two that the row was multiplied with
};

}  // namespace tw::gemm_w4
