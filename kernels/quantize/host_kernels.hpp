// What host.cpp (checks and threads, baseline code) knows of host_simd.cpp (compiled once per ISA level).
#pragma once

#include <cstdint>

#include "_rows/host_rows.hpp"

namespace tw::quantize {

// Floats that a vector may read and codes that it may write behind the last one.
constexpr int64_t kRoom = 64;

// Some rows and columns of x and q. `room` holds room_bytes(columns).
struct Block {
  rows::Matrix x, q;
  int32_t dtype;
  char* room;
};

// Scales of tokens or channels as they are stored, `step` bytes apart.
struct Scales {
  char* data;
  int64_t step;

  float get(int64_t i) const {
    float value;
    __builtin_memcpy(&value, data + i * step, 4);
    return value;
  }
  void put(int64_t i, float value) const { __builtin_memcpy(data + i * step, &value, 4); }
};

// Channels worked on at a time, where their scales are wanted.
constexpr int64_t kChannels = 512;

struct KernelTable {
  // Each token's scale found, or taken, by `found`; then its codes.
  void (*by_token)(const Block&, const Scales&, bool found);
  // The same for channels, at most kChannels.
  void (*by_channel)(const Block&, const Scales&, bool found);
};

// A row of floats, one of codes.
inline int64_t room_bytes(int64_t columns) { return 4 * (columns + kRoom) + round_up(columns + kRoom, 64); }

}  // namespace tw::quantize
