// Enumerations, in the documented order.
#pragma once

#include <cstdint>

#include "twin/record.h"

enum pipe_t {
  PIPE_S = 0,
  PIPE_V,
  PIPE_M,
  PIPE_MTE1,
  PIPE_MTE2,
  PIPE_MTE3,
  PIPE_ALL,
  PIPE_MTE4 = 7,
  PIPE_MTE5 = 8,
  PIPE_V2 = 9,
  PIPE_FIX = 10,
};

enum event_t { EVENT_ID0 = 0, EVENT_ID1, EVENT_ID2, EVENT_ID3, EVENT_ID4, EVENT_ID5, EVENT_ID6, EVENT_ID7 };

enum QuantMode_t { NoQuant, F322F16, F322BF16, DEQF16, VDEQF16, QF322B8_PRE, VQF322B8_PRE, REQ8, VREQ8 };

namespace AscendC {

using TEventID = int8_t;

enum class TPosition : uint8_t {
  GM,
  A1,
  A2,
  B1,
  B2,
  C1,
  C2,
  CO1,
  CO2,
  VECIN,
  VECOUT,
  VECCALC,
  LCM = VECCALC,
  SPM,
  SHM = SPM,
  TSCM,
  C2PIPE2GM,
  C2PIPE2LOCAL,
  MAX,
};
using QuePosition = TPosition;

enum class HardEvent : uint8_t {
  MTE2_MTE1,
  MTE1_MTE2,
  MTE1_M,
  M_MTE1,
  MTE2_V,
  V_MTE2,
  MTE3_V,
  V_MTE3,
  M_V,
  V_M,
  V_V,
  MTE3_MTE1,
  MTE1_MTE3,
  MTE1_V,
  MTE2_M,
  M_MTE2,
  V_MTE1,
  M_FIX,
  FIX_M,
  MTE3_MTE2,
  MTE2_MTE3,
  S_V,
  V_S,
  S_MTE2,
  MTE2_S,
  S_MTE3,
  MTE3_S,
  MTE2_FIX,
  FIX_MTE2,
  FIX_S,
  M_S,
  FIX_MTE3,
  MTE1_FIX,
  FIX_MTE1,
  FIX_FIX,
  MAX,
};

enum class CO2Layout : uint8_t { NZ = 0, ROW_MAJOR, COLUMN_MAJOR };
enum class CacheMode : uint8_t { CACHE_MODE_DISABLE = 0, CACHE_MODE_NORMAL = 1 };
enum class RoundMode : uint8_t {
  CAST_NONE = 0,
  CAST_RINT,
  CAST_FLOOR,
  CAST_CEIL,
  CAST_ROUND,
  CAST_TRUNC,
  CAST_ODD
};

struct EventPipes {
  tilewright::twin::Pipe from, to;
};

constexpr EventPipes PipesOf(HardEvent event) {
  using P = tilewright::twin::Pipe;
  constexpr EventPipes table[] = {
      {P::MTE2, P::MTE1}, {P::MTE1, P::MTE2}, {P::MTE1, P::M},    {P::M, P::MTE1},   {P::MTE2, P::V},
      {P::V, P::MTE2},    {P::MTE3, P::V},    {P::V, P::MTE3},    {P::M, P::V},      {P::V, P::M},
      {P::V, P::V},       {P::MTE3, P::MTE1}, {P::MTE1, P::MTE3}, {P::MTE1, P::V},   {P::MTE2, P::M},
      {P::M, P::MTE2},    {P::V, P::MTE1},    {P::M, P::FIX},     {P::FIX, P::M},    {P::MTE3, P::MTE2},
      {P::MTE2, P::MTE3}, {P::S, P::V},       {P::V, P::S},       {P::S, P::MTE2},   {P::MTE2, P::S},
      {P::S, P::MTE3},    {P::MTE3, P::S},    {P::MTE2, P::FIX},  {P::FIX, P::MTE2}, {P::FIX, P::S},
      {P::M, P::S},       {P::FIX, P::MTE3},  {P::MTE1, P::FIX},  {P::FIX, P::MTE1}, {P::FIX, P::FIX},
  };
  static_assert(sizeof(table) / sizeof(table[0]) == static_cast<int>(HardEvent::MAX));
  return table[static_cast<int>(event)];
}

constexpr tilewright::twin::Pipe PipeOf(pipe_t pipe) {
  using P = tilewright::twin::Pipe;
  switch (pipe) {
    case PIPE_S:
      return P::S;
    case PIPE_V:
      return P::V;
    case PIPE_M:
      return P::M;
    case PIPE_MTE1:
      return P::MTE1;
    case PIPE_MTE2:
      return P::MTE2;
    case PIPE_MTE3:
      return P::MTE3;
    case PIPE_FIX:
      return P::FIX;
    default:
      return P::ALL;
  }
}

// Logical position -> physical memory on 2201.
constexpr tilewright::twin::Mem MemOf(TPosition position) {
  using M = tilewright::twin::Mem;
  switch (position) {
    case TPosition::A1:
    case TPosition::B1:
    case TPosition::C1:
    case TPosition::TSCM:
    case TPosition::SPM:
      return M::L1;
    case TPosition::A2:
      return M::L0A;
    case TPosition::B2:
      return M::L0B;
    case TPosition::C2:
      return M::BT;
    case TPosition::CO1:
      return M::L0C;
    case TPosition::C2PIPE2GM:
    case TPosition::C2PIPE2LOCAL:
      return M::FB;
    case TPosition::GM:
    case TPosition::CO2:
      return M::GM;
    default:
      return M::UB;
  }
}

}  // namespace AscendC
