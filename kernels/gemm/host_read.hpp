// What of a call is read alike by every family whose products run on gemm's tiles.
#pragma once

#include "gemm/host_run.hpp"

namespace tw::gemm {

// Reads one config field; refuses outside [low, high] or off the step.
inline bool read_field(const Call& call, const char* name, int64_t fallback, int64_t low, int64_t high,
                       int64_t step, int64_t* value) {
  *value = call.attr(name, fallback);
  if (*value >= low && *value <= high && *value % step == 0) return true;
  if (step == 1) {
    call.refuse("%s is %lld; accepted: %lld to %lld", name, static_cast<long long>(*value),
                static_cast<long long>(low), static_cast<long long>(high));
  } else {
    call.refuse("%s is %lld; accepted: multiples of %lld from %lld to %lld", name,
                static_cast<long long>(*value), static_cast<long long>(step), static_cast<long long>(low),
                static_cast<long long>(high));
  }
  return false;
}

// Block sizes and stages; the default is 32 x 32 tiles, double-buffered.
inline bool read_config(const Call& call, Config* config) {
  return read_field(call, "tile_m", 32, 1, 1024, 1, &config->tile_m) &&
         read_field(call, "tile_n", 32, 16, 1024, 16, &config->tile_n) &&
         read_field(call, "tile_k", 32, 32, 4096, 32, &config->tile_k) &&
         read_field(call, "stages", 2, 1, 2, 1, &config->stages);
}

// A checked tensor of one dimension, or dimension `dim` of one, as a vector.
inline Strided strided(const tw_tensor& t, int32_t dim = 0) {
  return {static_cast<const char*>(t.data), t.dtype, t.stride[dim]};
}

// The kind and the output of the types of a, b and c; refuses others.
inline bool read_dtypes(const Call& call, const tw_tensor& a, const tw_tensor& b, const tw_tensor& c,
                        Problem* p) {
  struct Known {
    int32_t dtype;
    Kind kind;
  };
  constexpr Known known[] = {{TW_FP32, kF32}, {TW_BF16, kBF16}, {TW_FP16, kF16}, {TW_INT8, kI8}};
  bool found = false;
  for (const Known& entry : known) {
    if (entry.dtype != a.dtype) continue;
    p->kind = entry.kind;
    found = true;
  }
  if (!found) {
    call.refuse("tensor \"a\" is %s; accepted: fp32, bf16, fp16, int8", dtype_name(a.dtype));
    return false;
  }
  if (!call.check_dtype(b, a.dtype)) return false;
  if (p->kind != kI8 && !call.check_dtype(c, a.dtype)) return false;
  switch (c.dtype) {
    case TW_FP32:
      p->out = kOutF32;
      return true;
    case TW_BF16:
      p->out = kOutBF16;
      return true;
    case TW_FP16:
      p->out = kOutF16;
      return true;
    case TW_INT32:
      p->out = kOutI32;
      return true;
    default:
      call.refuse("tensor \"c\" is %s; accepted with int8 inputs: int32, fp32, bf16, fp16",
                  dtype_name(c.dtype));
      return false;
  }
}

// Panels of b from dimension `first` of its tensor on: [ceil(n/16), ceil(k/KR), 16, KR], each contiguous.
inline bool read_panel16(const Call& call, const tw_tensor& b, int32_t first, Problem* p) {
  const int64_t group = kGroup[p->kind];
  const int64_t groups = (p->k + group - 1) / group;
  if (!call.check_dim(b, first, (p->n + kPanelCols - 1) / kPanelCols) ||
      !call.check_dim(b, first + 1, groups) || !call.check_dim(b, first + 2, kPanelCols) ||
      !call.check_dim(b, first + 3, group)) {
    return false;
  }
  const int64_t* stride = b.stride + first;
  const bool dense = Call::count(b) == 0 || ((group == 1 || stride[3] == 1) && stride[2] == group &&
                                             (groups <= 1 || stride[1] == kPanelCols * group));
  if (!dense) {
    call.refuse("each panel of a panel16 \"b\" must be contiguous, its strides are %lld,%lld,%lld",
                static_cast<long long>(stride[1]), static_cast<long long>(stride[2]),
                static_cast<long long>(stride[3]));
    return false;
  }
  p->prepacked = true;
  p->b = {static_cast<const char*>(b.data), 0, 0};
  p->panel_bytes = stride[0] * dtype_size(b.dtype);
  return true;
}

// The type of a bias for these operands and outputs.
constexpr int32_t bias_dtype(Kind kind, Out out) {
  constexpr int32_t operands[kKinds] = {TW_FP32, TW_BF16, TW_FP16, TW_FP32};
  return kind == kI8 && out == kOutI32 ? int32_t{TW_INT32} : operands[kind];
}

// Whether int8 sums are multiplied with scales on their way out.
constexpr bool takes_scales(Kind kind, Out out) { return kind == kI8 && out != kOutI32; }

}  // namespace tw::gemm
