#include "timing/gm.h"

#include <algorithm>

namespace tilewright::twin::timing {

namespace {
constexpr size_t kFirstReads = 64;
// A place read again after so few bytes of its buffer brings nothing new into L2: the panel of a tile.
constexpr double kPanel = 4 << 20;
}  // namespace

GmModel::GmModel(const std::vector<GmBuffer>& buffers, const Costs& costs, const Sharing& sharing)
    : buffers_(buffers), costs_(costs), sharing_(sharing) {
  used_ = std::min<int>(static_cast<int>(buffers.size()), kGmBuffers);
  first_reads_.reserve(kFirstReads);
}

int GmModel::BufferOf(uint64_t address) const {
  for (size_t i = 0; i < buffers_.size(); ++i)
    if (address - buffers_[i].base < buffers_[i].bytes)
      return std::min<int>(static_cast<int>(i), kGmBuffers - 1);
  return -1;
}

// Bytes that all cores together brought into L2 since `visit`.
double GmModel::Since(const Visit& visit) const {
  double sum = 0;
  for (int b = 0; b < used_; ++b) {
    const double own = std::min(seen_[b].volume - visit.volume[b], seen_[b].footprint);
    sum += std::min(own * sharing_.cores, static_cast<double>(buffers_[static_cast<size_t>(b)].bytes));
  }
  return sum;
}

void GmModel::Stamp(uint64_t address, Visit* visit) {
  if (visit == nullptr) visit = &visits_[address];
  for (int b = 0; b < kGmBuffers; ++b) visit->volume[b] = static_cast<float>(seen_[b].volume);
}

Supply GmModel::SupplyOf(const Record& r) {
  Supply supply{0, sharing_.hbm_slow, sharing_.l2_slow, 0};
  if (r.operands == 0 || r.nop) return supply;
  const bool reads = r.operands > 1 && r.operand[1].mem == Mem::GM;
  const bool writes = r.operand[0].mem == Mem::GM && r.operand[0].write;
  if (!reads && !writes) return supply;
  const Operand& gm = r.operand[reads ? 1 : 0];
  if (r.op == Op::ScalarGet || r.op == Op::ScalarSet) return supply;
  const auto bytes = static_cast<double>(BytesOf(gm));
  const int buffer = BufferOf(gm.base);
  if (writes) {
    if (buffer < 0) return supply;
    const auto [at, fresh] = visits_.try_emplace(gm.base);
    seen_[buffer].volume += bytes;
    if (fresh) {
      seen_[buffer].footprint += bytes;
      filled_ += bytes;
      dirty_ += bytes;
    }
    Stamp(gm.base, &at->second);
    return supply;
  }
  if (first_reads_.size() < kFirstReads) first_reads_.push_back(gm.base);
  supply.hot_rate = sharing_.hot_rate;
  if (gm.bypass || buffer < 0) {
    supply.miss = supply.hot_rate > 0 ? 1 / sharing_.cores : 1;
    return supply;
  }
  const auto [at, fresh] = visits_.try_emplace(gm.base);
  if (fresh) {
    supply.miss = (sharing_.warm >> buffer & 1) != 0 ? 0 : sharing_.first_touch[buffer];
    seen_[buffer].footprint += bytes;
    seen_[buffer].volume += bytes;
  } else {
    if (seen_[buffer].volume - at->second.volume[buffer] > kPanel) seen_[buffer].volume += bytes;
    // Between fitting well and not fitting lies a stretch, as cores are not in step.
    const double capacity = costs_[Const::L2Bytes], need = Since(at->second);
    const double over = std::clamp((need - 0.9 * capacity) / (0.2 * capacity), 0.0, 1.0);
    supply.miss = over * sharing_.first_touch[buffer];
  }
  filled_ += bytes * supply.miss;
  Stamp(gm.base, &at->second);
  return supply;
}

}  // namespace tilewright::twin::timing
