// On-chip memory besides TPipe's buffers: pools of buffers, static allocation, what is left; and workspaces.
#pragma once

#include "api/queue.h"

namespace AscendC {

enum class Hardware : uint8_t { GM, UB, L1, L0A, L0B, L0C, BIAS, FIXBUF, MAX };

namespace detail {

constexpr TPosition PositionOf(Hardware hard) {
  switch (hard) {
    case Hardware::L1:
      return TPosition::A1;
    case Hardware::L0A:
      return TPosition::A2;
    case Hardware::L0B:
      return TPosition::B2;
    case Hardware::L0C:
      return TPosition::CO1;
    case Hardware::BIAS:
      return TPosition::C2;
    case Hardware::FIXBUF:
      return TPosition::C2PIPE2GM;
    default:
      return TPosition::VECCALC;
  }
}

}  // namespace detail

// Tensors one after the other, without queues; the kernel synchronises by itself.
template <Hardware hard = Hardware::UB>
class LocalMemAllocator {
 public:
  template <class DataType, uint32_t tileSize>
  LocalTensor<DataType> Alloc(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    return Take<DataType>(detail::PositionOf(hard), tileSize, at);
  }
  template <TPosition pos, class DataType, uint32_t tileSize>
  LocalTensor<DataType> Alloc(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    return Take<DataType>(pos, tileSize, at);
  }
  template <class DataType>
  LocalTensor<DataType> Alloc(uint32_t tileSize,
                              tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    return Take<DataType>(detail::PositionOf(hard), tileSize, at);
  }
  template <TPosition pos, class DataType>
  LocalTensor<DataType> Alloc(uint32_t tileSize,
                              tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    return Take<DataType>(pos, tileSize, at);
  }
  uint32_t GetCurAddr() const { return end_; }

 private:
  template <class DataType>
  LocalTensor<DataType> Take(TPosition pos, uint32_t tileSize, tilewright::twin::Place at) {
    const uint32_t bytes = tileSize * static_cast<uint32_t>(sizeof(DataType));
    const auto region = twi_alloc(MemOf(pos), bytes, "LocalMemAllocator", at);
    end_ = static_cast<uint32_t>(region.base) + region.bytes;
    return LocalTensor<DataType>(pos, static_cast<uint32_t>(region.base), tileSize);
  }

  uint32_t end_ = 0;
};

// A share of a memory that is handed out, reset and handed out anew. Pools may share the same bytes.
template <TPosition pos, uint32_t bufIDSize = 4>
class TBufPool {
 public:
  template <class Queue>
  bool InitBuffer(Queue& que, uint8_t num, uint32_t len,
                  tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    const uint32_t bytes = tilewright::twin::AlignUp(len, 32);
    return que.InitBuffersAt(Take(bytes * num, at), num, bytes, at);
  }
  template <TPosition bufPos>
  bool InitBuffer(TBuf<bufPos>& buf, uint32_t len,
                  tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    const uint32_t bytes = tilewright::twin::AlignUp(len, 32);
    buf.SetRegion(Take(bytes, at), bytes);
    return true;
  }
  template <class Pool>
  bool InitBufPool(Pool& bufPool, uint32_t len,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    const uint32_t bytes = tilewright::twin::AlignUp(len, 32);
    bufPool.SetRegion(Take(bytes, at), bytes);
    return true;
  }
  template <class Pool, class Shared>
  bool InitBufPool(Pool& bufPool, uint32_t len, Shared& shareBuf,
                   tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    detail::SharePool(bufPool, len, shareBuf, at);
    return true;
  }
  void Reset() { used_ = 0; }

  void SetRegion(uint64_t base, uint32_t bytes) {
    base_ = base;
    bytes_ = bytes;
    used_ = 0;
  }
  uint64_t base() const { return base_; }
  uint32_t bytes() const { return bytes_; }

 private:
  uint64_t Take(uint32_t bytes, tilewright::twin::Place at) {
    if (bytes > bytes_ - used_) {
      twi_finding(tilewright::twin::FindingKind::Capacity,
                  "TBufPool: the pool has fewer bytes left than the buffer takes", tilewright::twin::Pipe::S,
                  at);
      return base_;
    }
    used_ += bytes;
    return base_ + used_ - bytes;
  }

  uint64_t base_ = 0;
  uint32_t bytes_ = 0, used_ = 0;
};

// All of UB that no buffer holds.
template <typename T, TPosition pos>
inline bool PopStackBuffer(LocalTensor<T>& popLocal,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  const uint64_t begin = twi_alloc(MemOf(pos), 0, "PopStackBuffer", at).base, end = twi_capacity(MemOf(pos));
  popLocal = LocalTensor<T>::FromBuffer(pos, begin, begin, end);
  return begin < end;
}

namespace detail {
inline GM_ADDR& SystemWorkspace() {
  thread_local GM_ADDR workspace = nullptr;
  return workspace;
}
}  // namespace detail

// On the twin the system keeps nothing in the workspace: all of it is the user's.
inline void SetSysWorkspace(GM_ADDR workspace) { detail::SystemWorkspace() = workspace; }
inline GM_ADDR GetSysWorkSpacePtr() { return detail::SystemWorkspace(); }
inline GM_ADDR GetUserWorkspace(GM_ADDR workspace) { return workspace; }

}  // namespace AscendC
