// put_rows on the CPU: plain loops over either layout.
#include <cstdint>

#include "_host/call.hpp"
#include "_host/export.hpp"
#include "_host/half.hpp"

namespace {

float read(const tw_tensor& t, int64_t offset) {
  const char* at = tw::element(t, offset);
  return t.dtype == TW_FP32 ? *reinterpret_cast<const float*>(at)
                            : tw::bf16_to_float(*reinterpret_cast<const uint16_t*>(at));
}

void write(const tw_tensor& t, int64_t offset, float value) {
  char* at = tw::element(t, offset);
  if (t.dtype == TW_FP32) {
    *reinterpret_cast<float*>(at) = value;
  } else {
    *reinterpret_cast<uint16_t*>(at) = tw::float_to_bf16(value);
  }
}

int64_t place(const tw_tensor& cache, bool nz, int64_t slot, int64_t head, int64_t lane) {
  const int64_t* s = cache.stride;
  const int64_t page = slot / 4, token = slot % 4;
  if (!nz) return page * s[0] + token * s[1] + head * s[2] + lane * s[3];
  const int64_t c0 = cache.shape[4];
  return page * s[0] + head * s[1] + lane / c0 * s[2] + token * s[3] + lane % c0 * s[4];
}

}  // namespace

extern "C" int tw_host_put_rows(const tw_call* raw) {
  const tw::Call call(*raw);
  const bool nz = call.attr("kv_layout", 0) == 1;
  const auto factor = static_cast<float>(call.number("factor", 1.0));
  const tw_tensor* x = call.require("x", 3);
  if (x == nullptr) return TW_REFUSED;
  const tw_tensor* slots = call.require("slots", 1);
  if (slots == nullptr) return TW_REFUSED;
  const tw_tensor* cache = call.require("cache", nz ? 5 : 4);
  if (cache == nullptr || !call.check_align(*cache, 64)) return TW_REFUSED;
  const tw_tensor* seen = call.require("seen", 1);
  if (seen == nullptr) return TW_REFUSED;
  const auto slot = [&](int64_t t) {
    return *reinterpret_cast<const int32_t*>(tw::element(*slots, t * slots->stride[0]));
  };
  for (int64_t t = 0; t < x->shape[0]; ++t) {
    if (slot(t) < 0 || slot(t) >= 4 * cache->shape[0]) {
      return call.refuse("slots[%lld] is %d; accepted: 0 to %lld", static_cast<long long>(t), slot(t),
                         static_cast<long long>(4 * cache->shape[0] - 1));
    }
  }
  float total = 0;
  for (int64_t t = 0; t < x->shape[0]; ++t) {
    for (int64_t h = 0; h < x->shape[1]; ++h) {
      for (int64_t l = 0; l < x->shape[2]; ++l) {
        const float value = factor * read(*x, t * x->stride[0] + h * x->stride[1] + l * x->stride[2]);
        write(*cache, place(*cache, nz, slot(t), h, l), value);
        total += value;
      }
    }
    auto* bits = reinterpret_cast<int16_t*>(tw::element(*seen, slot(t) / 4 * seen->stride[0]));
    *bits = static_cast<int16_t>(*bits | 1 << slot(t) % 4);
  }
  if (const tw_tensor* out = call.tensor("total")) *reinterpret_cast<float*>(out->data) = total;
  return TW_OK;
}
