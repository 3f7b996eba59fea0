// Transfers that combine with the value in GM.
#pragma once

#include <cstddef>

#include "twin/record.h"

namespace tilewright::twin {

// to = to (atomic) from, elementwise, in one piece for the other cores' atomic transfers. Integers wrap,
// 16-bit floats round once, and the maximum or minimum with a NaN is a NaN.
void Combine(Atomic atomic, DType type, uint8_t* to, const uint8_t* from, size_t bytes);

}  // namespace tilewright::twin
