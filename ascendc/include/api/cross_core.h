// Synchronisation between cores, and which of a mixed kernel's cores this is.
#pragma once

#include "api/sync.h"
#include "api/tensor.h"

enum KernelMetaType {
  KERNEL_TYPE_AIV_ONLY,
  KERNEL_TYPE_AIC_ONLY,
  KERNEL_TYPE_MIX_AIV_1_0,
  KERNEL_TYPE_MIX_AIC_1_0,
  KERNEL_TYPE_MIX_AIC_1_1,
  KERNEL_TYPE_MIX_AIC_1_2,
  KERNEL_TYPE_AICORE,
  KERNEL_TYPE_VECTORCORE,
  KERNEL_TYPE_MIX_AICORE,
  KERNEL_TYPE_MIX_VECTOR_CORE,
  KERNEL_TYPE_MAX,
};

#define KERNEL_TASK_TYPE_DEFAULT(type) \
  twi_task_type(AscendC::detail::TaskTypeOf(type), tilewright::twin::Place::Here())
#define KERNEL_TASK_TYPE(key, type) KERNEL_TASK_TYPE_DEFAULT(type)
#define ASCEND_IS_AIC (twi_is(1, tilewright::twin::Place::Here()))
#define ASCEND_IS_AIV (twi_is(2, tilewright::twin::Place::Here()))
#define ASCEND_IS_NOT_AIC (!ASCEND_IS_AIC)
#define ASCEND_IS_NOT_AIV (!ASCEND_IS_AIV)

namespace AscendC {

namespace detail {

constexpr tilewright::twin::TaskType TaskTypeOf(KernelMetaType type) {
  using T = tilewright::twin::TaskType;
  switch (type) {
    case KERNEL_TYPE_AIV_ONLY:
      return T::AivOnly;
    case KERNEL_TYPE_AIC_ONLY:
      return T::AicOnly;
    case KERNEL_TYPE_MIX_AIV_1_0:
      return T::Mix01;
    case KERNEL_TYPE_MIX_AIC_1_0:
      return T::Mix10;
    case KERNEL_TYPE_MIX_AIC_1_1:
      return T::Mix11;
    case KERNEL_TYPE_MIX_AIC_1_2:
      return T::Mix12;
    default:  // not of 2201
      return T::Unknown;
  }
}

inline void EmitCross(tilewright::twin::Op op, uint8_t mode, tilewright::twin::Pipe pipe, uint16_t id,
                      tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(op, pipe, at);
  r.cross.mode = mode;
  r.cross.id = static_cast<uint8_t>(id & 15);  // documented: the low four bits count
  r.cross.pipe = pipe;
  twi_emit(&r);
}

inline void EmitSyncAll(bool vectorOnly, uint32_t cores, tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::SyncAll, tilewright::twin::Pipe::S, at);
  r.cross.vector_only = vectorOnly;
  r.cross.cores = cores;
  r.cross.pipe = tilewright::twin::Pipe::ALL;
  twi_emit(&r);
}

// In software: whatever this core did before has been done when the waiter goes on.
inline void EmitSignal(tilewright::twin::Op op, uint32_t key, tilewright::twin::Place at) {
  auto r = tilewright::twin::MakeRecord(op, tilewright::twin::Pipe::S, at);
  r.cross.mode = 3;
  r.cross.pipe = tilewright::twin::Pipe::ALL;
  r.cross.key = key;
  twi_emit(&r);
}
constexpr uint32_t kBlockOrder = 1u << 30;  // keys of NotifyNextBlock; those of IBSet lie below

inline uint32_t SignalKey(int32_t blockIdx, int32_t eventID, tilewright::twin::Place at) {
  if (blockIdx < 0 || blockIdx > 65535 || eventID < 0 || eventID > 4095)
    twi_finding(tilewright::twin::FindingKind::FlagRange,
                "IBSet/IBWait: blockIdx must be 0 or more and below the number of cores, eventID 0 or more",
                tilewright::twin::Pipe::S, at);
  return (static_cast<uint32_t>(eventID) << 16 | static_cast<uint32_t>(blockIdx & 65535)) & (kBlockOrder - 1);
}

}  // namespace detail

// Once everything before it on `pipe` is done, raises flag `flagId` of the cores that `modeId` names.
template <uint8_t modeId, pipe_t pipe>
inline void CrossCoreSetFlag(uint16_t flagId, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitCross(tilewright::twin::Op::CrossSet, modeId, PipeOf(pipe), flagId, at);
}

template <uint8_t modeId = 0, pipe_t pipe = PIPE_S>
inline void CrossCoreWaitFlag(uint16_t flagId, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitCross(tilewright::twin::Op::CrossWait, modeId, PipeOf(pipe), flagId, at);
}

template <bool isAIVOnly = true>
inline void SyncAll(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitSyncAll(isAIVOnly, 0, at);
}

// In software, through global memory: `usedCores` vector cores meet, all of them by default.
template <bool isAIVOnly = true>
inline void SyncAll(const GlobalTensor<int32_t>&, const LocalTensor<int32_t>&, const int32_t usedCores = 0,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  static_assert(isAIVOnly, "SyncAll through a workspace is for kernels of vector cores alone");
  detail::EmitSyncAll(true, static_cast<uint32_t>(usedCores), at);
}

// One vector core tells another, which waits as `blockIdx`; all arguments but ubWorkspace must agree.
template <bool isAIVOnly = true>
inline void IBSet(const GlobalTensor<int32_t>&, const LocalTensor<int32_t>&, int32_t blockIdx,
                  int32_t eventID, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitSignal(tilewright::twin::Op::CrossSet, detail::SignalKey(blockIdx, eventID, at), at);
}
template <bool isAIVOnly = true>
inline void IBWait(const GlobalTensor<int32_t>&, const LocalTensor<int32_t>&, int32_t blockIdx,
                   int32_t eventID, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitSignal(tilewright::twin::Op::CrossWait, detail::SignalKey(blockIdx, eventID, at), at);
}

// Vector cores one after the other, by block; after the last one the first may go on to its next turn.
inline void InitDetermineComputeWorkspace(GlobalTensor<int32_t>&, LocalTensor<int32_t>&) {}
inline void WaitPreBlock(GlobalTensor<int32_t>&, LocalTensor<int32_t>&,
                         tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  const auto me = static_cast<uint32_t>(GetBlockIdx());
  const bool first = me == 0 && !twi_state()->ordered;
  twi_state()->ordered = true;
  if (!first) detail::EmitSignal(tilewright::twin::Op::CrossWait, detail::kBlockOrder | me, at);
}
inline void NotifyNextBlock(GlobalTensor<int32_t>&, LocalTensor<int32_t>&,
                            tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  const auto next = static_cast<uint32_t>((GetBlockIdx() + 1) % GetBlockNum());
  detail::EmitSignal(tilewright::twin::Op::CrossSet, detail::kBlockOrder | next, at);
}

}  // namespace AscendC
