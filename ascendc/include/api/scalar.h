// The scalar unit's reads and writes of tensors.
#pragma once

#include "api/system.h"
#include "api/tensor.h"

namespace AscendC {

namespace detail {

inline uint64_t EmitScalar(tilewright::twin::Op op, const tilewright::twin::Operand& operand, uint64_t bits,
                           uint8_t size, tilewright::twin::Place at, bool uncached = false) {
  auto r = tilewright::twin::MakeRecord(op, tilewright::twin::Pipe::S, at);
  tilewright::twin::AddOperand(r, operand);
  r.scalar = {bits, size, uncached};
  twi_emit(&r);
  return r.scalar.bits;
}

}  // namespace detail

template <typename T>
T GlobalTensor<T>::GetValue(uint64_t offset, tilewright::twin::Place at) const {
  return FromBits<T>(
      detail::EmitScalar(tilewright::twin::Op::ScalarGet, AsOperand(false, offset), 0, sizeof(T), at));
}
template <typename T>
void GlobalTensor<T>::SetValue(uint64_t offset, T value, tilewright::twin::Place at) {
  detail::EmitScalar(tilewright::twin::Op::ScalarSet, AsOperand(true, offset), BitsOf(value), sizeof(T), at);
}
template <typename T>
T LocalTensor<T>::GetValue(uint32_t offset, tilewright::twin::Place at) const {
  return FromBits<T>(
      detail::EmitScalar(tilewright::twin::Op::ScalarGet, AsOperand(false, offset), 0, sizeof(T), at));
}
template <typename T>
void LocalTensor<T>::SetValue(uint32_t offset, T value, tilewright::twin::Place at) const {
  detail::EmitScalar(tilewright::twin::Op::ScalarSet, AsOperand(true, offset), BitsOf(value), sizeof(T), at);
}

}  // namespace AscendC
