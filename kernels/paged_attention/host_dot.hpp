// Which stages compute logits and outputs, and the paths with dot-product instructions.
#pragma once

#include "paged_attention/host_tile.hpp"

namespace tw::paged::TW_ISA {

constexpr int64_t dtype_bytes(int32_t dtype) { return dtype == TW_FP32 ? 4 : dtype == TW_INT8 ? 1 : 2; }

TW_INLINE auto choose_scores(const Problem&) { return &tile_scores; }
TW_INLINE auto choose_values(const Problem&) { return &tile_values; }
TW_INLINE void pack_queries(const Work&) {}

}  // namespace tw::paged::TW_ISA
