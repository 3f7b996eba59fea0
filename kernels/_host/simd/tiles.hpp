// The tile registers of AMX: eight of 16 rows by 64 bytes, used whole, so that one configuration serves every
// kernel. A product adds A[16, 64 bytes] times B to C[16, 16], where row r of B holds 16 words of KR
// consecutive k each, as a panel of 16 columns does.
//
// Written as instructions and not as the compiler's intrinsics, which take no template parameters. With
// -DTW_EMULATE the same functions run on plain memory.
#pragma once

#include "_host/half.hpp"

namespace tw::TW_ISA {
namespace {

constexpr int kTileRows = 16, kTileBytes = 64, kTileSize = kTileRows * kTileBytes;

#ifndef TW_EMULATE

struct alignas(64) TilePalette {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// A thread configures its tiles before the first use and gives them back after the last one.
[[maybe_unused]] void tiles_begin() {
  const TilePalette palette;
  __asm__ volatile("ldtilecfg %0" : : "m"(palette));
}
[[maybe_unused]] void tiles_end() { __asm__ volatile("tilerelease"); }

template <int T>
TW_INLINE void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
}
template <int T>
TW_INLINE void tile_load(const void* p, int64_t row_bytes) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(row_bytes), "i"(T) : "memory");
}
template <int T>
TW_INLINE void tile_store(void* p, int64_t row_bytes) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(row_bytes), "i"(T) : "memory");
}
template <int C, int A, int B>
TW_INLINE void tile_dot_bf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
// Signed left, unsigned right.
template <int C, int A, int B>
TW_INLINE void tile_dot_int8_uint8() {
  __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B>
TW_INLINE void tile_dot_int8() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

#else

thread_local char tile_memory[8][kTileSize];

[[maybe_unused]] void tiles_begin() { __builtin_memset(tile_memory, 0, sizeof tile_memory); }
[[maybe_unused]] void tiles_end() {}

template <int T>
void tile_zero() {
  __builtin_memset(tile_memory[T], 0, kTileSize);
}
template <int T>
void tile_load(const void* p, int64_t row_bytes) {
  for (int r = 0; r < kTileRows; ++r) {
    __builtin_memcpy(tile_memory[T] + r * kTileBytes, static_cast<const char*>(p) + r * row_bytes,
                     kTileBytes);
  }
}
template <int T>
void tile_store(void* p, int64_t row_bytes) {
  for (int r = 0; r < kTileRows; ++r) {
    __builtin_memcpy(static_cast<char*>(p) + r * row_bytes, tile_memory[T] + r * kTileBytes, kTileBytes);
  }
}

// Subnormals count as zero, before and after.
[[maybe_unused]] float flushed(float x) {
  const uint32_t bits = float_bits(x);
  return (bits & 0x7f800000u) == 0 ? bits_float(bits & 0x80000000u) : x;
}

template <int C, int A, int B>
void tile_dot_bf16() {
  uint16_t a[kTileRows][32], b[kTileRows][32];
  float c[kTileRows][16];
  __builtin_memcpy(a, tile_memory[A], kTileSize);
  __builtin_memcpy(b, tile_memory[B], kTileSize);
  __builtin_memcpy(c, tile_memory[C], kTileSize);
  for (int m = 0; m < kTileRows; ++m) {
    for (int n = 0; n < 16; ++n) {
      // Even and odd k are summed apart from zero, then added, then added to C.
      float part[2] = {};
      for (int k = 0; k < 16; ++k) {
        for (int r = 0; r < 2; ++r) {
          const double x = flushed(bf16_to_float(a[m][2 * k + r])),
                       y = flushed(bf16_to_float(b[k][2 * n + r]));
          part[r] = flushed(static_cast<float>(x * y + part[r]));
        }
      }
      c[m][n] = flushed(flushed(c[m][n]) + flushed(part[0] + part[1]));
    }
  }
  __builtin_memcpy(tile_memory[C], c, kTileSize);
}

template <class Right, int C, int A, int B>
void tile_dot_bytes() {
  int8_t a[kTileRows][64];
  Right b[kTileRows][64];
  uint32_t c[kTileRows][16];
  __builtin_memcpy(a, tile_memory[A], kTileSize);
  __builtin_memcpy(b, tile_memory[B], kTileSize);
  __builtin_memcpy(c, tile_memory[C], kTileSize);
  for (int m = 0; m < kTileRows; ++m) {
    for (int k = 0; k < 64; ++k) {
      for (int n = 0; n < 16; ++n) c[m][n] += static_cast<uint32_t>(a[m][k] * b[k / 4][4 * n + k % 4]);
    }
  }
  __builtin_memcpy(tile_memory[C], c, kTileSize);
}
template <int C, int A, int B>
void tile_dot_int8() {
  tile_dot_bytes<int8_t, C, A, B>();
}
template <int C, int A, int B>
void tile_dot_int8_uint8() {
  tile_dot_bytes<uint8_t, C, A, B>();
}

#endif

}  // namespace
}  // namespace tw::TW_ISA
