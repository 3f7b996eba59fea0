// Tensors of a paged cache as kernels address them, with the checks at the border.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "_host/call.hpp"

namespace tw::kv {

constexpr int64_t kPage = 16;

// Distance in bytes of neighbours along a dimension.
inline int64_t step(const tw_tensor& t, int32_t dim) { return t.stride[dim] * dtype_size(t.dtype); }

// A tensor of up to four dimensions; strides in bytes.
struct Strided {
  char* data = nullptr;
  int64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  char* at(int64_t i, int64_t j = 0, int64_t k = 0) const { return data + i * s0 + j * s1 + k * s2; }
};

inline Strided strided(const tw_tensor& t) {
  int64_t s[4] = {};
  for (int32_t i = 0; i < t.ndim && i < 4; ++i) s[i] = step(t, i);
  return {static_cast<char*>(t.data), s[0], s[1], s[2], s[3]};
}

// Pages of codes or floats: what lies from page to page, and in one head's vector.
struct Pages {
  char* data = nullptr;
  int64_t page_bytes = 0, row_bytes = 0;
};

// Refuses unless dimensions `from`... of `t` lie dense.
inline bool check_dense(const Call& call, const tw_tensor& t, int32_t from) {
  int64_t expected = 1;
  for (int32_t i = t.ndim - 1; i >= from; --i) {
    if (t.shape[i] > 1 && t.stride[i] != expected && Call::count(t) != 0) {
      call.refuse("dimension %d of \"%s\" has stride %lld; accepted: %lld, pages are dense", i, t.name,
                  static_cast<long long>(t.stride[i]), static_cast<long long>(expected));
      return false;
    }
    expected *= t.shape[i];
  }
  return true;
}

// Refuses unless elements of the last dimension are neighbours.
inline bool check_unit(const Call& call, const tw_tensor& t) {
  const int32_t last = t.ndim - 1;
  if (t.shape[last] <= 1 || t.stride[last] == 1 || Call::count(t) == 0) return true;
  call.refuse("the last dimension of \"%s\" has stride %lld; accepted: 1", t.name,
              static_cast<long long>(t.stride[last]));
  return false;
}

// A tensor of this type and shape; its last dimension dense if `unit`. Null after refusing.
inline const tw_tensor* expect(const Call& call, const char* name, int32_t dtype,
                               std::initializer_list<int64_t> shape, bool unit = false) {
  const tw_tensor* t = call.require(name, static_cast<int32_t>(shape.size()));
  if (t == nullptr || !call.check_dtype(*t, dtype)) return nullptr;
  int32_t dim = 0;
  for (const int64_t size : shape) {
    if (!call.check_dim(*t, dim++, size)) return nullptr;
  }
  return unit && !check_unit(call, *t) ? nullptr : t;
}

inline bool read_strided(const Call& call, const char* name, int32_t dtype,
                         std::initializer_list<int64_t> shape, Strided* to, bool unit = false) {
  const tw_tensor* t = expect(call, name, dtype, shape, unit);
  if (t != nullptr) *to = strided(*t);
  return t != nullptr;
}

// Pages [pages, 16, heads, lanes], nd or NZ.
inline bool read_pages(const Call& call, const char* name, bool nz, int32_t dtype, int64_t pages,
                       int64_t heads, int64_t lanes, Pages* to) {
  const int64_t size = dtype_size(dtype), chunk = 32 / size;
  const tw_tensor* t =
      nz ? expect(call, name, dtype, {pages, heads, (lanes + chunk - 1) / chunk, kPage, chunk})
         : expect(call, name, dtype, {pages, kPage, heads, lanes});
  if (t == nullptr || !call.check_align(*t, 64) || !check_dense(call, *t, 1)) return false;
  *to = {static_cast<char*>(t->data), step(*t, 0), lanes * size};
  return true;
}

// The first dimension of a tensor of pages, before the rest of it is checked; -1 after refusing.
inline int64_t page_count(const Call& call, const char* name, bool nz) {
  const tw_tensor* t = call.require(name, nz ? 5 : 4);
  return t == nullptr ? -1 : t->shape[0];
}

// Reads `kv_layout`; refuses what is neither nd nor nz.
inline bool read_layout(const Call& call, bool* nz) {
  const int64_t layout = call.attr("kv_layout", 0);
  *nz = layout == 1;
  if (layout == 0 || layout == 1) return true;
  call.refuse("kv_layout is %lld; accepted: 0 (nd) or 1 (nz)", static_cast<long long>(layout));
  return false;
}

inline bool check_float(const Call& call, const tw_tensor& t) {
  for (int32_t known : {TW_FP32, TW_BF16, TW_FP16}) {
    if (t.dtype == known) return true;
  }
  call.refuse("tensor \"%s\" is %s; accepted: fp32, bf16, fp16", t.name, dtype_name(t.dtype));
  return false;
}

}  // namespace tw::kv
