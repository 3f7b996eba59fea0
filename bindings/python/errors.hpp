// Raising the classes of tilewright.errors from C++.
#pragma once

#include <string>

namespace tw::bindings {

// Raises tilewright.errors.<kind>(message); takes the GIL if the caller has released it.
[[noreturn]] void raise(const char* kind, const std::string& message);

}  // namespace tw::bindings
