// Rows of stored vectors as fp32, for one ISA level. Include after "_host/simd/simd.hpp"; everything has
// internal linkage. `formats.py` says what codes stand for.
#pragma once

#include "_host/abi.h"
#include "_host/simd/simd.hpp"
#include "_kv/host_lanes.hpp"

namespace tw::kv::TW_ISA {

using namespace tw::TW_ISA;

// out[i] = src[i], widened from fp32, bf16, fp16 or int8.
TW_INLINE void widen(const char* src, int32_t dtype, int64_t n, float* out) {
  int64_t i = 0;
  if (dtype == TW_BF16) {
    const uint16_t* p = reinterpret_cast<const uint16_t*>(src);
    for (; i + kLanes <= n; i += kLanes) store(out + i, load_bf16(p + i));
    for (; i < n; ++i) out[i] = bf16_to_float(p[i]);
  } else if (dtype == TW_FP16) {
    const uint16_t* p = reinterpret_cast<const uint16_t*>(src);
    for (; i + kLanes <= n; i += kLanes) store(out + i, load_fp16(p + i));
    for (; i < n; ++i) out[i] = fp16_to_float(p[i]);
  } else if (dtype == TW_INT8) {
    const int8_t* p = reinterpret_cast<const int8_t*>(src);
    for (; i < n; ++i) out[i] = p[i];
  } else {
    __builtin_memcpy(out, src, static_cast<size_t>(n) * 4);
  }
}

// A vector of `bytes` bytes that lies in chunks of 32 bytes, `chunk_step` apart, in one piece.
TW_INLINE const char* gather(const char* src, int64_t chunk_step, int64_t bytes, char* room) {
  if (chunk_step == 32) return src;
  for (int64_t at = 0; at < bytes; at += 32, src += chunk_step) {
    __builtin_memcpy(room + at, src, static_cast<size_t>(bytes - at < 32 ? bytes - at : 32));
  }
  return room;
}

// The nibbles of `d` channels as floats: 0..15, or -8..7 when kSigned. Nibble j of lane i is channel j * d/4
// + i.
template <bool kSigned>
TW_INLINE void unpack4(const char* src, int64_t d, float* out) {
  const int64_t lanes = d / 4;
  int64_t i = 0;
  for (; i + kLanes <= lanes; i += kLanes) {
    const VI words = load_words(reinterpret_cast<const int16_t*>(src) + i);
    for (int j = 0; j < 4; ++j) store(out + j * lanes + i, nibble_values<kSigned>(words, j));
  }
  for (; i < lanes; ++i) {
    uint16_t lane;
    __builtin_memcpy(&lane, src + 2 * i, 2);
    for (int j = 0; j < 4; ++j) {
      const int nibble = (lane >> (4 * j)) & 15;
      out[j * lanes + i] = static_cast<float>(kSigned ? (nibble ^ 8) - 8 : nibble);
    }
  }
}

// E3M0 nibbles as floats: the sign, and 2 to the power of exponent - 7, times `scale`.
TW_INLINE void unpack_e3m0(const char* src, int64_t d, float scale, float* out) {
  const int64_t lanes = d / 4;
  int64_t i = 0;
  for (; i + kLanes <= lanes; i += kLanes) {
    const VI words = load_words(reinterpret_cast<const int16_t*>(src) + i);
    for (int j = 0; j < 4; ++j) store(out + j * lanes + i, mul(e3m0_values(words, j), bcast(scale)));
  }
  for (; i < lanes; ++i) {
    uint16_t lane;
    __builtin_memcpy(&lane, src + 2 * i, 2);
    for (int j = 0; j < 4; ++j) {
      const uint32_t nibble = (lane >> (4 * j)) & 15u;
      out[j * lanes + i] = bits_float((nibble >> 3) << 31 | ((nibble & 7u) + 120u) << 23) * scale;
    }
  }
}

// The pool row of token `t`, given its page's mask and rank.
TW_INLINE int64_t pool_row(uint32_t mask, int64_t rank, int t) {
  return rank + __builtin_popcount(mask & ((1u << t) - 1u));
}

}  // namespace tw::kv::TW_ISA
