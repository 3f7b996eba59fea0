// The vector layer of one ISA level. A translation unit compiled with -DTW_ISA=<level> includes this file
// inside no namespace; everything here has internal linkage, so levels never share inline code.
//
//   VF          kLanes fp32 lanes
//   VI          kLanes 32-bit lanes, read as int32, as 2 x int16, as 4 x int8 or as 2 x bf16
//   kLanes      lanes; a 16-column panel is kPanelVecs vectors
//   kHasDpbusd  dpbusd(acc, u, s): acc += sum of 4 products of unsigned bytes of u and signed bytes of s
//   kHasDpbf16  dpbf16(acc, a, b): acc += sum of 2 products of bf16 pairs
//   kHasTiles   the level also has the tile registers of tiles.hpp
//
// With -DTW_EMULATE the same names and widths are built from plain.hpp, so that the algorithms of a level run
// on a machine that lacks it.
#pragma once

#include <stdint.h>

#include "_host/half.hpp"

#define TW_LEVEL_scalar 0
#define TW_LEVEL_avx2 1
#define TW_LEVEL_avx2vnni 2
#define TW_LEVEL_avx512 3
#define TW_LEVEL_amx 4
#define TW_JOIN_(a, b) a##b
#define TW_JOIN(a, b) TW_JOIN_(a, b)
#define TW_LEVEL TW_JOIN(TW_LEVEL_, TW_ISA)

#define TW_INLINE static inline __attribute__((always_inline))

#if defined(TW_EMULATE) || TW_LEVEL == TW_LEVEL_scalar
#include "_host/simd/plain.hpp"
#elif TW_LEVEL >= TW_LEVEL_avx512
#include "_host/simd/avx512.hpp"
#else
#include "_host/simd/avx2.hpp"
#endif
#if TW_LEVEL == TW_LEVEL_amx
#include "_host/simd/tiles.hpp"
#endif

namespace tw::TW_ISA {

constexpr int kPanel = 16;
constexpr int kPanelVecs = kPanel / kLanes;
constexpr bool kHasTiles = TW_LEVEL == TW_LEVEL_amx;

TW_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
[[maybe_unused]] TW_INLINE void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }

// body(0), body(1), ..., body(N - 1), unrolled before the compiler decides which arrays live in registers.
#define TW_BODY __attribute__((always_inline))
template <int N, class Body>
TW_INLINE void unrolled(const Body& body) {
#ifdef TW_EMULATE
  for (int i = 0; i < N; ++i) body(i);
#else
  if constexpr (N > 0) {
    unrolled<N - 1>(body);
    body(N - 1);
  }
#endif
}

}  // namespace tw::TW_ISA
