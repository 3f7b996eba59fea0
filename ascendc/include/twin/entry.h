// Calling kernels and host functions whose C++ signature only the compiler knows: thunks over an array of
// argument addresses, and kernel<<<...>>>(...) as a call. The runner of kernel files includes this first and
// writes the calls.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "api/types.h"
#include "twin/bridge.h"

extern "C" {
// Host code launches `blocks` blocks, each of which calls call(context).
void twi_launch(const char* kernel, uint64_t blocks, void (*call)(void*), void* context);
}

namespace tilewright::twin {

enum class ArgKind : uint32_t { Pointer, Signed, Unsigned, Float, Half, BFloat16, Bool, Bytes };
struct ArgInfo {
  uint32_t bytes;
  ArgKind kind;
};

template <class T>
constexpr ArgInfo InfoOf() {
  ArgKind kind = ArgKind::Bytes;
  if constexpr (std::is_pointer_v<T> || std::is_null_pointer_v<T>) {
    kind = ArgKind::Pointer;
  } else if constexpr (std::is_same_v<T, bool>) {
    kind = ArgKind::Bool;
  } else if constexpr (std::is_same_v<T, half>) {
    kind = ArgKind::Half;
  } else if constexpr (std::is_same_v<T, bfloat16_t>) {
    kind = ArgKind::BFloat16;
  } else if constexpr (std::is_floating_point_v<T>) {
    kind = ArgKind::Float;
  } else if constexpr (std::is_integral_v<T>) {
    kind = std::is_signed_v<T> ? ArgKind::Signed : ArgKind::Unsigned;
  } else if constexpr (std::is_enum_v<T>) {
    return InfoOf<std::underlying_type_t<T>>();
  }
  return {sizeof(T), kind};
}

template <class T>
using Value = std::remove_cv_t<std::remove_reference_t<T>>;

// `args` are the addresses of the arguments; `result`, where not null, takes an integer.
template <class R, class... A, size_t... I>
inline void CallWith(R (*function)(A...), void* const* args, long* result, std::index_sequence<I...>) {
  (void)args;
  (void)result;
  if constexpr (std::is_integral_v<R>) {
    const R given = function(*static_cast<Value<A>*>(args[I])...);
    if (result != nullptr) *result = static_cast<long>(given);
  } else {
    function(*static_cast<Value<A>*>(args[I])...);
  }
}
template <class R, class... A>
inline void CallWith(R (*function)(A...), void* const* args, long* result) {
  CallWith(function, args, result, std::index_sequence_for<A...>{});
}
template <class R, class... A>
inline int Describe(R (*)(A...), ArgInfo* into) {
  const ArgInfo info[] = {InfoOf<Value<A>>()..., ArgInfo{}};
  for (size_t i = 0; i < sizeof...(A); ++i) into[i] = info[i];
  return sizeof...(A);
}

// One call of a thunk.
struct Thunk {
  void* const* args;
  long result;
};

// kernel<<<blocks, l2ctrl, stream>>>(args...) in two steps. `function` calls the kernel.
template <class Function>
class OnGrid {
 public:
  OnGrid(const char* name, TaskType type, Place at, Function function)
      : name_(name), type_(type), at_(at), function_(function) {}

  template <class Blocks, class L2 = std::nullptr_t, class Stream = void*>
  OnGrid& Grid(Blocks blocks, L2 = {}, Stream = {}) {
    blocks_ = static_cast<uint64_t>(blocks);
    return *this;
  }
  template <class... A>
  void operator()(A&&... args) {
    struct Launch {
      OnGrid* grid;
      std::tuple<std::decay_t<A>...> args;
    } launch{this, {std::forward<A>(args)...}};
    twi_launch(
        name_, blocks_,
        [](void* context) {
          auto& l = *static_cast<Launch*>(context);
          if (l.grid->type_ != TaskType::Unknown) twi_task_type(l.grid->type_, l.grid->at_);
          std::apply(l.grid->function_, l.args);
        },
        &launch);
  }

 private:
  const char* name_;
  TaskType type_;
  Place at_;
  Function function_;
  uint64_t blocks_ = 0;
};

// What __vector__, __cube__ and __mix__(cube, vector) before a kernel say.
constexpr TaskType MixOf(int cubes, int vectors) {
  if (cubes == 0) return vectors == 0 ? TaskType::Unknown : TaskType::AivOnly;
  if (vectors == 0) return TaskType::AicOnly;
  return vectors == 1 ? TaskType::Mix11 : TaskType::Mix12;
}

}  // namespace tilewright::twin
