// Which core this is, and the rounding utilities kernels use.
#pragma once

#include <type_traits>

#include "api/enums.h"
#include "twin/bridge.h"

namespace AscendC {

inline int64_t GetBlockIdx() { return twi_core()->block_idx; }
inline int64_t GetBlockNum() { return twi_core()->block_num; }
inline int64_t GetSubBlockIdx() { return twi_core()->sub_block_idx; }
inline int64_t GetSubBlockNum() { return twi_core()->sub_block_num; }
inline int64_t GetTaskRatio() { return twi_core()->sub_block_num; }
inline void InitSocState() {}

template <typename A, typename B>
inline A CeilDivision(A a, B b) {
  return b == 0 ? a : static_cast<A>((a + b - 1) / b);
}
template <typename A, typename B>
inline A CeilAlign(A a, B b) {
  return static_cast<A>(CeilDivision(a, b) * b);
}

template <typename A, typename B>
struct IsSameType {
  static constexpr bool value = std::is_same_v<A, B>;
};

}  // namespace AscendC

inline int64_t get_block_idx() { return AscendC::GetBlockIdx(); }
inline int64_t get_block_num() { return AscendC::GetBlockNum(); }

// Everything below the kernel goes through here: fill in the place, hand over.
namespace tilewright::twin {

inline Record MakeRecord(Op op, Pipe pipe, Place at) {
  Record r{};
  r.op = op;
  r.pipe = pipe;
  r.at = at;
  return r;
}

inline void AddOperand(Record& r, const Operand& operand) { r.operand[r.operands++] = operand; }

}  // namespace tilewright::twin
