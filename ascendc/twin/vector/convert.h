// 16-bit floats in bulk, and rounding as RoundMode says (数据结构/precision_conversion.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace tilewright::twin {

// To nearest, ties to even; with F16C where the host has it.
void HalvesToFloats(const uint16_t* from, float* to, size_t n);
void FloatsToHalves(const float* from, uint16_t* to, size_t n);
void Bf16sToFloats(const uint16_t* from, float* to, size_t n);
void FloatsToBf16s(const float* from, uint16_t* to, size_t n);
// SetSaturationFlag<FLOAT>: infinities become the largest number, NaN 0.
void SaturateHalves(uint16_t* values, size_t n);
void SaturateBf16s(uint16_t* values, size_t n);

// `mode` is an AscendC::RoundMode; CAST_NONE rounds as CAST_RINT does.
uint16_t RoundToHalf(float value, uint8_t mode);
uint16_t RoundToBf16(float value, uint8_t mode);
float RoundToFloat(int64_t value, uint8_t mode);
double RoundToIntegral(double value, uint8_t mode);

}  // namespace tilewright::twin
