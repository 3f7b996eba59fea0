// Cores in groups, and which cores' flags make one event: asked by the machine (board.h) and by the cycle
// model.
//
// asc-devkit docs/zh/api, CrossCoreSetFlag and its key features: mode 0 raises the counters of all cores of a
// kind once all of them have set; mode 1 those of the vector cores of a group; mode 2 those of a group's
// vector cores when its cube core sets, and the cube core's when all its vector cores have. SyncAll is a
// meeting of its own.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "twin/record.h"

namespace tilewright::twin {

constexpr int kCrossIds = 16;       // flag ids of a core
constexpr int kSyncAllVector = 16;  // the meetings of SyncAll take two more
constexpr int kSyncAllMix = 17;
constexpr int kCoresOfGroup = 3;  // a cube core and up to two vector cores
constexpr int kNoCore = -1;       // signals through global memory belong to no core

// The number of a core in its launch: block and place in the group; an unmixed kernel's cores have place 0.
inline int CoreId(int block, int place) { return block * kCoresOfGroup + place; }

// Whose counter a flag of `core` is about, and its id there; that of a signal is its key.
struct FlagPlace {
  int core, id;
};
FlagPlace FlagOf(int core, const Record& record);

std::vector<uint32_t> AllBlocks(uint32_t count);

class Groups {
 public:
  // The blocks that run.
  explicit Groups(std::vector<uint32_t> blocks) : blocks_(std::move(blocks)) {}

  // Vector cores beside each cube core; 0 for unmixed kernels.
  void Shape(int vectors) { vectors_ = vectors; }
  bool mixed() const { return vectors_ > 0; }
  int vectors() const { return vectors_; }
  bool IsCube(int core) const { return mixed() && core % kCoresOfGroup == 0; }

  // Everybody whose flag is needed before counters go up, as `core` sets; `cores` not 0: only the first so
  // many meet, counted in vector cores.
  std::vector<int> Setters(int core, uint8_t mode, int id, uint32_t cores = 0) const;
  // Whose counters go up then.
  std::vector<int> Receivers(int core, uint8_t mode, int id, uint32_t cores = 0) const;

 private:
  std::vector<int> VectorsOf(int core) const;
  std::vector<int> Everywhere(bool cube, bool vector) const;

  std::vector<uint32_t> blocks_;
  int vectors_ = 0;
};

}  // namespace tilewright::twin
