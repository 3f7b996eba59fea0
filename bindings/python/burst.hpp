// Calls close upon each other with memory changed between them: what a call that remembers cannot follow.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "prepared.hpp"

namespace tw::bindings {

// Address, value in the low bytes, width in bytes: 1, 2, 4 or 8.
using Store = std::tuple<uintptr_t, uint64_t, int>;

// One call for each list, after the stores of that list; the ns of each call alone. No gap is longer than the
// stores take, so a kernel cannot tell this from a batch. The memory must be writable.
std::vector<int64_t> burst(const Prepared& call, const std::vector<std::vector<Store>>& stores);

}  // namespace tw::bindings
