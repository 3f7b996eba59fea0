// From sums to outputs: scales, bias, one rounding, any output strides.
#pragma once

#include "gemm/host_micro.hpp"

namespace tw::gemm::TW_ISA {
namespace {

TW_INLINE VF load_bias(const float* p) { return load(p); }
TW_INLINE VI load_bias(const int32_t* p) { return load_i(p); }

// Up to kPanel results of one row from column `col`, in their output type, at `to`. The sums, the bias and
// the column scales are readable up to the next multiple of kPanel.
template <bool Integer, Out O>
TW_INLINE void finish(const Epilogue& e, int64_t row, int64_t col, char* to) {
  for (int v = 0; v < kPanelVecs; ++v) {
    const int64_t at = col + v * kLanes;
    if constexpr (O == kOutI32) {
      VI value = load_i(static_cast<const int32_t*>(e.acc) + row * e.acc_stride + at);
      if (e.bias) value = add(value, load_bias(static_cast<const int32_t*>(e.bias) + at));
      store(reinterpret_cast<int32_t*>(to) + v * kLanes, value);
    } else {
      VF value;
      if constexpr (Integer) {
        value = to_float(load_i(static_cast<const int32_t*>(e.acc) + row * e.acc_stride + at));
        if (e.row_scale) value = mul(value, bcast(e.row_scale[row]));
        if (e.col_scale) value = mul(value, load(e.col_scale + at));
      } else {
        value = load(static_cast<const float*>(e.acc) + row * e.acc_stride + at);
      }
      if (e.bias) value = add(value, load_bias(static_cast<const float*>(e.bias) + at));
      if constexpr (O == kOutF32) store(reinterpret_cast<float*>(to) + v * kLanes, value);
      if constexpr (O == kOutBF16) store_bf16(reinterpret_cast<uint16_t*>(to) + v * kLanes, value);
      if constexpr (O == kOutF16) store_fp16(reinterpret_cast<uint16_t*>(to) + v * kLanes, value);
    }
  }
}

template <int Bytes>
TW_INLINE void scatter(const char* from, char* to, int64_t n, int64_t stride_bytes) {
  for (int64_t j = 0; j < n; ++j) __builtin_memcpy(to + j * stride_bytes, from + j * Bytes, Bytes);
}

// By value: outputs are written through types that may alias anything, and a copy nobody else sees stays in
// registers.
template <bool Integer, Out O>
void epilogue_as(const Epilogue e) {
  constexpr int kBytes = kOutBytes[O];
  for (int64_t row = 0; row < e.rows; ++row) {
    char* out = e.c + row * e.c_row_stride * kBytes;
    for (int64_t col = 0; col < e.cols; col += kPanel) {
      const int64_t n = e.cols - col < kPanel ? e.cols - col : kPanel;
      char* to = out + col * e.c_col_stride * kBytes;
      if (n == kPanel && e.c_col_stride == 1) {
        finish<Integer, O>(e, row, col, to);
      } else {
        char buffer[kPanel * kBytes];
        finish<Integer, O>(e, row, col, buffer);
        scatter<kBytes>(buffer, to, n, e.c_col_stride * kBytes);
      }
    }
  }
}

void epilogue(const Epilogue& e) {
  switch (e.out) {
    case kOutI32:
      return epilogue_as<true, kOutI32>(e);
    case kOutF32:
      return e.integer ? epilogue_as<true, kOutF32>(e) : epilogue_as<false, kOutF32>(e);
    case kOutBF16:
      return e.integer ? epilogue_as<true, kOutBF16>(e) : epilogue_as<false, kOutBF16>(e);
    case kOutF16:
      return e.integer ? epilogue_as<true, kOutF16>(e) : epilogue_as<false, kOutF16>(e);
  }
}

}  // namespace
}  // namespace tw::gemm::TW_ISA
