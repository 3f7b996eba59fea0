// Atomic operations of transfers to GM (原子操作): what later copies and Fixpipes do with the value there.
#pragma once

#include <type_traits>

#include "api/system.h"
#include "api/tensor.h"

namespace AscendC {

enum class AtomicDtype {
  ATOMIC_NONE = 0,
  ATOMIC_F32,
  ATOMIC_F16,
  ATOMIC_S16,
  ATOMIC_S32,
  ATOMIC_S8,
  ATOMIC_BF16
};
enum class AtomicOp { ATOMIC_SUM = 0 };

namespace detail {

template <typename T>
constexpr bool kAtomicType =
    std::is_same_v<T, int8_t> || std::is_same_v<T, int16_t> || std::is_same_v<T, half> ||
    std::is_same_v<T, bfloat16_t> || std::is_same_v<T, int32_t> || std::is_same_v<T, float>;

template <typename T>
inline void SetAtomic(tilewright::twin::Atomic atomic) {
  static_assert(kAtomicType<T>, "atomics of 2201 take int8_t, int16_t, half, bfloat16_t, int32_t and float");
  twi_state()->atomic = atomic;
  twi_state()->atomic_type = DTypeOf<T>();
}

}  // namespace detail

template <typename T>
inline void SetAtomicAdd() {
  detail::SetAtomic<T>(tilewright::twin::Atomic::Add);
}
template <typename T>
inline void SetAtomicMax() {
  detail::SetAtomic<T>(tilewright::twin::Atomic::Max);
}
template <typename T>
inline void SetAtomicMin() {
  detail::SetAtomic<T>(tilewright::twin::Atomic::Min);
}
template <typename T>
inline void SetAtomicType() {
  detail::SetAtomic<T>(twi_state()->atomic);
}
inline void DisableDmaAtomic() {
  twi_state()->atomic = tilewright::twin::Atomic::None;
  twi_state()->atomic_type = tilewright::twin::DType::None;
}
// The name before CANN 9.
inline void SetAtomicNone() { DisableDmaAtomic(); }

template <AtomicDtype type, AtomicOp op>
inline void SetStoreAtomicConfig() {
  using D = tilewright::twin::DType;
  constexpr D types[] = {D::None, D::F32, D::F16, D::S16, D::S32, D::S8, D::BF16};
  twi_state()->atomic_type = types[static_cast<int>(type)];
  twi_state()->atomic =
      type == AtomicDtype::ATOMIC_NONE ? tilewright::twin::Atomic::None : tilewright::twin::Atomic::Add;
}
inline void GetStoreAtomicConfig(uint16_t& atomicType, uint16_t& atomicOp) {
  using D = tilewright::twin::DType;
  constexpr D types[] = {D::None, D::F32, D::F16, D::S16, D::S32, D::S8, D::BF16};
  atomicType = 0;
  for (uint16_t i = 0; i < 7; ++i)
    if (types[i] == twi_state()->atomic_type) atomicType = i;
  atomicOp = 0;
}

namespace detail {

// How a transfer to `dst` combines with what is there. Another type there than the one set is reported.
inline tilewright::twin::Atomic AtomicTo(const tilewright::twin::Operand& dst, tilewright::twin::Pipe pipe,
                                         tilewright::twin::Place at) {
  using tilewright::twin::Atomic;
  const tilewright::twin::CoreState& state = *twi_state();
  if (dst.mem != tilewright::twin::Mem::GM || state.atomic == Atomic::None) return Atomic::None;
  if (dst.type != state.atomic_type)
    twi_finding(tilewright::twin::FindingKind::IllegalParameter,
                "the transfer is atomic in another type than that of its destination: see SetAtomicAdd and "
                "its like",
                pipe, at);
  return state.atomic;
}

}  // namespace detail

}  // namespace AscendC
