#pragma once

#include <cstdint>

struct TwiceTiling {
  int32_t n, tile;
};
