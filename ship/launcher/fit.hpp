// Whether an entry takes a call, and what the call binds its dims to.
#pragma once

#include <string>

#include "launcher/table.hpp"

namespace tilewright::launch {

inline constexpr int kMaxNamedDims = 24;
inline constexpr int kMaxArgs = 96;

// How far a call came with an entry; the entry that came farthest is the one worth explaining.
enum class Stage : uint8_t { kTensors, kFlags, kShape, kRange, kStrides, kSpecialisation, kFits };

struct Bound {
  int64_t dims[kMaxNamedDims];
  int64_t workspace;  // address of what the kernels share; 0 until it is there
};

// `why`, if given, gets the condition that failed. It is built only on request: this runs on every launch.
Stage Fit(const Entry& entry, const tw_call& call, Bound& bound, std::string* why = nullptr);

// The value of an argument as it stands in its slot: an integer, a pointer, or the bits of a float.
int64_t ArgValue(const Arg& arg, const tw_call& call, const Bound& bound);

// The call's attr of this name, or `fallback`.
int64_t AttrValue(const tw_call& call, const char* name, int64_t fallback);

}  // namespace tilewright::launch
