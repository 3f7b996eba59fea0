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
inline void GetArchVersion(uint32_t& coreVersion) { coreVersion = 0x220; }
constexpr int16_t GetDataBlockSizeInBytes() { return 32; }
inline int64_t GetSystemCycle() { return static_cast<int64_t>(twi_system_cycle()); }
// Caches of instructions, which the twin does not have.
inline void ICachePreLoad(const int64_t) {}
inline int64_t GetICachePreloadStatus() { return 0; }
// What follows may start early on hardware; here a kernel starts when the one before has ended.
template <pipe_t AIV_PIPE = PIPE_MTE3, pipe_t AIC_PIPE = PIPE_FIX, bool FORCE = false>
inline void SetNextTaskStart() {}
inline void WaitPreTaskEnd() {}

template <typename A, typename B>
inline A CeilDivision(A a, B b) {
  return b == 0 ? a : static_cast<A>((a + b - 1) / b);
}
template <typename A, typename B>
inline A CeilAlign(A a, B b) {
  return static_cast<A>(CeilDivision(a, b) * b);
}

template <typename A, typename B, std::enable_if_t<std::is_integral_v<A> && std::is_integral_v<B>, int> = 0>
inline A Ceil(A a, B b) {
  return CeilDivision(a, b);
}
template <typename A, typename B>
inline A AlignUp(A a, B b) {
  return CeilAlign(a, b);
}
template <typename A, typename B>
inline A DivCeil(A a, B b) {
  return CeilDivision(a, b);
}

constexpr int32_t ONE_BLK_SIZE = 32;           // bytes of a block
constexpr int32_t ONE_REPEAT_BYTE_SIZE = 256;  // bytes of one repeat
constexpr int32_t DEFAULT_C0_SIZE = 32;        // bytes of a row of a fractal
constexpr int32_t BLOCK_CUBE = 16;             // rows of a fractal
constexpr int32_t TOTAL_VEC_LOCAL_SIZE = 184 * 1024;
constexpr uint8_t K_MAX_DIM = 8;

template <bool condition, typename A, typename B>
struct Conditional {
  using type = std::conditional_t<condition, A, B>;
};
// The parts of the standard library that kernels reach under this name.
namespace Std {
using std::conditional;
using std::conditional_t;
using std::enable_if;
using std::enable_if_t;
using std::false_type;
using std::integral_constant;
using std::is_base_of;
using std::is_convertible;
using std::is_floating_point;
using std::is_integral;
using std::is_same;
using std::is_same_v;
using std::remove_cv_t;
using std::remove_reference_t;
using std::true_type;
}  // namespace Std

template <typename A, typename B>
struct IsSameType {
  static constexpr bool value = std::is_same_v<A, B>;
};

}  // namespace AscendC

inline int64_t get_block_idx() { return AscendC::GetBlockIdx(); }
inline int64_t get_block_num() { return AscendC::GetBlockNum(); }
inline int64_t get_subblockid() { return AscendC::GetSubBlockIdx(); }
inline int64_t get_subblockdim() { return AscendC::GetSubBlockNum(); }

// The compiler's own words for them.
namespace tilewright::twin {
struct BlockIdx {
  operator int64_t() const { return twi_core()->block_idx; }
};
struct BlockNum {
  operator int64_t() const { return twi_core()->block_num; }
};
}  // namespace tilewright::twin
inline constexpr tilewright::twin::BlockIdx block_idx{};
inline constexpr tilewright::twin::BlockNum block_num{};

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
