// TQue and TQueBind: a ring of buffers between two pipes. EnQue, DeQue, FreeTensor and AllocTensor carry the
// flags.
#pragma once

#include "api/pipe.h"

namespace AscendC {

namespace detail {

struct QueueEvents {
  HardEvent filled, emptied;
};

// The flag that says "filled" and the one that says "free again", by what writes and what reads the buffer.
constexpr QueueEvents EventsOf(TPosition src, TPosition dst) {
  using P = TPosition;
  using E = HardEvent;
  if (src == P::GM) {
    if (dst == P::VECIN || dst == P::VECCALC) return {E::MTE2_V, E::V_MTE2};
    if (dst == P::A2 || dst == P::B2) return {E::MTE2_M, E::M_MTE2};
    return {E::MTE2_MTE1, E::MTE1_MTE2};
  }
  if (src == P::A1 || src == P::B1 || src == P::C1) return {E::MTE1_M, E::M_MTE1};
  if (src == P::CO1) return {E::M_FIX, E::FIX_M};
  if (src == P::VECIN && (dst == P::VECOUT || dst == P::GM)) return {E::MTE2_MTE3, E::MTE3_MTE2};
  if (dst == P::A1 || dst == P::B1) return {E::MTE3_MTE1, E::MTE1_MTE3};
  return {E::V_MTE3, E::MTE3_V};
}

// What a queue at `pos` connects when only its position is given.
constexpr TPosition SourceOf(TPosition pos) {
  switch (pos) {
    case TPosition::A2:
      return TPosition::A1;
    case TPosition::B2:
      return TPosition::B1;
    case TPosition::C2:
      return TPosition::C1;
    case TPosition::CO1:
      return TPosition::CO1;
    case TPosition::VECOUT:
    case TPosition::VECCALC:
      return TPosition::VECCALC;
    default:
      return TPosition::GM;
  }
}

}  // namespace detail

template <TPosition src, TPosition dst, int32_t depth = 1, auto mask = 0>
class TQueBind {
 public:
  // The buffers lie where the queue's tensors are written: at the on-chip end, or at the later of two ends.
  static constexpr TPosition position = dst == TPosition::GM || MemOf(src) == MemOf(dst) ? src : dst;

  template <typename T>
  LocalTensor<T> AllocTensor(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    for (int i = 0; i < num_; ++i) {
      const int slot = (next_ + i) % num_;
      if (state_[slot] != State::Idle) continue;
      next_ = (slot + 1) % num_;
      state_[slot] = State::Held;
      Wait(event_.emptied, free_id_[slot], at);
      Release(slot, false, at);
      return Tensor<T>(slot);
    }
    Report("AllocTensor: all buffers of the queue are in use, the kernel would wait for ever; free one first",
           at);
    return Tensor<T>(0);
  }

  // In place: into a tensor that is there already.
  template <typename T>
  void AllocTensor(LocalTensor<T>& tensor, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    tensor = AllocTensor<T>(at);
  }

  template <typename T>
  bool EnQue(const LocalTensor<T>& tensor, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    return Put(tensor, event_.filled, at);
  }
  // One buffer on several legs of its way, as from GM to VECIN and then from VECOUT to GM.
  template <TPosition srcUserPos, TPosition dstUserPos, typename T>
  bool EnQue(const LocalTensor<T>& tensor, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    return Put(tensor, detail::EventsOf(srcUserPos, dstUserPos).filled, at);
  }

  template <typename T>
  LocalTensor<T> DeQue(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    if (count_ == 0) {
      Report("DeQue: the queue is empty, nothing was enqueued that is still there", at);
      const int latest = (next_ + num_ - 1) % num_;  // as if that had been enqueued
      return Tensor<T>(latest);
    }
    const int slot = ring_[head_];
    head_ = (head_ + 1) % kSlots;
    --count_;
    state_[slot] = State::Held;
    Wait(full_event_[slot], full_id_[slot], at);
    return Tensor<T>(slot);
  }
  template <typename T>
  void DeQue(LocalTensor<T>& tensor, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    tensor = DeQue<T>(at);
  }
  template <TPosition srcUserPos, TPosition dstUserPos, typename T>
  LocalTensor<T> DeQue(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    return DeQue<T>(at);
  }

  template <typename T>
  void FreeTensor(const LocalTensor<T>& tensor,
                  tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    const int slot = SlotOf(tensor.GetPhyAddr());
    if (slot < 0 || state_[slot] == State::Idle) {
      Report(
          slot < 0 ? "FreeTensor: the tensor is not of this queue" : "FreeTensor: the tensor is already free",
          at);
      return;
    }
    if (state_[slot] == State::Queued) {
      Report("FreeTensor: the tensor is still enqueued; DeQue it first", at);
      return;
    }
    state_[slot] = State::Idle;
    Set(event_.emptied, free_id_[slot], at);
    Release(slot, true, at);
  }

  bool VacantInQue() const { return count_ < kSlots; }
  bool HasTensorInQue() const { return count_ > 0; }
  int32_t GetTensorCountInQue() const { return count_; }
  bool HasIdleBuffer() const {
    for (int i = 0; i < num_; ++i)
      if (state_[i] == State::Idle) return true;
    return false;
  }

