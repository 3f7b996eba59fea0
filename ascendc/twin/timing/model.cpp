#include "timing/model.h"

#include <algorithm>
#include <cmath>

namespace tilewright::twin::timing {

namespace {

thread_local ModelRun* current = nullptr;

// The factor by which a shared memory of `rate` slows the part `scaled` of the time `moving` in which a core
// talks to it, so that the `demand` of all cores fits in; `now` is the factor of this pass.
double Slow(double demand, double rate, double moving, double scaled, double now) {
  return scaled <= 0 ? 1 : std::max(1.0, now + (demand / rate - moving) / scaled);
}

bool Near(double a, double b) { return std::abs(a - b) <= 0.01 * std::max(a, b); }

}  // namespace

struct ModelRun::Demand {
  double missing = 0, hitting = 0, miss = 0, hit = 0, from_hbm = 0, from_l2 = 0;  // as in PipeTimes
  double filled = 0, dirty = 0;
  double touched[kGmBuffers] = {};  // of all cores
};

ModelRun::ModelRun(const Costs& costs, std::vector<BlockClass> classes)
    : costs_(costs), classes_(std::move(classes)) {
  current = this;
}

ModelRun::~ModelRun() { current = nullptr; }

ModelRun* ModelRun::Current() { return current; }

std::vector<uint32_t> ModelRun::blocks() const {
  std::vector<uint32_t> blocks;
  for (const BlockClass& c : classes_) blocks.push_back(c.block);
  return blocks;
}

void ModelRun::Begin(const Machine& machine) {
  machine_ = &machine;
  soc_ = machine.soc;
  buffers_ = machine.buffers;
  if (classes_.empty())
    for (uint32_t block = 0; block < machine.block_dim; ++block) classes_.push_back({block, 1});
  class_of_.assign(machine.block_dim, 0);
  blocks_ = 0;
  for (size_t i = 0; i < classes_.size(); ++i) {
    if (classes_[i].block < machine.block_dim) class_of_[classes_[i].block] = static_cast<uint32_t>(i);
    blocks_ += classes_[i].times;
  }
  ran_.clear();
  lanes_.clear();
  lanes_.resize(classes_.size() * kCoresOfGroup);
  cross_ = nullptr;
  if (passes_ == 0) sharing_.cores = blocks_;
}

// A core's first record makes its lane; by then the launch knows its shape. The cores of a block share a
// thread.
ModelRun::Lane& ModelRun::LaneOf(int core) {
  const auto own = size_t{class_of_[static_cast<size_t>(core / kCoresOfGroup)]};
  Lane& lane = lanes_[own * kCoresOfGroup + static_cast<size_t>(core % kCoresOfGroup)];
  if (lane.timeline != nullptr) return lane;
  CrossTable* cross = nullptr;
  {
    const std::lock_guard<std::mutex> lock(cross_mutex_);
    if (cross_ == nullptr) cross_ = std::make_unique<CrossTable>(blocks(), machine_->board->Vectors());
    cross = cross_.get();
  }
  lane.core = core;
  lane.stands_for = classes_[own].times;
  lane.gm = std::make_unique<GmModel>(buffers_, costs_, sharing_);
  lane.timeline = std::make_unique<Timeline>(costs_, *lane.gm, core, cross);
  lane.timeline->KeepTrace(trace_events_);
  lane.timeline->KeepPath();
  return lane;
}

void ModelRun::OnRecord(int core, const Record& record) { LaneOf(core).timeline->Push(record); }

void ModelRun::Finish() {
  for (const bool first : {true, false}) {
    bool progress = first;
    while (progress) {
      progress = false;
      for (Lane& lane : lanes_) progress = (lane.timeline != nullptr && lane.timeline->Resume()) || progress;
    }
  }
  for (Lane& lane : lanes_) {
    if (lane.timeline == nullptr) continue;
    lane.times = lane.timeline->Finish();
    ran_.push_back(&lane);
  }
}

// Blocks the chip can run at a time.
double ModelRun::Chip() const {
  const auto works = [this](Pipe pipe) {
    return std::any_of(ran_.begin(), ran_.end(),
                       [pipe](const Lane* l) { return l->times.busy[static_cast<int>(pipe)] > 0; });
  };
  const bool vector = works(Pipe::V) || works(Pipe::MTE3);
  const bool cube = works(Pipe::M) || works(Pipe::MTE1) || works(Pipe::FIX);
  if (cube || ran_.size() > classes_.size()) return soc_->cube_cores;
  return vector || blocks_ > soc_->cube_cores ? soc_->vector_cores : soc_->cube_cores;
}

// Two blocks that read the same addresses in the same order stand for all.
void ModelRun::FindSameAddresses() {
  size_t same = 0, compared = 0;
  for (size_t i = 1; i < ran_.size() && compared == 0; ++i) {
    const auto &one = ran_[0]->gm->first_reads(), &other = ran_[i]->gm->first_reads();
    compared = std::min(one.size(), other.size());
    for (size_t k = 0; k < compared; ++k) same += one[k] == other[k];
  }
  sharing_.hot_rate =
      compared >= 8 && same * 10 > compared * 9 ? costs_[Const::HotLines] / sharing_.cores : 0;
}

bool ModelRun::Settle() {
  Finish();
  const Sharing before = sharing_;
  double cores = 0;
  for (const Lane* lane : ran_) cores += lane->stands_for;
  sharing_.cores = cores * std::min(1.0, Chip() / std::max(1.0, blocks_));
  Demand d;
  for (const Lane* lane : ran_) {
    const double n = lane->stands_for / cores;
    d.from_hbm += n * lane->times.from_hbm;
    d.from_l2 += n * lane->times.from_l2;
    d.filled += lane->stands_for * lane->gm->filled();
    d.dirty += n * lane->gm->dirty();
    for (int b = 0; b < kGmBuffers; ++b) d.touched[b] += lane->stands_for * lane->gm->footprint(b);
  }
  const double capacity = costs_[Const::L2Bytes];
  const double pushed = d.filled > capacity ? costs_[Const::HbmWriteBack] * (1 - capacity / d.filled) : 0;
  const double of_hbm = d.from_hbm + pushed * d.dirty;
  // The time in which cores move data is that of those that do: in a mixed kernel some hardly read.
  for (const Lane* lane : ran_) {
    const PipeTimes& t = lane->times;
    const double n = lane->stands_for / cores;
    const double hbm = of_hbm > 0 ? n * (t.from_hbm + pushed * lane->gm->dirty()) / of_hbm : n;
    const double l2 = d.from_l2 > 0 ? n * t.from_l2 / d.from_l2 : n;
    // What is written back is while the core writes, or reads what pushes it out.
    d.missing += hbm * std::min(t.end, t.missing + t.writing);
    d.miss += hbm * t.miss;
    d.hitting += l2 * t.hitting;
    d.hit += l2 * t.hit;
  }
  for (size_t b = 0; b < std::min<size_t>(buffers_.size(), kGmBuffers); ++b)
    sharing_.first_touch[b] =
        d.touched[b] > 0 ? std::min(1.0, static_cast<double>(buffers_[b].bytes) / d.touched[b]) : 1;
  FindSameAddresses();
  const double to_cycle = 1e3 / soc_->clock_ghz;  // TB/s -> B a cycle
  sharing_.hbm_slow =
      Slow(of_hbm * sharing_.cores, costs_[Const::HbmRate] * to_cycle, d.missing, d.miss, before.hbm_slow);
  sharing_.l2_slow =
      Slow(d.from_l2 * sharing_.cores, costs_[Const::L2Rate] * to_cycle, d.hitting, d.hit, before.l2_slow);
  ++passes_;
  bool settled = passes_ > 1 && Near(before.hbm_slow, sharing_.hbm_slow) &&
                 Near(before.l2_slow, sharing_.l2_slow) && Near(before.hot_rate, sharing_.hot_rate) &&
                 Near(before.cores, sharing_.cores);
  for (int b = 0; b < kGmBuffers; ++b)
    settled = settled && Near(before.first_touch[b], sharing_.first_touch[b]);
  return settled;
}

}  // namespace tilewright::twin::timing
