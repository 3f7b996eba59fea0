// GlobalTensor and LocalTensor: typed addresses. A LocalTensor also knows the buffer it was cut from.
#pragma once

#include "api/enums.h"
#include "api/types.h"
#include "twin/bridge.h"

namespace AscendC {

template <typename T>
constexpr tilewright::twin::DType DTypeOf() {
  using D = tilewright::twin::DType;
  using U = std::remove_cv_t<T>;
  if constexpr (std::is_same_v<U, float>) return D::F32;
  if constexpr (std::is_same_v<U, half>) return D::F16;
  if constexpr (std::is_same_v<U, bfloat16_t>) return D::BF16;
  if constexpr (std::is_same_v<U, int8_t>) return D::S8;
  if constexpr (std::is_same_v<U, uint8_t> || std::is_same_v<U, bool>) return D::U8;
  if constexpr (std::is_same_v<U, int16_t>) return D::S16;
  if constexpr (std::is_same_v<U, uint16_t>) return D::U16;
  if constexpr (std::is_same_v<U, int32_t>) return D::S32;
  if constexpr (std::is_same_v<U, uint32_t>) return D::U32;
  if constexpr (std::is_same_v<U, int64_t>) return D::S64;
  if constexpr (std::is_same_v<U, uint64_t>) return D::U64;
  return D::None;
}

template <typename T>
inline uint64_t BitsOf(const T& value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
inline T FromBits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <typename T>
class GlobalTensor {
 public:
  using PrimType = T;

  void SetGlobalBuffer(__gm__ T* buffer, uint64_t bufferSize) {
    address_ = buffer;
    size_ = bufferSize;
  }
  void SetGlobalBuffer(__gm__ T* buffer) { SetGlobalBuffer(buffer, 0); }

  GlobalTensor operator[](uint64_t offset) const {
    GlobalTensor part = *this;
    part.address_ = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(address_) + offset * sizeof(T));
    part.size_ = offset < size_ ? size_ - offset : 0;
    return part;
  }
  const __gm__ T* GetPhyAddr() const { return address_; }
  const __gm__ T* GetPhyAddr(uint64_t offset) const { return (*this)[offset].address_; }
  uint64_t GetSize() const { return size_; }
  void SetL2CacheHint(CacheMode) {}

  template <typename U>
  GlobalTensor<U> ReinterpretCast() const {
    GlobalTensor<U> other;
    other.SetGlobalBuffer(reinterpret_cast<U*>(address_), size_ * sizeof(T) / sizeof(U));
    return other;
  }

  T GetValue(uint64_t offset, tilewright::twin::Place at = tilewright::twin::Place::Here()) const;
  void SetValue(uint64_t offset, T value, tilewright::twin::Place at = tilewright::twin::Place::Here());

  tilewright::twin::Operand AsOperand(bool write, uint64_t offset = 0) const {
    tilewright::twin::Operand o{};
    o.base = reinterpret_cast<uintptr_t>(address_) + offset * sizeof(T);
    o.mem = tilewright::twin::Mem::GM;
    o.type = DTypeOf<T>();
    o.write = write;
    return o;
  }

 private:
  __gm__ T* address_ = nullptr;
  uint64_t size_ = 0;  // elements; 0 = not told
};

template <typename T>
class LocalTensor {
 public:
  using PrimType = T;

  LocalTensor() = default;
  // Static tensor programming: `tileSize` elements at byte `addr` of the memory behind `pos`.
  LocalTensor(TPosition pos, uint32_t addr, uint32_t tileSize)
      : base_(addr), lo_(addr), hi_(uint64_t{addr} + uint64_t{tileSize} * sizeof(T)), position_(pos) {}

  static LocalTensor FromBuffer(TPosition pos, uint64_t base, uint64_t lo, uint64_t hi) {
    LocalTensor t;
    t.position_ = pos;
    t.base_ = base;
    t.lo_ = lo;
    t.hi_ = hi;
    return t;
  }

  LocalTensor operator[](uint32_t offset) const {
    LocalTensor part = *this;
    part.base_ = base_ + uint64_t{offset} * sizeof(T);
    return part;
  }
  template <typename U>
  LocalTensor<U> ReinterpretCast() const {
    return LocalTensor<U>::FromBuffer(position_, base_, lo_, hi_);
  }
  TPosition GetPosition() const { return position_; }
  uint32_t GetSize() const { return size_ != 0 ? size_ : GetLength() / static_cast<uint32_t>(sizeof(T)); }
  uint32_t GetLength() const { return static_cast<uint32_t>(hi_ > base_ ? hi_ - base_ : 0); }
  void SetSize(uint32_t size) { size_ = size; }
  uint64_t GetPhyAddr() const { return base_; }
  uint64_t GetPhyAddr(uint32_t offset) const { return base_ + uint64_t{offset} * sizeof(T); }
  void SetAddrWithOffset(const LocalTensor& src, uint32_t offset) { *this = src[offset]; }
  void SetUserTag(int64_t tag) { tag_ = tag; }
  int64_t GetUserTag() const { return tag_; }

  T GetValue(uint32_t offset, tilewright::twin::Place at = tilewright::twin::Place::Here()) const;
  void SetValue(uint32_t offset, T value, tilewright::twin::Place at = tilewright::twin::Place::Here()) const;

  tilewright::twin::Operand AsOperand(bool write, uint32_t offset = 0) const {
    tilewright::twin::Operand o{};
    o.base = GetPhyAddr(offset);
    o.lo = lo_;
    o.hi = hi_;
    o.mem = MemOf(position_);
    o.type = DTypeOf<T>();
    o.write = write;
    return o;
  }

 private:
  uint64_t base_ = 0;         // byte address in its memory
  uint64_t lo_ = 0, hi_ = 0;  // the buffer's bytes
  int64_t tag_ = 0;
  uint32_t size_ = 0;
  TPosition position_ = TPosition::MAX;
};

}  // namespace AscendC
