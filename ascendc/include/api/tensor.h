// GlobalTensor and LocalTensor: typed addresses. A LocalTensor also knows the buffer it was cut from.
#pragma once

#include "api/enums.h"
#include "api/types.h"
#include "twin/bridge.h"

namespace AscendC {

template <typename T>
class LocalTensor;

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
  if constexpr (std::is_same_v<U, int4b_t>) return D::S4;
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

namespace detail {

// Bytes that `count` elements take: two of int4b_t share one.
template <typename T>
constexpr uint64_t BytesOf(uint64_t count) {
  return std::is_same_v<T, int4b_t> ? count / 2 : count * sizeof(T);
}

// What a + b and the like stand for until they are assigned to a tensor; vector_binary.h says what that does.
template <typename T, tilewright::twin::VecOp op>
struct BinaryExpression;
template <typename D, typename T, tilewright::twin::VecOp op>
void Assign(const LocalTensor<D>& dst, const BinaryExpression<T, op>& expression);

}  // namespace detail

enum class CMPMODE : uint8_t { LT = 0, GT, EQ, LE, GE, NE };

// One element, as tensor(offset): read as GetValue does, assigned as SetValue does.
template <class Tensor, typename T>
class Element {
 public:
  Element(Tensor tensor, uint64_t offset, tilewright::twin::Place at)
      : tensor_(tensor), offset_(offset), at_(at) {}
  operator T() const { return tensor_.GetValue(Offset(), at_); }
  Element& operator=(T value) {
    tensor_.SetValue(Offset(), value, at_);
    return *this;
  }

 private:
  auto Offset() const { return static_cast<typename Tensor::Index>(offset_); }
  Tensor tensor_;
  uint64_t offset_;
  tilewright::twin::Place at_;
};

template <typename T>
class GlobalTensor {
 public:
  using PrimType = T;
  using Index = uint64_t;

  void SetGlobalBuffer(__gm__ T* buffer, uint64_t bufferSize) {
    address_ = buffer;
    origin_ = reinterpret_cast<uintptr_t>(buffer);
    size_ = bufferSize;
  }
  void SetGlobalBuffer(__gm__ T* buffer) { SetGlobalBuffer(buffer, 0); }

  GlobalTensor operator[](uint64_t offset) const {
    GlobalTensor part = *this;
    part.address_ = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(address_) + offset * sizeof(T));
    part.size_ = offset < size_ ? size_ - offset : 0;
    return part;
  }
  Element<GlobalTensor, T> operator()(uint64_t offset,
                                      tilewright::twin::Place at = tilewright::twin::Place::Here()) const {
    return {*this, offset, at};
  }
  const __gm__ T* GetPhyAddr() const { return address_; }
  const __gm__ T* GetPhyAddr(uint64_t offset) const { return (*this)[offset].address_; }
  uint64_t GetSize() const { return size_; }
  void SetL2CacheHint(CacheMode mode) { bypass_ = mode == CacheMode::CACHE_MODE_DISABLE; }

  template <typename U>
  GlobalTensor<U> ReinterpretCast() const {
    GlobalTensor<U> other;
    other.SetGlobalBuffer(reinterpret_cast<U*>(address_), size_ * sizeof(T) / sizeof(U));
    other.origin_ = origin_;
    return other;
  }

  T GetValue(uint64_t offset, tilewright::twin::Place at = tilewright::twin::Place::Here()) const;
  void SetValue(uint64_t offset, T value, tilewright::twin::Place at = tilewright::twin::Place::Here());

  tilewright::twin::Operand AsOperand(bool write, uint64_t offset = 0) const {
    tilewright::twin::Operand o{};
    o.base = reinterpret_cast<uintptr_t>(address_) + offset * sizeof(T);
    o.lo = origin_;
    o.mem = tilewright::twin::Mem::GM;
    o.type = DTypeOf<T>();
    o.write = write;
    o.bypass = bypass_;
    return o;
  }

 private:
  template <typename U>
  friend class GlobalTensor;

  __gm__ T* address_ = nullptr;
  uint64_t origin_ = 0;  // the address last set: what the tensor is cut from lies there
  uint64_t size_ = 0;    // elements; 0 = not told
  bool bypass_ = false;
};

