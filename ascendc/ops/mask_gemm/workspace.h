// What mask_gemm leaves in the workspace: the rings of its blocks, then, where rows of both paths are there,
// their numbers, their scales and themselves, path by path.
#pragma once

#include "../gemm/gemm_ring.h"
#include "mask_gemm_tiling.h"

namespace tw_mask {

using tw_gemm::RoundUp;

constexpr int32_t kGroupRows = 64;                                      // of a bit of the groups' word
constexpr int32_t kAlignment = 512;                                     // bytes, of every part
constexpr int32_t kInFloats = 0, kInCodes = 1, kKept = 2, kCounts = 3;  // of the output counts

struct Workspace {
  GM_ADDR rings;
  GM_ADDR numbers;  // int32: rows in int8, then from `apart` on those in bf16
  GM_ADDR scales;   // float: of the rows in int8
  GM_ADDR codes;    // rows in int8
  GM_ADDR floats;   // rows in bf16
  int32_t apart;

  __aicore__ inline Workspace(GM_ADDR at, const TwMaskGemmTiling& t, int32_t blocks) {
    const uint64_t ring = tw_gemm::RingSize(t.codes) * sizeof(int32_t) * static_cast<uint64_t>(blocks);
    const uint64_t rows = static_cast<uint64_t>(t.codes.m);
    apart = RoundUp(t.codes.m, kAlignment / 4);
    rings = at;
    numbers = rings + Whole(ring);
    scales = numbers + static_cast<uint64_t>(2 * apart) * sizeof(int32_t);
    codes = scales + static_cast<uint64_t>(apart) * sizeof(float);
    floats = codes + rows * static_cast<uint64_t>(t.pitch_codes);
  }

 private:
  __aicore__ inline static uint64_t Whole(uint64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
};

}  // namespace tw_mask
