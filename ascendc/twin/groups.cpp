#include "groups.h"

#include <numeric>

namespace tilewright::twin {

FlagPlace FlagOf(int core, const Record& record) {
  const CrossParams& c = record.cross;
  if (record.op == Op::SyncAll) return {core, c.vector_only ? kSyncAllVector : kSyncAllMix};
  if (c.mode == 3) return {kNoCore, static_cast<int>(c.key)};
  return {core, c.id};
}

std::vector<uint32_t> AllBlocks(uint32_t count) {
  std::vector<uint32_t> blocks(count);
  std::iota(blocks.begin(), blocks.end(), 0u);
  return blocks;
}

std::vector<int> Groups::VectorsOf(int core) const {
  std::vector<int> out;
  for (int v = 1; v <= vectors_; ++v) out.push_back(CoreId(core / kCoresOfGroup, v));
  return out;
}

std::vector<int> Groups::Everywhere(bool cube, bool vector) const {
  std::vector<int> out;
  for (const uint32_t block : blocks_) {
    if (cube || !mixed()) out.push_back(CoreId(static_cast<int>(block), 0));
    for (int v = 1; vector && v <= vectors_; ++v) out.push_back(CoreId(static_cast<int>(block), v));
  }
  return out;
}

std::vector<int> Groups::Setters(int core, uint8_t mode, int id, uint32_t cores) const {
  if (id == kSyncAllMix) return Everywhere(true, true);
  if (id == kSyncAllVector || mode == 0) {
    std::vector<int> all = Everywhere(IsCube(core), !IsCube(core));
    if (cores != 0 && cores < all.size()) all.resize(cores);
    return all;
  }
  return mode == 2 && IsCube(core) ? std::vector<int>{core} : VectorsOf(core);
}

std::vector<int> Groups::Receivers(int core, uint8_t mode, int id, uint32_t cores) const {
  if (mode != 2 || id >= kCrossIds) return Setters(core, mode, id, cores);
  return IsCube(core) ? VectorsOf(core) : std::vector<int>{CoreId(core / kCoresOfGroup, 0)};
}

}  // namespace tilewright::twin