  bool InitBuffers(uint8_t num, uint32_t len, tilewright::twin::Place at) {
    if (num_ > 0) Drain();  // used once more, after Reset or Init of the TPipe
    at_ = at;
    if (num == 0 || num > kSlots) {
      Report("InitBuffer: a queue has 1 to 16 buffers", at);
      num = 1;
    }
    const uint32_t bytes = tilewright::twin::AlignUp(len, 32);
    return InitBuffersAt(twi_alloc(MemOf(position), bytes * num, "TQue", at).base, num, bytes, at);
  }
  // In memory that a pool has handed out.
  bool InitBuffersAt(uint64_t base, uint8_t num, uint32_t bytes, tilewright::twin::Place at) {
    at_ = at;
    base_ = base;
    num_ = num > kSlots ? kSlots : num;
    slot_bytes_ = bytes;
    return true;
  }
  // Waits for what FreeTensor set, and gives the events back.
  void FreeAllEvent(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
    for (int i = 0; i < num_; ++i) Wait(event_.emptied, free_id_[i], at);
  }

  ~TQueBind() { Drain(); }

 private:
  template <typename T>
  bool Put(const LocalTensor<T>& tensor, HardEvent event, tilewright::twin::Place at) {
    const int slot = SlotOf(tensor.GetPhyAddr());
    if (slot < 0 || state_[slot] != State::Held) {
      Report("EnQue: the tensor was not allocated from this queue", at);
      return false;
    }
    if (count_ == kSlots) return false;
    state_[slot] = State::Queued;
    full_event_[slot] = event;
    Set(event, full_id_[slot], at);
    ring_[(head_ + count_++) % kSlots] = slot;
    return true;
  }

  enum class State : uint8_t { Idle, Held, Queued };
  static constexpr int kSlots = 16;

  template <typename T>
  LocalTensor<T> Tensor(int slot) const {
    const uint64_t lo = base_ + static_cast<uint64_t>(slot) * slot_bytes_;
    if (broken_) {
      twi_release(MemOf(position), lo, lo + slot_bytes_, false, at_);
      twi_forget(MemOf(position), lo, lo + slot_bytes_);
    }
    return LocalTensor<T>::FromBuffer(position, lo, lo, lo + slot_bytes_);
  }
  int SlotOf(uint64_t address) const {
    if (slot_bytes_ == 0 || address < base_) return -1;
    const uint64_t slot = (address - base_) / slot_bytes_;
    return slot < static_cast<uint64_t>(num_) ? static_cast<int>(slot) : -1;
  }
  // Nothing is in it any more, and no flag of it stays set.
  void Drain() {
    for (int i = 0; i < num_; ++i) {
      if (state_[i] == State::Queued) Report("a tensor of this queue was enqueued and never dequeued", at_);
      if (state_[i] == State::Held)
        Report("a tensor of this queue was allocated or dequeued and never freed", at_);
      Wait(event_.emptied, free_id_[i], at_);
      state_[i] = State::Idle;
    }
    next_ = head_ = count_ = 0;
  }
  void Release(int slot, bool released, tilewright::twin::Place at) const {
    const uint64_t lo = base_ + static_cast<uint64_t>(slot) * slot_bytes_;
    twi_release(MemOf(position), lo, lo + slot_bytes_, released, at);
  }
  // The first mistake is reported; what follows from it is not.
  void Report(const char* message, tilewright::twin::Place at) {
    if (broken_) return;
    broken_ = true;
    twi_finding(tilewright::twin::FindingKind::Queue, message, tilewright::twin::Pipe::S, at);
  }
  void Set(HardEvent event, TEventID& id, tilewright::twin::Place at) {
    TPipe* pipe = GetTPipePtr();
    id = pipe != nullptr ? pipe->AllocForQueue(event, at) : TEventID{0};
    detail::EmitFlag(tilewright::twin::Op::SetFlag, event, id, true, at);
  }
  void Wait(HardEvent event, TEventID& id, tilewright::twin::Place at) {
    if (id < 0) return;
    detail::EmitFlag(tilewright::twin::Op::WaitFlag, event, id, true, at);
    if (TPipe* pipe = GetTPipePtr()) pipe->Release(event, id);
    id = -1;
  }

  static constexpr detail::QueueEvents event_ = detail::EventsOf(src, dst);
  uint64_t base_ = 0;
  uint32_t slot_bytes_ = 0;
  bool broken_ = false;
  int num_ = 0, next_ = 0, head_ = 0, count_ = 0;
  tilewright::twin::Place at_{"", 0};
  State state_[kSlots] = {};
  int ring_[kSlots] = {};
  HardEvent full_event_[kSlots] = {};
  TEventID full_id_[kSlots] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
  TEventID free_id_[kSlots] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
};

template <TPosition pos, int32_t depth = 1, auto mask = 0>
class TQue : public TQueBind<detail::SourceOf(pos), pos, depth, mask> {};

}  // namespace AscendC
