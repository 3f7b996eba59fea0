// How a cube core hands tiles to the two vector cores of its block: through a ring of slots in global memory,
// a tile a slot, as the chip has no other path. One flag says that a tile is there, one that both have read
// it; the cube core works on up to `kRingSlots` tiles that are not read yet.
#pragma once

#include "gemm_cube.h"

namespace tw_gemm {

constexpr uint16_t kTileReady = 0, kTileFree = 1;  // flags between cube and vector cores
constexpr uint32_t kRingSlots = 2;

// Elements from one block's ring to the next.
__aicore__ inline uint64_t RingSize(const TwGemmTiling& t) {
  return static_cast<uint64_t>(kRingSlots) * static_cast<uint64_t>(t.tile_m * t.tile_n);
}
// The ring of `block`: rows of a tile lie tile_n elements apart.
template <typename Acc>
__aicore__ inline GlobalTensor<Acc> RingOf(GM_ADDR workspace, const TwGemmTiling& t, int32_t block) {
  GlobalTensor<Acc> ring;
  ring.SetGlobalBuffer(reinterpret_cast<__gm__ Acc*>(workspace) + static_cast<uint64_t>(block) * RingSize(t));
  return ring;
}

// A sink of `Cube`: sums as they are, into the ring.
template <typename Acc>
class Ring {
 public:
  static constexpr bool kScales = false;

  __aicore__ inline Ring(GM_ADDR workspace, const TwGemmTiling& t)
      : ring_(RingOf<Acc>(workspace, t, static_cast<int32_t>(AscendC::GetBlockIdx()))),
        pitch_(static_cast<uint32_t>(t.tile_n)),
        size_(static_cast<uint32_t>(t.tile_m * t.tile_n)) {}

  __aicore__ inline void Open() {}
  __aicore__ inline void Begin(const Spot&) {}
  __aicore__ inline void Store(const LocalTensor<Acc>& c, AscendC::FixpipeParamsV220& p, const Spot&) {
    if (stored_ >= kRingSlots) AscendC::CrossCoreWaitFlag<2, PIPE_FIX>(kTileFree);
    p.dstStride = pitch_;
    p.quantPre = QuantMode_t::NoQuant;
    AscendC::Fixpipe<Acc, Acc, AscendC::CFG_ROW_MAJOR>(ring_[stored_ % kRingSlots * size_], c, p);
    AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kTileReady);
    ++stored_;
  }
  // Every tile is waited for once, so that no flag is left set.
  __aicore__ inline void Close() {
    const uint32_t open = stored_ < kRingSlots ? stored_ : kRingSlots;
    for (uint32_t i = 0; i < open; ++i) AscendC::CrossCoreWaitFlag<2, PIPE_FIX>(kTileFree);
    stored_ = 0;
  }

 private:
  GlobalTensor<Acc> ring_;
  const uint32_t pitch_, size_;
  uint32_t stored_ = 0;
};

}  // namespace tw_gemm
