// Every operation of one level's vector layer behind a C function, for a test that compares the instructions
// of a level with their emulation. Built with -DTW_ISA=<level>, with and without -DTW_EMULATE.
#include "_host/simd/simd.hpp"

using namespace tw::TW_ISA;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int layer_lanes() { return kLanes; }
EXPORT int layer_has_dpbusd() { return kHasDpbusd; }
EXPORT int layer_has_dpbf16() { return kHasDpbf16; }

// Operation `op` on kLanes (or 2 * kLanes bytes) elements at a, b, c; kLanes words (or halves) at out.
EXPORT int layer_apply(const char* op, const void* a, const void* b, const void* c, void* out) {
  const float* fa = static_cast<const float*>(a);
  const float* fb = static_cast<const float*>(b);
  const float* fc = static_cast<const float*>(c);
  float* fo = static_cast<float*>(out);
  int32_t* io = static_cast<int32_t*>(out);
  uint16_t* ho = static_cast<uint16_t*>(out);
  const uint16_t* ha = static_cast<const uint16_t*>(a);
  const auto is = [op](const char* name) { return __builtin_strcmp(op, name) == 0; };
  if (is("fma")) return store(fo, fma(load(fa), load(fb), load(fc))), 0;
  if (is("add_f")) return store(fo, add(load(fa), load(fb))), 0;
  if (is("mul")) return store(fo, mul(load(fa), load(fb))), 0;
  if (is("bcast")) return store(fo, bcast(fa[0])), 0;
  if (is("add_i")) return store(io, add(load_i(a), load_i(b))), 0;
  if (is("to_float")) return store(fo, to_float(load_i(a))), 0;
  if (is("madd16")) return store(io, madd16(load_i(a), load_i(b))), 0;
  if (is("madd16_add")) return store(io, madd16_add(load_i(c), load_i(a), load_i(b))), 0;
  if (is("dot_bytes16")) return store(io, dot_bytes16(load_i(c), load_i(a), load_i(b))), 0;
  if (is("bytes_even")) return store(io, bytes_even(load_i(a))), 0;
  if (is("bytes_odd")) return store(io, bytes_odd(load_i(a))), 0;
  if (is("flip_sign_bits8")) return store(io, flip_sign_bits8(load_i(a))), 0;
  if (is("dpbusd")) return store(io, dpbusd(load_i(c), load_i(a), load_i(b))), 0;
  if (is("dpbf16")) return store(fo, dpbf16(load(fc), load_i(a), load_i(b))), 0;
  if (is("bf16_even")) return store(fo, bf16_even(load_i(a))), 0;
  if (is("bf16_odd")) return store(fo, bf16_odd(load_i(a))), 0;
  if (is("load_bf16")) return store(fo, load_bf16(ha)), 0;
  if (is("load_fp16")) return store(fo, load_fp16(ha)), 0;
  if (is("store_bf16")) return store_bf16(ho, load(fa)), 0;
  if (is("store_fp16")) return store_fp16(ho, load(fa)), 0;
  if (is("load_i8_as_i16")) return store(io, load_i8_as_i16(static_cast<const int8_t*>(a))), 0;
  if (is("sum_f")) return fo[0] = sum(load(fa)), 0;
  if (is("sum_i")) return io[0] = sum(load_i(a)), 0;
  return 1;
}

// 8 rows of 8 words, `row_bytes` apart, to columns of a [8][16] array.
EXPORT void layer_transpose(const void* rows, int64_t row_bytes, uint32_t* out) {
  transpose8x8(static_cast<const char*>(rows), row_bytes, out, 16);
}

#if TW_LEVEL == TW_LEVEL_amx
// c += a b on tile registers; all are 1024 bytes, operand rows `row_bytes` apart.
EXPORT void layer_tile_dot(int bf16, const void* a, const void* b, void* c, int64_t row_bytes) {
  tiles_begin();
  tile_load<0>(c, kTileBytes);
  tile_load<4>(a, row_bytes);
  tile_load<6>(b, row_bytes);
  bf16 ? tile_dot_bf16<0, 4, 6>() : tile_dot_int8<0, 4, 6>();
  tile_store<0>(c, kTileBytes);
  tile_zero<0>();
  tiles_end();
}
#endif

EXPORT uint16_t layer_float_to_bf16(float x) { return tw::float_to_bf16(x); }
EXPORT uint16_t layer_float_to_fp16(float x) { return tw::float_to_fp16(x); }
EXPORT float layer_fp16_to_float(uint16_t x) { return tw::fp16_to_float(x); }
