// What one core's transfers meet beyond it: L2 by reuse distance, HBM and L2 shared with the other cores.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "timing/costs.h"

namespace tilewright::twin::timing {

constexpr int kGmBuffers = 8;  // told apart; later ones share the last place

// What all cores have in common in one pass over the launch. Found by passing again: see model.h.
struct Sharing {
  double cores = 1;  // at work
  double hbm_slow = 1, l2_slow = 1;
  double hot_rate = 0;
  double first_touch[kGmBuffers];  // share of first reads of a buffer that no other core made before
  uint32_t warm = 0;               // a bit a buffer: in L2 from the start, as another core writes it
  Sharing() {
    for (double& f : first_touch) f = 1;
  }
};

// One core's view. A read hits L2 if what all cores together touched since the last read of that place fits;
// of a buffer they touch at most its size.
class GmModel {
 public:
  GmModel(const std::vector<GmBuffer>& buffers, const Costs& costs, const Sharing& sharing);

  Supply SupplyOf(const Record& record);

  double footprint(int buffer) const { return seen_[buffer].footprint; }
  // Bytes that took a place in L2, and of these the ones that must be written back when they lose it.
  double filled() const { return filled_; }
  double dirty() const { return dirty_; }
  // The addresses of the first reads, to see whether another core reads the same in step.
  const std::vector<uint64_t>& first_reads() const { return first_reads_; }

 private:
  struct Seen {
    double volume = 0, footprint = 0;  // bytes moved, distinct bytes
  };
  struct Visit {
    float volume[kGmBuffers];
  };
  int BufferOf(uint64_t address) const;
  double Since(const Visit& visit) const;
  void Stamp(uint64_t address, Visit* visit);

  const std::vector<GmBuffer>& buffers_;
  const Costs& costs_;
  const Sharing& sharing_;
  Seen seen_[kGmBuffers];
  int used_ = 0;
  std::unordered_map<uint64_t, Visit> visits_;
  std::vector<uint64_t> first_reads_;
  double filled_ = 0, dirty_ = 0;
};

}  // namespace tilewright::twin::timing
