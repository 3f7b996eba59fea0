// Printing, assertions and markers in kernels.
#pragma once

#include <cstdio>
#include <vector>

#include "api/system.h"
#include "api/tensor.h"

namespace AscendC {

namespace detail {

// What a variadic C function can take.
inline double Printable(half value) { return static_cast<float>(value); }
inline double Printable(bfloat16_t value) { return static_cast<float>(value); }
template <typename T>
inline T Printable(T value) {
  return value;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-security"
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
template <class... Args>
inline std::vector<char> Format(const char* fmt, Args... args) {
  const int length = std::snprintf(nullptr, 0, fmt, Printable(args)...);
  std::vector<char> text(length > 0 ? static_cast<size_t>(length) + 1 : 1);
  if (length > 0) std::snprintf(text.data(), text.size(), fmt, Printable(args)...);
  return text;
}
#pragma GCC diagnostic pop

inline void Assert(const char* expression, tilewright::twin::Place at) { twi_assert(expression, at); }
template <class... Args>
inline void Assert(const char* expression, tilewright::twin::Place at, const char* fmt, Args... args) {
  const std::vector<char> text = Format(fmt, args...);
  twi_assert(Format("%s: %s", expression, text.data()).data(), at);
}

template <typename T>
inline void PrintValue(T value) {
  if constexpr (std::is_same_v<T, half> || std::is_same_v<T, bfloat16_t> || std::is_floating_point_v<T>)
    twi_print(Format("%g ", static_cast<double>(static_cast<float>(value))).data());
  else
    twi_print(Format("%lld ", static_cast<long long>(value)).data());
}

// Values as they are in memory now: looking does not wait for an instruction under way, and is none.
template <typename T, class Tensor>
inline void Dump(const Tensor& tensor, const char* head, uint32_t count) {
  twi_print(head);
  const tilewright::twin::Operand operand = tensor.AsOperand(false);
  for (uint32_t i = 0; i < count; ++i) {
    T value{};
    if (!twi_peek(operand.mem, operand.base + uint64_t{i} * sizeof(T), sizeof(T), &value)) break;
    PrintValue(value);
  }
  twi_print("\n");
}

}  // namespace detail

template <class... Args>
inline void printf(const char* fmt, Args... args) {
  twi_print(detail::Format(fmt, args...).data());
}

template <class... Args>
inline void PRINTF(const char* fmt, Args... args) {
  printf(fmt, args...);
}

template <typename T>
inline void DumpTensor(const LocalTensor<T>& tensor, uint32_t desc, uint32_t dumpSize) {
  detail::Dump<T>(tensor, detail::Format("DumpTensor %u: ", desc).data(), dumpSize);
}
template <typename T>
inline void DumpTensor(const GlobalTensor<T>& tensor, uint32_t desc, uint32_t dumpSize) {
  detail::Dump<T>(tensor, detail::Format("DumpTensor %u: ", desc).data(), dumpSize);
}
template <typename T, class Shape>
inline void DumpTensor(const LocalTensor<T>& tensor, uint32_t desc, uint32_t dumpSize, const Shape&) {
  DumpTensor(tensor, desc, dumpSize);
}
template <typename T, class Shape>
inline void DumpTensor(const GlobalTensor<T>& tensor, uint32_t desc, uint32_t dumpSize, const Shape&) {
  DumpTensor(tensor, desc, dumpSize);
}
template <typename T>
inline void DumpAccChkPoint(const LocalTensor<T>& tensor, uint32_t index, uint32_t countOff,
                            uint32_t dumpSize) {
  detail::Dump<T>(tensor[countOff], detail::Format("DumpAccChkPoint %u: ", index).data(), dumpSize);
}
template <typename T>
inline void DumpAccChkPoint(const GlobalTensor<T>& tensor, uint32_t index, uint32_t countOff,
                            uint32_t dumpSize) {
  detail::Dump<T>(tensor[countOff], detail::Format("DumpAccChkPoint %u: ", index).data(), dumpSize);
}

inline void PrintTimeStamp(uint32_t descId) {
  twi_print(
      detail::Format("PrintTimeStamp %u: %llu\n", descId, static_cast<unsigned long long>(twi_system_cycle()))
          .data());
}
// Stops the core.
inline void Trap(tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  twi_assert("Trap() was reached", at);
}

// Marks for a profiler.
inline void MetricsProfStart() {}
inline void MetricsProfStop() {}

// The twin checks every access as it is; there is nothing to switch on.
struct CheckLocalMemoryIAParam {
  uint8_t enableBit = 0;
  uint32_t startAddr = 0;
  uint32_t endAddr = 0;
  bool isScalarRead = false;
  bool isScalarWrite = false;
  bool isVectorRead = false;
  bool isVectorWrite = false;
  bool isMteRead = false;
  bool isMteWrite = false;
  bool isEnable = false;
};
inline void CheckLocalMemoryIA(const CheckLocalMemoryIAParam&) {}

}  // namespace AscendC

#define ascendc_assert(expr, ...)                                                                \
  do {                                                                                           \
    if (!(expr)) AscendC::detail::Assert(#expr, tilewright::twin::Place::Here(), ##__VA_ARGS__); \
  } while (0)
#define ASCENDC_ASSERT(expr, ...)                                      \
  do {                                                                 \
    if (!(expr)) {                                                     \
      __VA_ARGS__;                                                     \
      AscendC::detail::Assert(#expr, tilewright::twin::Place::Here()); \
    }                                                                  \
  } while (0)
#undef assert
#define assert(expr, ...) \
  ((expr) ? void(0) : AscendC::detail::Assert(#expr, tilewright::twin::Place::Here(), ##__VA_ARGS__))
