// Matrices whose rows kernels work on one at a time: checks, rows of any strides as contiguous ones, threads.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "_host/call.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"

namespace tw::rows {

constexpr int kKinds = 3;  // fp32, bf16, fp16, as tw_dtype numbers them

// Strides in bytes.
struct Matrix {
  char* data = nullptr;
  int64_t rows = 0, cols = 0, row = 0, lane = 0, size = 0;

  bool dense() const { return cols <= 1 || lane == size; }
  char* at(int64_t r) const { return data + r * row; }
  Matrix columns(int64_t begin, int64_t end) const {
    return {data + begin * lane, rows, end - begin, row, lane, size};
  }
};

// Where rows with elements side by side begin: `step` bytes apart.
struct Steps {
  char* data = nullptr;
  int64_t step = 0;

  char* at(int64_t r) const { return data + r * step; }
  explicit operator bool() const { return data != nullptr; }
};

inline Steps steps(const Matrix& m, int64_t first) { return {m.at(first), m.row}; }

inline Matrix matrix(const tw_tensor& t) {
  const int64_t size = dtype_size(t.dtype);
  if (t.ndim == 1) return {static_cast<char*>(t.data), 1, t.shape[0], 0, t.stride[0] * size, size};
  return {static_cast<char*>(t.data), t.shape[0], t.shape[1], t.stride[0] * size, t.stride[1] * size, size};
}

// Elements `lane` bytes apart, next to each other, or the other way round.
inline void copy_lanes(const char* from, int64_t from_lane, char* to, int64_t to_lane, int64_t size,
                       int64_t count) {
  if (count > 0 && from_lane == size && to_lane == size) {
    std::memcpy(to, from, static_cast<size_t>(count * size));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(to + i * to_lane, from + i * from_lane, static_cast<size_t>(size));
  }
}

// A row's elements side by side: where they lie, or copied to `room`.
inline const char* gathered(const Matrix& m, int64_t r, char* room) {
  if (m.dense()) return m.at(r);
  copy_lanes(m.at(r), m.lane, room, m.size, m.size, m.cols);
  return room;
}

// Where a row is written side by side; `scattered` brings it to its place.
inline char* target(const Matrix& m, int64_t r, char* room) { return m.dense() ? m.at(r) : room; }
inline void scattered(const Matrix& m, int64_t r, const char* room) {
  if (!m.dense()) copy_lanes(room, m.size, m.at(r), m.lane, m.size, m.cols);
}

// A tensor [rows, cols] of fp32, bf16 or fp16; refuses and returns null otherwise.
inline const tw_tensor* require_floats(const Call& call, const char* name) {
  const tw_tensor* t = call.require(name, 2);
  if (t == nullptr) return nullptr;
  if (t->dtype == TW_FP32 || t->dtype == TW_BF16 || t->dtype == TW_FP16) return t;
  call.refuse("tensor \"%s\" is %s; accepted: fp32, bf16, fp16", name, dtype_name(t->dtype));
  return nullptr;
}

// A tensor of this type and [rows, cols], or [cols] where rows is negative; refuses and returns null
// otherwise.
inline const tw_tensor* require_like(const Call& call, const char* name, int32_t dtype, int64_t rows,
                                     int64_t cols) {
  const int32_t ndim = rows < 0 ? 1 : 2;
  const tw_tensor* t = call.require(name, ndim);
  if (t == nullptr || !call.check_dtype(*t, dtype)) return nullptr;
  if (rows >= 0 && !call.check_dim(*t, 0, rows)) return nullptr;
  return call.check_dim(*t, ndim - 1, cols) ? t : nullptr;
}

// As require_like, for what is written.
inline const tw_tensor* require_output(const Call& call, const char* name, int32_t dtype, int64_t rows,
                                       int64_t cols) {
  const tw_tensor* t = require_like(call, name, dtype, rows, cols);
  if (t == nullptr) return nullptr;
  const View2 view = t->ndim == 1 ? View2{nullptr, 1, t->shape[0], 0, t->stride[0]} : view2(*t);
  if (injective(view)) return t;
  call.refuse("strides make elements of \"%s\" overlap; accepted: an address for each element", name);
  return nullptr;
}

// Whether rows of an output go past the caches: those that are far too many for the second one would each be
// fetched before they are written. They must begin on lines.
inline bool streams(const Matrix& m) {
  static const int64_t cache = std::max<int64_t>(1 << 20, sysconf(_SC_LEVEL2_CACHE_SIZE));
  const bool aligned = reinterpret_cast<uintptr_t>(m.data) % kAlign == 0 && m.row % kAlign == 0;
  return m.dense() && aligned && m.rows * m.cols * m.size > 4 * cache;
}

// Below this much work waking a thread costs more than it saves.
constexpr int64_t kBytesAThread = 65536;

inline int threads_for(const Call& call, int64_t bytes, int64_t parts) {
  const int64_t most = std::min<int64_t>(parts, resolve_threads(call.threads()));
  return static_cast<int>(std::clamp<int64_t>(bytes / kBytesAThread, 1, std::max<int64_t>(most, 1)));
}

}  // namespace tw::rows
