// Rows of tokens to and from pages, nd or NZ; compiled once per instruction level.
//
// A page of NZ holds, for each head, blocks of 16 tokens by 32 bytes. The last block of a row is filled up
// with zeros.
#pragma once

#include <cstdint>
#include <cstring>

#include "_host/simd/simd.hpp"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kChunk = 32, kBlock = 16 * kChunk;

#if defined(TW_EMULATE) || TW_LEVEL == TW_LEVEL_scalar
#define TW_KV_LEVEL 0
#elif TW_LEVEL >= TW_LEVEL_avx512
#define TW_KV_LEVEL 2
#else
#define TW_KV_LEVEL 1
#endif

[[maybe_unused]] TW_INLINE int64_t blocks_of(int64_t row_bytes) { return (row_bytes + kChunk - 1) / kChunk; }

// One chunk. Stream: past the caches, where the level can.
template <bool Stream>
TW_INLINE void move_chunk(char* to, const char* from) {
#if TW_KV_LEVEL > 0
  const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  if constexpr (Stream) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), value);
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), value);
  }
#else
  __builtin_memcpy(to, from, kChunk);
#endif
}

// Chunks b and b + 1 of one row to its token's place in two blocks.
template <bool Stream>
TW_INLINE void scatter_two(char* to, const char* from) {
  move_chunk<Stream>(to, from);
  move_chunk<Stream>(to + kBlock, from + kChunk);
}

// The same for two rows, the first of an even token: whole cache lines are written.
template <bool Stream>
TW_INLINE void scatter_four(char* to, const char* from, int64_t token_bytes) {
#if TW_KV_LEVEL == 2
  const __m512i even = _mm512_loadu_si512(from), odd = _mm512_loadu_si512(from + token_bytes);
  const __m512i low = _mm512_shuffle_i64x2(even, odd, 0x44), high = _mm512_shuffle_i64x2(even, odd, 0xee);
  if constexpr (Stream) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), low);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + kBlock), high);
  } else {
    _mm512_storeu_si512(to, low);
    _mm512_storeu_si512(to + kBlock, high);
  }
#else
  scatter_two<Stream>(to, from);
  scatter_two<Stream>(to + kChunk, from + token_bytes);
#endif
}

TW_INLINE void gather_four(char* to, int64_t token_bytes, const char* from) {
#if TW_KV_LEVEL == 2
  const __m512i low = _mm512_loadu_si512(from), high = _mm512_loadu_si512(from + kBlock);
  _mm512_storeu_si512(to, _mm512_shuffle_i64x2(low, high, 0x44));
  _mm512_storeu_si512(to + token_bytes, _mm512_shuffle_i64x2(low, high, 0xee));
#else
  for (int t = 0; t < 2; ++t) {
    move_chunk<false>(to + t * token_bytes, from + t * kChunk);
    move_chunk<false>(to + t * token_bytes + kChunk, from + kBlock + t * kChunk);
  }
#endif
}

// `count` rows, `token_bytes` apart, to tokens `first`... of a head of an NZ page.
template <bool Stream>
void rows_to_nz(char* head, int64_t first, int64_t count, const char* from, int64_t token_bytes,
                int64_t row_bytes) {
  const int64_t whole = row_bytes / kChunk, rest = row_bytes % kChunk;
  char* at = head + first * kChunk;
  const int64_t odd = first % 2;
  int64_t b = 0;
  for (; b + 2 <= whole; b += 2) {
    char* to = at + b * kBlock;
    const char* row = from + b * kChunk;
    int64_t t = 0;
    if (odd != 0 && count > 0) {
      scatter_two<Stream>(to, row);
      t = 1;
    }
    for (; t + 2 <= count; t += 2) {
      scatter_four<Stream>(to + t * kChunk, row + t * token_bytes, token_bytes);
    }
    if (t < count) scatter_two<Stream>(to + t * kChunk, row + t * token_bytes);
  }
  if (b < whole) {
    for (int64_t t = 0; t < count; ++t) {
      move_chunk<Stream>(at + b * kBlock + t * kChunk, from + b * kChunk + t * token_bytes);
    }
  }
  if (rest == 0) return;
  for (int64_t t = 0; t < count; ++t) {
    alignas(64) char last[kChunk] = {};
    std::memcpy(last, from + whole * kChunk + t * token_bytes, static_cast<size_t>(rest));
    move_chunk<Stream>(at + whole * kBlock + t * kChunk, last);
  }
}

// The other way: tokens `first`... of a head of an NZ page to rows `token_bytes` apart.
[[maybe_unused]] void nz_to_rows(char* to, int64_t token_bytes, const char* head, int64_t first,
                                 int64_t count, int64_t row_bytes) {
  const int64_t whole = row_bytes / kChunk, rest = row_bytes % kChunk;
  const char* at = head + first * kChunk;
  for (int64_t b = 0; b < whole; b += 2) {
    const bool two = b + 2 <= whole;
    for (int64_t t = 0; t < count; ++t) {
      char* row = to + t * token_bytes + b * kChunk;
      const char* from = at + b * kBlock + t * kChunk;
      if (two && t + 2 <= count) {
        gather_four(row, token_bytes, from);
        ++t;
        continue;
      }
      move_chunk<false>(row, from);
      if (two) move_chunk<false>(row + kChunk, from + kBlock);
    }
  }
  if (rest == 0) return;
  for (int64_t t = 0; t < count; ++t) {
    std::memcpy(to + t * token_bytes + whole * kChunk, at + whole * kBlock + t * kChunk,
                static_cast<size_t>(rest));
  }
}

// Neighbouring bytes; none may have null pointers. Stream: whole cache lines go past the caches.
template <bool Stream>
void copy_bytes(void* dst, const void* src, int64_t bytes) {
  if (bytes == 0) return;
  char* to = static_cast<char*>(dst);
  const char* from = static_cast<const char*>(src);
#if TW_KV_LEVEL > 0
  if constexpr (Stream) {
    const int64_t head = -reinterpret_cast<intptr_t>(to) & 63;
    if (bytes >= head + 64) {
      std::memcpy(to, from, static_cast<size_t>(head));
      for (to += head, from += head, bytes -= head; bytes >= 64; to += 64, from += 64, bytes -= 64) {
        move_chunk<true>(to, from);
        move_chunk<true>(to + kChunk, from + kChunk);
      }
    }
  }
#endif
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

// Orders stores that went past the caches before whatever follows the call.
[[maybe_unused]] TW_INLINE void finish_stream() {
#if TW_KV_LEVEL > 0
  _mm_sfence();
#endif
}

// `count` elements `step` bytes apart, as neighbours.
[[maybe_unused]] void gather_elements(char* to, const char* from, int64_t step, int64_t count, int64_t size) {
  for (int64_t i = 0; i < count; ++i) {
    __builtin_memcpy(to + i * size, from + i * step, static_cast<size_t>(size));
  }
}
[[maybe_unused]] void scatter_elements(char* to, int64_t step, const char* from, int64_t count,
                                       int64_t size) {
  for (int64_t i = 0; i < count; ++i) {
    __builtin_memcpy(to + i * step, from + i * size, static_cast<size_t>(size));
  }
}

}  // namespace
}  // namespace tw::TW_ISA
