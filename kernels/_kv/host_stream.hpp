// When stores go past the caches, and how many threads a call that moves bytes is worth.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "_host/call.hpp"
#include "_host/thread_pool.hpp"

namespace tw::kv {

// Bytes moved for which waking another thread pays.
constexpr int64_t kBytesPerThread = 64 << 10;

inline int threads_for(const Call& call, int64_t bytes, int64_t parts) {
  const int64_t worth = std::min(parts, 1 + bytes / kBytesPerThread);
  return static_cast<int>(std::clamp<int64_t>(worth, 1, resolve_threads(call.threads())));
}

enum Stream : int64_t { kNever = 0, kAlways = 1, kAuto = 2 };

// Reads the config field `stream`; refuses other values. `bytes` are those that the call writes.
inline bool read_stream(const Call& call, int64_t bytes, bool* stream) {
  const int64_t value = call.attr("stream", kAuto);
  if (value < kNever || value > kAuto) {
    call.refuse(
        "stream is %lld; accepted: 0 (never), 1 (always) or 2 (when the batch exceeds the second cache)",
        static_cast<long long>(value));
    return false;
  }
  static const int64_t cache = std::max<int64_t>(1 << 20, sysconf(_SC_LEVEL2_CACHE_SIZE));
  *stream = value == kAlways || (value == kAuto && bytes > 4 * cache);
  return true;
}

}  // namespace tw::kv
