// Typed access to a tw_call: tensors and attributes by name, refusals in one sentence.
#pragma once

#include <bit>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "_host/abi.h"

namespace tw {

inline const char* dtype_name(int32_t dtype) {
  constexpr const char* names[] = {"fp32",  "bf16",  "fp16", "int8", "int32",
                                   "int64", "uint8", "fp64", "int16"};
  return dtype >= 0 && dtype < 9 ? names[dtype] : "unknown";
}

// Bytes of one element; 0 for an unknown dtype.
inline int64_t dtype_size(int32_t dtype) {
  constexpr int64_t sizes[] = {4, 2, 2, 1, 4, 8, 1, 8, 2};
  return dtype >= 0 && dtype < 9 ? sizes[dtype] : 0;
}

// The bytes at element offset `offset` of a tensor's data.
inline char* element(const tw_tensor& t, int64_t offset) {
  return static_cast<char*>(t.data) + offset * dtype_size(t.dtype);
}

class Call {
 public:
  explicit Call(const tw_call& raw) : raw_(raw) {}

  // Null when the tensor is not passed or is an absent optional one.
  const tw_tensor* tensor(const char* name) const {
    for (int32_t i = 0; i < raw_.tensor_count; ++i) {
      const tw_tensor& t = raw_.tensors[i];
      if (t.name != nullptr && std::strcmp(t.name, name) == 0) return t.ndim < 0 ? nullptr : &t;
    }
    return nullptr;
  }

  int64_t attr(const char* name, int64_t fallback) const {
    for (int32_t i = 0; i < raw_.attr_count; ++i) {
      const tw_attr& a = raw_.attrs[i];
      if (a.name != nullptr && std::strcmp(a.name, name) == 0) return a.value;
    }
    return fallback;
  }

  // A numeric flag.
  double number(const char* name, double fallback) const {
    return std::bit_cast<double>(attr(name, std::bit_cast<int64_t>(fallback)));
  }

  // A tensor that must be there with `ndim` dimensions; refuses and returns null otherwise.
  const tw_tensor* require(const char* name, int32_t ndim) const {
    const tw_tensor* t = tensor(name);
    if (t == nullptr) {
      refuse("tensor \"%s\" is missing", name);
    } else if (t->ndim != ndim) {
      refuse("tensor \"%s\" has %d dimensions, expected %d", name, t->ndim, ndim);
      t = nullptr;
    } else if (t->data == nullptr && count(*t) != 0) {
      refuse("tensor \"%s\" has no data", name);
      t = nullptr;
    }
    return t;
  }

  // Refuses unless dimension `dim` of `t` has `size` elements.
  bool check_dim(const tw_tensor& t, int32_t dim, int64_t size) const {
    if (t.shape[dim] == size) return true;
    refuse("dimension %d of \"%s\" is %lld, expected %lld", dim, t.name, static_cast<long long>(t.shape[dim]),
           static_cast<long long>(size));
    return false;
  }

  bool check_dtype(const tw_tensor& t, int32_t dtype) const {
    if (t.dtype == dtype) return true;
    refuse("tensor \"%s\" is %s, expected %s", t.name, dtype_name(t.dtype), dtype_name(dtype));
    return false;
  }

  // Refuses unless the address and the stride of the first dimension are multiples of `bytes`.
  bool check_align(const tw_tensor& t, int64_t bytes) const {
    if (count(t) == 0) return true;
    const auto address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(t.data));
    if (address % bytes != 0) {
      refuse("tensor \"%s\" starts %lld bytes after a multiple of %lld; accepted: aligned to %lld bytes",
             t.name, static_cast<long long>(address % bytes), static_cast<long long>(bytes),
             static_cast<long long>(bytes));
      return false;
    }
    const int64_t stride = t.stride[0] * dtype_size(t.dtype);
    if (t.shape[0] <= 1 || stride % bytes == 0) return true;
    refuse("tensor \"%s\" has pages %lld bytes apart; accepted: multiples of %lld", t.name,
           static_cast<long long>(stride), static_cast<long long>(bytes));
    return false;
  }

  int refuse(const char* format, ...) const __attribute__((format(printf, 2, 3))) {
    va_list args;
    va_start(args, format);
    write(format, args);
    va_end(args);
    return TW_REFUSED;
  }

  int fail(const char* format, ...) const __attribute__((format(printf, 2, 3))) {
    va_list args;
    va_start(args, format);
    write(format, args);
    va_end(args);
    return TW_FAILED;
  }

  int threads() const { return raw_.threads; }

  static int64_t count(const tw_tensor& t) {
    int64_t n = 1;
    for (int32_t i = 0; i < t.ndim; ++i) n *= t.shape[i];
    return n;
  }

 private:
  void write(const char* format, va_list args) const {
    if (raw_.error != nullptr && raw_.error_size != 0) {
      std::vsnprintf(raw_.error, raw_.error_size, format, args);
    }
  }

  const tw_call& raw_;
};

// Reads a flag that has `count` values; refuses others.
inline bool read_choice(const Call& call, const char* name, int64_t fallback, int64_t count,
                        const char* accepted, int64_t* value) {
  *value = call.attr(name, fallback);
  if (*value >= 0 && *value < count) return true;
  call.refuse("%s is %lld; accepted: %s", name, static_cast<long long>(*value), accepted);
  return false;
}

inline bool read_choice(const Call& call, const char* name, bool fallback, const char* accepted, bool* yes) {
  int64_t value;
  if (!read_choice(call, name, fallback, 2, accepted, &value)) return false;
  *yes = value == 1;
  return true;
}

// Two-dimensional strided view; strides count elements.
struct View2 {
  char* data = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t row_stride = 0, col_stride = 0;
};

inline View2 view2(const tw_tensor& t) {
  return {static_cast<char*>(t.data), t.shape[0], t.shape[1], t.stride[0], t.stride[1]};
}

// True when no two elements of the view can share an address (sufficient, and exact for sliced or transposed
// dense arrays).
inline bool injective(const View2& v) {
  const int64_t rs = v.row_stride < 0 ? -v.row_stride : v.row_stride;
  const int64_t cs = v.col_stride < 0 ? -v.col_stride : v.col_stride;
  if (v.rows == 0 || v.cols == 0 || (v.rows == 1 && v.cols == 1)) return true;
  if (v.rows <= 1) return cs > 0;
  if (v.cols <= 1) return rs > 0;
  if (rs == 0 || cs == 0) return false;
  return rs >= cs ? rs > cs * (v.cols - 1) : cs > rs * (v.rows - 1);
}

}  // namespace tw
