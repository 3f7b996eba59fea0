// TPipe and TBuf: on-chip memory, handed out linearly, and event ids.
#pragma once

#include "api/sync.h"
#include "api/tensor.h"

namespace AscendC {

class TPipe;
namespace detail {
inline thread_local TPipe* current_pipe = nullptr;
}

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

 private:
  friend class TPipe;
  uint64_t base_ = 0;
  uint32_t bytes_ = 0;
};

class TPipe {
 public:
  TPipe() { Init(); }
  ~TPipe() { Destroy(); }
  TPipe(const TPipe&) = delete;
  TPipe& operator=(const TPipe&) = delete;

  void Init() {
    detail::current_pipe = this;
    for (auto& row : taken_) row = 0;
  }
  // Kernels that manage events by hand call this first: nothing of TPipe's own stays in the way.
  void Destroy() {
    if (detail::current_pipe == this) detail::current_pipe = nullptr;
  }
  void Reset() { twi_release_all(); }

  template <TPosition pos>
  bool InitBuffer(TBuf<pos>& buf, uint32_t len,
                  tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    const auto region = twi_alloc(MemOf(pos), len, "TBuf", at);
    buf.base_ = region.base;
    buf.bytes_ = region.bytes;
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
    return Alloc(event, at);
  }
  template <HardEvent event>
  void ReleaseEventID(TEventID id) {
    Release(event, id);
  }
  TEventID FetchEventID(HardEvent event) {
    const uint8_t used = taken_[static_cast<int>(event)];
    for (int8_t id = 0; id < kEvents; ++id)
      if ((used >> id & 1) == 0) return id;
    return kEvents - 1;
  }
  template <HardEvent event>
  TEventID FetchEventID() {
    return FetchEventID(event);
  }

  TEventID Alloc(HardEvent event, tilewright::twin::Place at) {
    uint8_t& used = taken_[static_cast<int>(event)];
    for (int8_t id = 0; id < kEvents; ++id) {
      if ((used >> id & 1) == 0) {
        used = static_cast<uint8_t>(used | 1u << id);
        return id;
      }
    }
    twi_finding(tilewright::twin::FindingKind::FlagRange,
                "all 8 event ids of this kind are taken; release one first", PipesOf(event).from, at);
    return 0;
  }
  void Release(HardEvent event, TEventID id) {
    taken_[static_cast<int>(event)] = static_cast<uint8_t>(taken_[static_cast<int>(event)] & ~(1u << id));
  }

 private:
  static constexpr int8_t kEvents = 8;
  uint8_t taken_[static_cast<int>(HardEvent::MAX)];
};

inline TPipe* GetTPipePtr() { return detail::current_pipe; }

}  // namespace AscendC