template <typename T>
class LocalTensor {
 public:
  using PrimType = T;
  using Index = uint32_t;

  LocalTensor() = default;
  // Static tensor programming: `tileSize` elements at byte `addr` of the memory behind `pos`.
  LocalTensor(TPosition pos, uint32_t addr, uint32_t tileSize)
      : base_(addr), lo_(addr), hi_(uint64_t{addr} + detail::BytesOf<T>(tileSize)), position_(pos) {}

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
    part.base_ = base_ + detail::BytesOf<T>(offset);
    return part;
  }
  template <typename U>
  LocalTensor<U> ReinterpretCast() const {
    return LocalTensor<U>::FromBuffer(position_, base_, lo_, hi_);
  }
  Element<LocalTensor, T> operator()(uint32_t offset,
                                     tilewright::twin::Place at = tilewright::twin::Place::Here()) const {
    return {*this, offset, at};
  }
  TPosition GetPosition() const { return position_; }
  uint32_t GetSize() const {
    const uint32_t elements = GetLength() / static_cast<uint32_t>(sizeof(T));
    return size_ != 0 ? size_ : std::is_same_v<T, int4b_t> ? 2 * elements : elements;
  }
  uint32_t GetLength() const { return static_cast<uint32_t>(hi_ > base_ ? hi_ - base_ : 0); }
  void SetSize(uint32_t size) { size_ = size; }
  void SetBufferLen(uint32_t dataLen) { size_ = dataLen; }
  uint64_t GetPhyAddr() const { return base_; }
  uint64_t GetPhyAddr(uint32_t offset) const { return base_ + detail::BytesOf<T>(offset); }
  void SetAddrWithOffset(const LocalTensor& src, uint32_t offset) { *this = src[offset]; }
  void SetUserTag(int64_t tag) { tag_ = tag; }
  int64_t GetUserTag() const { return tag_; }

  T GetValue(uint32_t offset, tilewright::twin::Place at = tilewright::twin::Place::Here()) const;
  void SetValue(uint32_t offset, T value, tilewright::twin::Place at = tilewright::twin::Place::Here()) const;

  // dst = a + b and the like: an operator takes no default argument, but the constructor of its operand does,
  // which is how the line of the kernel gets here.
  using VecOp = tilewright::twin::VecOp;
  template <VecOp op>
  using Expression = detail::BinaryExpression<T, op>;
  struct Placed {
    const LocalTensor& tensor;
    tilewright::twin::Place at;
    Placed(const LocalTensor& t, tilewright::twin::Place here = tilewright::twin::Place::Here())
        : tensor(t), at(here) {}
  };
  template <typename U, VecOp op>
  LocalTensor& operator=(const detail::BinaryExpression<U, op>& expression) {
    detail::Assign(*this, expression);
    return *this;
  }
  friend Expression<VecOp::Add> operator+(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::LT, b.at};
  }
  friend Expression<VecOp::Sub> operator-(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::LT, b.at};
  }
  friend Expression<VecOp::Mul> operator*(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::LT, b.at};
  }
  friend Expression<VecOp::Div> operator/(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::LT, b.at};
  }
  friend Expression<VecOp::And> operator&(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::LT, b.at};
  }
  friend Expression<VecOp::Or> operator|(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::LT, b.at};
  }
  friend Expression<VecOp::Compare> operator<(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::LT, b.at};
  }
  friend Expression<VecOp::Compare> operator>(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::GT, b.at};
  }
  friend Expression<VecOp::Compare> operator==(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::EQ, b.at};
  }
  friend Expression<VecOp::Compare> operator<=(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::LE, b.at};
  }
  friend Expression<VecOp::Compare> operator>=(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::GE, b.at};
  }
  friend Expression<VecOp::Compare> operator!=(const LocalTensor& a, Placed b) {
    return {a, b.tensor, CMPMODE::NE, b.at};
  }

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

namespace detail {

template <typename T, tilewright::twin::VecOp op>
struct BinaryExpression {
  const LocalTensor<T>& src0;
  const LocalTensor<T>& src1;
  CMPMODE mode;
  tilewright::twin::Place at;
};

}  // namespace detail

}  // namespace AscendC
