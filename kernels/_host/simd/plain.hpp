// The vector layer on plain lanes (GCC vector extensions, any width): the scalar level, and the emulation of
// the others. Semantics are those of the instructions each wrapper stands for, lane by lane.
#pragma once

#pragma GCC diagnostic ignored "-Wpsabi"

namespace tw::TW_ISA {

#if TW_LEVEL >= TW_LEVEL_avx512
constexpr int kLanes = 16;
#elif TW_LEVEL == TW_LEVEL_scalar
constexpr int kLanes = 4;
#else
constexpr int kLanes = 8;
#endif
constexpr bool kHasDpbusd = TW_LEVEL >= TW_LEVEL_avx2vnni;
constexpr bool kHasDpbf16 = TW_LEVEL >= TW_LEVEL_avx512;

typedef float VF __attribute__((vector_size(4 * kLanes)));
typedef uint32_t VI __attribute__((vector_size(4 * kLanes)));
typedef int32_t VS __attribute__((vector_size(4 * kLanes)));
typedef int16_t VH __attribute__((vector_size(4 * kLanes)));

// Keeps a value from being reasoned about.
#if TW_LEVEL == TW_LEVEL_scalar
TW_INLINE void pin(VF& v) { __asm__ volatile("" : "+x"(v)); }
TW_INLINE void pin(VI& v) { __asm__ volatile("" : "+x"(v)); }
#else
TW_INLINE void pin(VF& v) { __asm__ volatile("" : "+m"(v)); }
TW_INLINE void pin(VI& v) { __asm__ volatile("" : "+m"(v)); }
#endif

TW_INLINE VF zero_f() { return VF{}; }
TW_INLINE VI zero_i() { return VI{}; }
TW_INLINE VF load(const float* p) {
  VF v{};
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
TW_INLINE VI load_i(const void* p) {
  VI v{};
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
TW_INLINE void store(float* p, VF v) { __builtin_memcpy(p, &v, sizeof v); }
TW_INLINE void store(int32_t* p, VI v) { __builtin_memcpy(p, &v, sizeof v); }
TW_INLINE VF bcast(float x) { return x - VF{}; }
TW_INLINE VI bcast_i(uint32_t x) { return VI{} + x; }

#if TW_LEVEL == TW_LEVEL_scalar
TW_INLINE VF fma(VF a, VF b, VF c) { return a * b + c; }
#else
TW_INLINE VF fma(VF a, VF b, VF c) {
  // Exact product and one more rounding in fp64: differs from a fused one only in double-rounding ties.
  VF r{};
  for (int i = 0; i < kLanes; ++i) r[i] = static_cast<float>(static_cast<double>(a[i]) * b[i] + c[i]);
  return r;
}
#endif
TW_INLINE VF add(VF a, VF b) { return a + b; }
TW_INLINE VI add(VI a, VI b) { return a + b; }
TW_INLINE VF mul(VF a, VF b) { return a * b; }
TW_INLINE VF to_float(VI a) { return __builtin_convertvector((VS)a, VF); }

// Sum of the two products of signed 16-bit halves.
TW_INLINE VI madd16(VI a, VI b) {
  const VS al = (VS)(a << 16) >> 16, ah = (VS)a >> 16;
  const VS bl = (VS)(b << 16) >> 16, bh = (VS)b >> 16;
  return (VI)al * (VI)bl + (VI)ah * (VI)bh;
}
TW_INLINE VI madd16_add(VI acc, VI a, VI b) { return add(acc, madd16(a, b)); }
// Each 16-bit half of acc plus two products of unsigned bytes of u and signed bytes of s, which must fit.
TW_INLINE VI dot_bytes16(VI acc, VI u, VI s) {
  const VH even = (VH)(u & 0x00ff00ffu) * ((VH)(s << 8) >> 8),
           odd = (VH)(u >> 8 & 0x00ff00ffu) * ((VH)s >> 8);
  return (VI)((VH)acc + even + odd);
}
// Signed bytes 0 and 2 (even) or 1 and 3 (odd) of each lane, as two 16-bit halves.
TW_INLINE VI bytes_even(VI v) {
  const VS low = (VS)(v << 24) >> 24, high = (VS)(v << 8) >> 24;
  return ((VI)low & 0xffffu) | ((VI)high << 16);
}
TW_INLINE VI bytes_odd(VI v) {
  const VS low = (VS)(v << 16) >> 24, high = (VS)v >> 24;
  return ((VI)low & 0xffffu) | ((VI)high << 16);
}
TW_INLINE VI flip_sign_bits8(VI v) { return v ^ 0x80808080u; }

TW_INLINE VI dpbusd(VI acc, VI u, VI s) {
  for (int i = 0; i < 4; ++i) {
    const VI ub = (u >> (8 * i)) & 0xffu;
    const VS sb = (VS)(s << (24 - 8 * i)) >> 24;
    acc += ub * (VI)sb;
  }
  return acc;
}

TW_INLINE VF bf16_even(VI v) { return (VF)(v << 16); }
TW_INLINE VF bf16_odd(VI v) { return (VF)(v & 0xffff0000u); }
TW_INLINE VF flush_subnormals(VF v) {
  const VI bits = (VI)v;
  const VI subnormal = (VI)((bits & 0x7f800000u) == 0u);
  return (VF)(bits & ~(subnormal & 0x7fffffffu));
}
TW_INLINE VF dpbf16(VF acc, VI a, VI b) {
  acc = flush_subnormals(acc);
  acc = flush_subnormals(fma(flush_subnormals(bf16_odd(a)), flush_subnormals(bf16_odd(b)), acc));
  return flush_subnormals(fma(flush_subnormals(bf16_even(a)), flush_subnormals(bf16_even(b)), acc));
}

TW_INLINE VF load_bf16(const uint16_t* p) {
  VF v{};
  for (int i = 0; i < kLanes; ++i) v[i] = bf16_to_float(p[i]);
  return v;
}
TW_INLINE VF load_fp16(const uint16_t* p) {
  VF v{};
  for (int i = 0; i < kLanes; ++i) v[i] = fp16_to_float(p[i]);
  return v;
}
TW_INLINE void store_bf16(uint16_t* p, VF v) {
  for (int i = 0; i < kLanes; ++i) p[i] = float_to_bf16(v[i]);
}
TW_INLINE void store_fp16(uint16_t* p, VF v) {
  for (int i = 0; i < kLanes; ++i) p[i] = float_to_fp16(v[i]);
}
// 2 * kLanes signed bytes, widened to 16 bits.
TW_INLINE VI load_i8_as_i16(const int8_t* p) {
  VI v{};
  for (int i = 0; i < kLanes; ++i) {
    v[i] = static_cast<uint16_t>(p[2 * i]) | static_cast<uint32_t>(static_cast<uint16_t>(p[2 * i + 1])) << 16;
  }
  return v;
}

TW_INLINE float sum(VF v) {
  float part[kLanes];
  __builtin_memcpy(part, &v, sizeof v);
  for (int n = kLanes / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) part[i] += part[i + n];
  }
  return part[0];
}
TW_INLINE int32_t sum(VI v) {
  uint32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return static_cast<int32_t>(total);
}

// dst[j * dst_step + i] = word j of row i, for 8 rows of 8 words `row_bytes` apart.
TW_INLINE void transpose8x8(const char* src, int64_t row_bytes, uint32_t* dst, int64_t dst_step) {
  for (int i = 0; i < 8; ++i) {
    uint32_t row[8];
    __builtin_memcpy(row, src + i * row_bytes, sizeof row);
    for (int j = 0; j < 8; ++j) dst[j * dst_step + i] = row[j];
  }
}

}  // namespace tw::TW_ISA
