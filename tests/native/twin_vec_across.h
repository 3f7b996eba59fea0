// What the kernels for one vector instruction share: parameters from GM, tensors at fixed addresses of UB,
// the element type as a template argument.
#pragma once

#include "kernel_operator.h"

#define KERNEL extern "C" __global__ __aicore__ void

namespace across {

using namespace AscendC;

template <typename T>
GlobalTensor<T> Gm(GM_ADDR address) {
  GlobalTensor<T> t;
  t.SetGlobalBuffer(reinterpret_cast<T*>(address));
  return t;
}

class Params {
 public:
  explicit Params(GM_ADDR address) : values_(Gm<int64_t>(address)) {}
  int64_t operator[](uint32_t i) const { return values_.GetValue(i); }
  int32_t Int(uint32_t i) const { return static_cast<int32_t>((*this)[i]); }
  uint16_t Short(uint32_t i) const { return static_cast<uint16_t>((*this)[i]); }
  uint8_t Byte(uint32_t i) const { return static_cast<uint8_t>((*this)[i]); }

 private:
  GlobalTensor<int64_t> values_;
};

template <typename T>
LocalTensor<T> At(uint32_t address, uint32_t bytes) {
  return LocalTensor<T>(TPosition::VECCALC, address, bytes / sizeof(T));
}

// `bytes`, a multiple of 32, between GM and UB.
template <typename T>
LocalTensor<T> Load(GM_ADDR from, uint32_t address, uint32_t bytes) {
  if (bytes != 0) DataCopy(At<uint8_t>(address, bytes), Gm<uint8_t>(from), bytes);
  return At<T>(address, bytes);
}
inline void Ready() { PipeBarrier<PIPE_ALL>(); }
inline void Store(GM_ADDR to, uint32_t address, uint32_t bytes) {
  Ready();
  DataCopy(Gm<uint8_t>(to), At<uint8_t>(address, bytes), bytes);
}

// 0 half, 1 float, 2 int16, 3 uint16, 4 bfloat16, 5 int32, 6 uint32, 7 int8, 8 uint8
template <typename F>
void Floats(int64_t type, F&& f) {
  if (type == 0)
    f(half{});
  else
    f(float{});
}
template <typename F>
void Wide(int64_t type, F&& f) {
  switch (type) {
    case 2:
      return f(int16_t{});
    case 3:
      return f(uint16_t{});
    case 4:
      return f(bfloat16_t{});
    case 5:
      return f(int32_t{});
    case 6:
      return f(uint32_t{});
    default:
      return Floats(type, f);
  }
}
template <typename F>
void Any(int64_t type, F&& f) {
  if (type == 7)
    f(int8_t{});
  else if (type == 8)
    f(uint8_t{});
  else
    Wide(type, f);
}

// How a mask is given: 0 as a count, 1 as bits, 2 as a count in Counter mode, 3 in the register beforehand.
template <typename T, typename Call>
void Masked(const Params& p, uint32_t first, Call&& call) {
  const int64_t how = p[first];
  const uint64_t bits[2] = {static_cast<uint64_t>(p[first + 1]), static_cast<uint64_t>(p[first + 2])};
  if (how == 1) return call(bits, std::true_type{});
  if (how == 3) {
    SetVectorMask<T, MaskMode::NORMAL>(bits[1], bits[0]);
    call(MASK_PLACEHOLDER, std::false_type{});
    return ResetMask();
  }
  if (how == 2) SetMaskCount();
  call(p.Int(first + 1), std::true_type{});
  if (how == 2) SetMaskNorm();
}

}  // namespace across
