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

// Bytes of one staged element.
constexpr int64_t stage_bytes(Stage stage) { return stage == kFloats ? 4 : stage == kPairs16 ? 2 : 1; }

// Consecutive panels, all rows of them.
struct Job {
  const char* a;  // staged rows, `a_bytes` apart, zero padded to 32 k
  int64_t a_bytes;
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
  char* room;                                   // 256 bytes a word, for unpacked weights
  Zero kind_of_zero;
  Out out;
  bool batch_invariant;
};

struct KernelTable {
  Stage stage[4];      // of a Kind
  bool needs_sums[4];  // also where there are no minima
  int64_t panels;      // that a job is best a multiple of
  void (*run[4])(const Job& job);
};

}  // namespace tw::gemm_w4
