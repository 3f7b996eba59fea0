#include "atomic.h"

#include <cstring>
#include <mutex>

#include "api/types.h"
#include "vector/functions.h"

namespace tilewright::twin {

namespace {

template <class T, class F>
void Each(uint8_t* to, const uint8_t* from, size_t bytes, F f) {
  for (size_t b = 0; b + sizeof(T) <= bytes; b += sizeof(T)) {
    T there, here;
    std::memcpy(&there, to + b, sizeof(T));
    std::memcpy(&here, from + b, sizeof(T));
    if constexpr (std::is_same_v<T, half> || std::is_same_v<T, bfloat16_t>)
      there = T(f(static_cast<float>(there), static_cast<float>(here)));
    else
      there = f(there, here);
    std::memcpy(to + b, &there, sizeof(T));
  }
}

template <class F>
void ByType(DType type, uint8_t* to, const uint8_t* from, size_t bytes, F f) {
  switch (type) {
    case DType::F32:
      return Each<float>(to, from, bytes, f);
    case DType::F16:
      return Each<half>(to, from, bytes, f);
    case DType::BF16:
      return Each<bfloat16_t>(to, from, bytes, f);
    case DType::S32:
      return Each<int32_t>(to, from, bytes, f);
    case DType::S16:
      return Each<int16_t>(to, from, bytes, f);
    default:
      return Each<int8_t>(to, from, bytes, f);
  }
}

// One lock for all of GM: cores run on few host threads and hold it for a row at most.
std::mutex& Lock() {
  static std::mutex lock;
  return lock;
}

}  // namespace

void Combine(Atomic atomic, DType type, uint8_t* to, const uint8_t* from, size_t bytes) {
  const std::lock_guard<std::mutex> guard(Lock());
  if (atomic == Atomic::Add)
    ByType(type, to, from, bytes, AddOf<false>{});
  else if (atomic == Atomic::Max)
    ByType(type, to, from, bytes, MaxOf{});
  else
    ByType(type, to, from, bytes, MinOf{});
}

}  // namespace tilewright::twin
