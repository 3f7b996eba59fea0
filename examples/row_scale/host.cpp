// row_scale on the processor: any strides, fp32 or bf16 in, fp32 out.
#include <cstring>

#include "_host/abi.h"
#include "_host/call.hpp"

namespace {

float load(const tw_tensor& t, int64_t offset) {
  if (t.dtype == TW_FP32) return static_cast<const float*>(t.data)[offset];
  const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(t.data)[offset]) << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

extern "C" int tw_host_row_scale(const tw_call* raw) {
  const tw::Call call(*raw);
  const tw_tensor* x = call.require("x", 2);
  const tw_tensor* scale = call.require("scale", 1);
  const tw_tensor* y = call.require("y", 2);
  if (x == nullptr || scale == nullptr || y == nullptr) return TW_REFUSED;
  if (!call.check_dim(*scale, 0, x->shape[0])) return TW_REFUSED;
  if (x->dtype != TW_FP32 && x->dtype != TW_BF16) return call.refuse("x is neither fp32 nor bf16");
  const int64_t unroll = call.attr("unroll", 4);
  float* out = static_cast<float*>(y->data);
  for (int64_t r = 0; r < x->shape[0]; ++r) {
    const float factor = static_cast<const float*>(scale->data)[r * scale->stride[0]];
    for (int64_t c = 0; c < x->shape[1]; c += unroll) {
      for (int64_t i = c; i < c + unroll && i < x->shape[1]; ++i) {
        out[r * y->stride[0] + i * y->stride[1]] = factor * load(*x, r * x->stride[0] + i * x->stride[1]);
      }
    }
  }
  return TW_OK;
}
