// Tiling data as kernels of operator projects read it: plain structs behind a GM_ADDR.
#pragma once

#include <cstring>

#include "api/types.h"

namespace AscendC::detail {

template <class T>
inline T ReadTiling(const void* from) {
  static_assert(std::is_trivially_copyable_v<T>, "tiling data is a plain struct");
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace AscendC::detail

// The key that the host would have set: -D TILING_KEY_VAR=N.
#ifndef TILING_KEY_VAR
#define TILING_KEY_VAR 0
#endif
#define TILING_KEY_IS(key) ((TILING_KEY_VAR) == (key))
#define TILING_KEY_LIST(key1, key2) (TILING_KEY_IS(key1) || TILING_KEY_IS(key2))

#define REGISTER_TILING_DEFAULT(type) using TwDefaultTiling [[maybe_unused]] = type
#define REGISTER_TILING_FOR_TILINGKEY(expression, type)
#define REGISTER_NONE_TILING
#define GET_TILING_DATA(name, tiling) \
  [[maybe_unused]] TwDefaultTiling name = AscendC::detail::ReadTiling<TwDefaultTiling>(tiling)
#define GET_TILING_DATA_WITH_STRUCT(type, name, tiling) \
  [[maybe_unused]] type name = AscendC::detail::ReadTiling<type>(tiling)
#define GET_TILING_DATA_MEMBER(type, member, name, tiling) \
  [[maybe_unused]] auto name = AscendC::detail::ReadTiling<type>(tiling).member
#define GET_TILING_DATA_PTR_WITH_STRUCT(type, name, tiling)        \
  type name##OfTiling = AscendC::detail::ReadTiling<type>(tiling); \
  [[maybe_unused]] type* name = &name##OfTiling
#define COPY_TILING_WITH_STRUCT(type, from, to)                   \
  type to##OfTiling = AscendC::detail::ReadTiling<type>(&(from)); \
  [[maybe_unused]] type* to = &to##OfTiling
#define COPY_TILING_WITH_ARRAY(type, count, from, to)      \
  type to##OfTiling[count];                                \
  std::memcpy(to##OfTiling, &(from), sizeof to##OfTiling); \
  [[maybe_unused]] type(*to)[count] = &to##OfTiling
