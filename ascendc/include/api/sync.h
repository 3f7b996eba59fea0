// Synchronisation within a core.
#pragma once

#include "api/system.h"

namespace AscendC {

namespace detail {

inline void EmitFlag(tilewright::twin::Op op, HardEvent event, int32_t id, bool internal,
                     tilewright::twin::Place at) {
  const EventPipes pipes = PipesOf(event);
  const bool set = op == tilewright::twin::Op::SetFlag;
  auto r = tilewright::twin::MakeRecord(op, set ? pipes.from : pipes.to, at);
  r.flag = {id, static_cast<uint8_t>(event), pipes.from, pipes.to, internal};
  twi_emit(&r);
}

}  // namespace detail

template <HardEvent event>
inline void SetFlag(int32_t eventID, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitFlag(tilewright::twin::Op::SetFlag, event, eventID, false, at);
}

template <HardEvent event>
inline void WaitFlag(int32_t eventID, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitFlag(tilewright::twin::Op::WaitFlag, event, eventID, false, at);
}

template <pipe_t pipe>
inline void PipeBarrier(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Barrier, PipeOf(pipe), at);
  r.barrier.pipe = PipeOf(pipe);
  twi_emit(&r);
}

}  // namespace AscendC
