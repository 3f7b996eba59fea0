// Which memories, pipes and flags a cube core and a vector core of architecture 2201 have.
#include "api/enums.h"
#include "machine.h"

namespace tilewright::twin {

namespace {

using E = AscendC::HardEvent;

// asc-devkit docs/zh/api, overview of synchronisation within a core: table 2 (AIC). The last line are pairs
// that the hardware has and the table calls without a use so far; per-column scales of Fixpipe are one.
constexpr E kCubeEvents[] = {
    E::M_MTE1,   E::M_MTE2,   E::M_FIX,     E::MTE1_M,    E::MTE1_MTE2, E::MTE1_MTE3,
    E::MTE1_FIX, E::MTE2_M,   E::MTE2_MTE1, E::MTE2_MTE3, E::MTE3_MTE1, E::MTE3_MTE2,
    E::FIX_M,    E::FIX_MTE1, E::MTE2_FIX,  E::FIX_MTE2,  E::FIX_MTE3,
};
// The same page, table 3 (AIV).
constexpr E kVectorEvents[] = {
    E::S_V,    E::S_MTE2, E::S_MTE3, E::V_S,       E::V_MTE2, E::V_MTE3,
    E::MTE2_S, E::MTE2_V, E::MTE3_S, E::MTE2_MTE3, E::MTE3_V, E::MTE3_MTE2,
};

template <size_t n>
constexpr uint64_t MaskOf(const E (&events)[n]) {
  static_assert(static_cast<int>(E::MAX) <= 64);
  uint64_t mask = 0;
  for (const E event : events) mask |= uint64_t{1} << static_cast<int>(event);
  return mask;
}

}  // namespace

const char* Name(CoreKind kind) {
  return kind == CoreKind::Cube ? "cube" : kind == CoreKind::Vector ? "vector" : "undecided";
}

Need NeedOf(Pipe pipe) {
  switch (pipe) {
    case Pipe::M:
    case Pipe::MTE1:
    case Pipe::FIX:
      return {CoreKind::Cube, Name(pipe)};
    case Pipe::V:
      return {CoreKind::Vector, Name(pipe)};
    default:
      return {CoreKind::Unknown, ""};
  }
}

Need NeedOf(Mem mem) {
  switch (mem) {
    case Mem::GM:
      return {CoreKind::Unknown, ""};
    case Mem::UB:
      return {CoreKind::Vector, Name(mem)};
    default:
      return {CoreKind::Cube, Name(mem)};
  }
}

bool HasEvent(CoreKind kind, uint8_t event) {
  constexpr uint64_t cube = MaskOf(kCubeEvents), vector = MaskOf(kVectorEvents);
  const uint64_t mask = kind == CoreKind::Cube ? cube : kind == CoreKind::Vector ? vector : 0;
  return (mask >> event & 1) != 0;
}

}  // namespace tilewright::twin
