// What host.cpp (checks, threads, merging) knows of host_simd.cpp (compiled once per ISA level).
#pragma once

#include <stdint.h>

namespace tw::beam_topk {

enum Kind : int { kF32 = 0, kBF16 = 1, kF16 = 2, kI8 = 3 };
constexpr int kKinds = 4;

// Logits are looked at in blocks of this many, wherever a row is cut for threads: bits of a sum do not depend
// on how many threads there are.
constexpr int64_t kBlock = 256;
constexpr int kMostResults = 64;
constexpr int kMostKept = 2 * kMostResults;
constexpr float kLargest = 0x1.fffffep127f;
constexpr float kLowest = -__builtin_inff();

struct Candidate {
  float key;    // what decides: the value, or its code
  float value;  // +inf as the largest fp32
  int64_t id;
};

// The largest so far, by key and then by lower id, as long as ids come in ascending order.
struct Kept {
  int64_t capacity, count;
  bool coarse;    // keys are codes below `largest`
  float largest;  // of the row
  Candidate found[kMostKept];
};

struct KernelTable {
  // The largest of n <= kBlock logits (kLowest where none is above it) and, unless scale is 0, the sum of
  // 2^(scale * (x - largest)). NaN counts as -inf, +inf as the largest fp32.
  void (*scan[kKinds])(const void* x, int64_t n, float scale, float* largest, float* sum);
  // Puts what is at least `least` and above -inf of n <= kBlock logits, the first with id `id`, into `kept`.
  void (*collect[kKinds])(const void* x, int64_t n, int64_t id, float least, Kept* kept);
  // The sum of sums[i] * 2^(scale * (largest[i] - most)).
  float (*combine)(const float* largest, const float* sums, int64_t n, float most, float scale);
};

}  // namespace tw::beam_topk
