// TPipe and TBuf: on-chip memory, handed out linearly, and event ids.
#pragma once

#include "api/sync.h"
#include "api/tensor.h"

namespace AscendC {

class TPipe;

namespace detail {

template <class Pool, class Shared>
inline void SharePool(Pool& pool, uint32_t len, const Shared& shared, tilewright::twin::Place at) {
  if (len > shared.bytes())
    twi_finding(tilewright::twin::FindingKind::Capacity,
                "InitBufPool: the pool is larger than the one whose bytes it shares",
                tilewright::twin::Pipe::S, at);
  pool.SetRegion(shared.base(), len < shared.bytes() ? len : shared.bytes());
}

}  // namespace detail

template <TPosition pos = TPosition::LCM>
class TBuf {
 public:
  template <typename T>
  LocalTensor<T> Get() const {
    return LocalTensor<T>::FromBuffer(pos, base_, base_, base_ + bytes_);
  }
  template <typename T>
  LocalTensor<T> Get(uint32_t len) const {
    auto t = Get<T>();
    t.SetSize(len);
    return t;
  }
  template <typename T>
  LocalTensor<T> GetWithOffset(uint32_t size, uint32_t bufOffset) const {
    auto t = LocalTensor<T>::FromBuffer(pos, base_ + bufOffset, base_, base_ + bytes_);
    t.SetSize(size);
    return t;
  }

  void SetRegion(uint64_t base, uint32_t bytes) {
    base_ = base;
    bytes_ = bytes;
  }

 private:
  uint64_t base_ = 0;
  uint32_t bytes_ = 0;
};

class TPipe {
 public:
  explicit TPipe(tilewright::twin::Place at = tilewright::twin::Place::Here()) { Init(at); }
  ~TPipe() { Destroy(); }
  TPipe(const TPipe&) = delete;
  TPipe& operator=(const TPipe&) = delete;

  // Memory is handed out from the start again, as by Reset, once everything before Destroy is done.
  void Init(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    if (twi_state()->destroyed) PipeBarrier<PIPE_ALL>(at);
    twi_state()->destroyed = false;
    twi_state()->pipe = this;
    twi_release_all();
    for (auto& row : taken_) row = 0;
  }
  // Kernels that manage events by hand call this first: nothing of TPipe's own stays in the way. That all
  // pipes are waited for (which DestroyWithoutPipeAll says of it) matters to what the next TPipe hands out.
  void Destroy() {
    if (twi_state()->pipe == this) twi_state()->destroyed = true;
    DestroyWithoutPipeAll();
  }
  void DestroyWithoutPipeAll() {
    if (twi_state()->pipe == this) twi_state()->pipe = nullptr;
  }
  void Reset() { twi_release_all(); }

  template <TPosition pos>
  bool InitBuffer(TBuf<pos>& buf, uint32_t len,
                  tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    const auto region = twi_alloc(MemOf(pos), len, "TBuf", at);
    buf.SetRegion(region.base, region.bytes);
    return true;
  }
  // A pool of `len` bytes, whose buffers it hands out itself; or one that shares the bytes of another.
  template <template <TPosition, uint32_t> class Pool, TPosition pos, uint32_t ids>
  bool InitBufPool(Pool<pos, ids>& bufPool, uint32_t len,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    const auto region = twi_alloc(MemOf(pos), len, "TBufPool", at);
    bufPool.SetRegion(region.base, region.bytes);
    return true;
  }
  template <class Pool, class Shared>
  bool InitBufPool(Pool& bufPool, uint32_t len, Shared& shareBuf,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    detail::SharePool(bufPool, len, shareBuf, at);
    return true;
  }
  // A queue of `num` buffers of `len` bytes.
  template <class Queue>
  bool InitBuffer(Queue& que, uint8_t num, uint32_t len,
                  tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    return que.InitBuffers(num, len, at);
  }

  template <HardEvent event>
  TEventID AllocEventID(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    return Alloc(event, kOwnIds, at);
  }
  template <HardEvent event>
  void ReleaseEventID(TEventID id) {
    Release(event, id);
  }
  // A free id, which stays free: the next call gives it again.
  TEventID FetchEventID(HardEvent event, tilewright::twin::Place at = tilewright::twin::Place::Here()) const {
    return FreeId(event, kOwnIds, at);
  }
  template <HardEvent event>
  TEventID FetchEventID(tilewright::twin::Place at = tilewright::twin::Place::Here()) const {
    return FreeId(event, kOwnIds, at);
  }

  // For queues, which are the system's own and may take the reserved ids too: 8 buffers at one position.
  TEventID AllocForQueue(HardEvent event, tilewright::twin::Place at) { return Alloc(event, kAllIds, at); }
  void Release(HardEvent event, TEventID id) {
    taken_[static_cast<int>(event)] = static_cast<uint8_t>(taken_[static_cast<int>(event)] & ~(1u << id));
  }

 private:
  static constexpr int8_t kAllIds = 8, kOwnIds = 6;  // ids 6 and 7 belong to the system

  TEventID FreeId(HardEvent event, int8_t ids, tilewright::twin::Place at) const {
    const uint8_t used = taken_[static_cast<int>(event)];
    for (int8_t id = 0; id < ids; ++id)
      if ((used >> id & 1) == 0) return id;
    twi_finding(tilewright::twin::FindingKind::FlagRange,
                ids == kOwnIds ? "all 6 event ids (0..5) of this HardEvent are taken; release one first"
                               : "all 8 event ids of this HardEvent are taken: queues at one position have "
                                 "at most 8 buffers in use",
                PipesOf(event).from, at);
    return 0;
  }
  TEventID Alloc(HardEvent event, int8_t ids, tilewright::twin::Place at) {
    const TEventID id = FreeId(event, ids, at);
    uint8_t& used = taken_[static_cast<int>(event)];
    used = static_cast<uint8_t>(used | 1u << id);
    return id;
  }

  uint8_t taken_[static_cast<int>(HardEvent::MAX)];
};

inline TPipe* GetTPipePtr() { return static_cast<TPipe*>(twi_state()->pipe); }

}  // namespace AscendC

using AscendC::GetTPipePtr;
