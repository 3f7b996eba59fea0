// The dispatch table that generate.py writes: everything a launch needs, known at compile time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "_host/abi.h"

namespace tilewright::launch {

enum class Api : uint8_t { kCuda, kHip };
enum class Presence : uint8_t { kRequired, kOptional, kAbsent };
enum class ArgKind : uint8_t { kTensor, kDim, kStride, kAttr, kNumber, kConst, kWorkspace };
enum class CType : uint8_t { kPointer, kI32, kI64, kFp32 };

// One axis: the index of its dim in Entry::dims, or -1 and a fixed extent (-1: any).
struct Extent {
  int32_t dim;
  int64_t fixed;
};

struct TensorDecl {
  const char* name;
  int32_t dtype;
  Presence presence;
  int32_t ndim;
  int32_t unit_axis;  // axis whose stride must be 1, or -1
  bool dense;         // row by row without gaps
  Extent extents[TW_MAX_DIMS];
};

struct Arg {
  ArgKind kind;
  CType ctype;
  const char* name;
  int32_t index;      // tensor (kTensor, kStride) or dim (kDim)
  int32_t axis;       // of kStride
  int32_t divisible;  // 1: no condition
  int64_t value;      // kConst; an fp32 stands here as its bit pattern
};

struct Flag {
  const char* name;
  int64_t value;
};

struct Range {
  int32_t dim;
  int64_t low;
  int64_t high;
};

using GridFn = int64_t (*)(const int64_t* dims);

// One kernel of an entry; those of one entry start in their order on the same stream.
struct Kernel {
  const char* symbol;
  const char* binary;
  const char* sha256;
  const unsigned char* image;  // embedded bytes, or null: read `binary` from the bundle
  size_t image_size;
  uint32_t block;
  uint32_t shared_bytes;
  uint32_t scratch_bytes;  // global scratch per program
  bool hidden_pointers;    // append Triton's global and profile scratch pointers
  const Arg* args;
  int32_t arg_count;
  GridFn grid[3];
};

struct Entry {
  const char* id;
  const char* family;
  const char* target;
  const char* arch;
  Api api;
  const char* const* dims;
  int32_t dim_count;
  const TensorDecl* tensors;
  int32_t tensor_count;
  const Flag* flags;
  int32_t flag_count;
  const Range* when;
  int32_t when_count;
  const Kernel* kernels;  // at least one
  int32_t kernel_count;
  GridFn workspace;  // bytes that the kernels share
};

struct Table {
  const Entry* entries;
  int32_t count;
};

const Table& GeneratedTable();

// Grid arithmetic saturates at INT64_MAX, which every limit check then refuses.
inline int64_t Mul(int64_t a, int64_t b) {
  int64_t out = 0;
  return __builtin_mul_overflow(a, b, &out) ? INT64_MAX : out;
}
inline int64_t Add(int64_t a, int64_t b) {
  int64_t out = 0;
  return __builtin_add_overflow(a, b, &out) ? INT64_MAX : out;
}
inline int64_t Sub(int64_t a, int64_t b) {
  int64_t out = 0;
  return __builtin_sub_overflow(a, b, &out) ? INT64_MAX : out;
}
inline int64_t FloorDiv(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
inline int64_t CeilDiv(int64_t a, int64_t b) { return -FloorDiv(-a, b); }
inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace tilewright::launch
