#include "timing/timeline.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>

namespace tilewright::twin::timing {

Timeline::Timeline(const Costs& costs, GmModel& gm, int core, CrossTimes* cross)
    : costs_(costs),
      gm_(gm),
      core_(core),
      cross_(cross),
      call_(costs[Const::ScalarCall]),
      flag_latency_(costs[Const::FlagLatency]),
      contended_(costs[Const::Mte1Contended]),
      depth_(std::clamp<uint64_t>(static_cast<uint64_t>(costs[Const::QueueDepth]), 1, kRing)) {
  std::fill(flag_at_, flag_at_ + kFlags, -1.0);
}

Timeline::~Timeline() = default;

Timeline::Item Timeline::Make(const Record& r) {
  Item item{};
  item.seq = r.seq;
  item.at = r.at;
  item.slot = static_cast<uint16_t>(SlotOf(r));
  item.pipe = r.pipe;
  switch (r.op) {
    case Op::SetFlag:
    case Op::WaitFlag:
      item.kind = r.op == Op::SetFlag ? Kind::Set : Kind::Wait;
      item.flag = static_cast<uint16_t>((r.flag.event & 63) * 8 + (r.flag.id & 7));
      return item;
    case Op::Barrier:
      item.kind = r.barrier.pipe == Pipe::ALL || r.barrier.pipe == Pipe::S ? Kind::BarrierAll : Kind::Barrier;
      return item;
    case Op::CrossSet:
    case Op::CrossWait:
    case Op::SyncAll:
      item.kind = r.op == Op::CrossSet ? Kind::CrossSet : Kind::CrossWait;
      if (cross_ != nullptr) item.cross = crossing_.emplace_back(std::make_unique<Record>(r)).get();
      return item;
    default:
      item.kind = Kind::Work;
      break;
  }
  item.unit = r.op == Op::Mmad ? r.mmad.unit_flag : r.op == Op::Fixpipe ? r.fix.unit_flag : 0;
  const Supply supply = gm_.SupplyOf(r);
  item.cost = CostOf(r, costs_, supply);
  times_.miss += item.cost.miss;
  times_.hit += item.cost.hit;
  times_.from_hbm += item.cost.from_hbm;
  times_.from_l2 += item.cost.from_l2;
  return item;
}

void Timeline::Push(const Record& record) {
  ++times_.records;
  if (cross_ != nullptr) Resume();
  Item item = Make(record);
  if (stalled_head_ < stalled_.size() || !Issue(item)) {
    stalled_.push_back(item);
    return;
  }
  if (progress_) Advance();
}

// False: the scalar unit waits for something not known yet.
bool Timeline::Issue(Item& item) {
  if (item.pipe == Pipe::S || item.kind == Kind::BarrierAll) return OnScalar(item);
  Lane& lane = lane_[static_cast<int>(item.pipe)];
  if (lane.entered >= depth_) {
    const uint64_t before = lane.entered - depth_;  // must have left the queue
    if (before >= lane.started) return false;
    const double free = lane.starts[before % kRing];
    if (free > scalar_) {
      scalar_ = resumed_ = free;
      resumed_node_ = lane.ready_node;
    }
  }
  scalar_ += call_;
  times_.busy[static_cast<int>(Pipe::S)] += call_;
  item.issue = scalar_;
  ++lane.entered;
  if (lane.blocked() || !Start(lane, item)) lane.queue.push_back(item);
  return true;
}

bool Timeline::OnScalar(Item& item) {
  const double begin = scalar_;
  switch (item.kind) {
    case Kind::Wait: {
      double& at = flag_at_[item.flag];
      if (at < 0) return false;
      if (at > scalar_) {
        scalar_ = resumed_ = at;
        resumed_node_ = flag_node_[item.flag];
      }
      at = -1;
      break;
    }
    case Kind::Set:
      flag_at_[item.flag] = scalar_ + call_ + flag_latency_;
      flag_node_[item.flag] = resumed_node_;
      progress_ = true;
      break;
    case Kind::BarrierAll:
      if (!BarrierAll()) return false;
      break;
    case Kind::CrossSet:
    case Kind::CrossWait: {
      double at = scalar_;
      if (!Cross(item, &at)) return false;
      if (at > scalar_) scalar_ = resumed_ = at;
      break;
    }
    default:
      scalar_ += item.cost.occupancy;
      times_.busy[static_cast<int>(Pipe::S)] += item.cost.occupancy;
      break;
  }
  if (item.kind != Kind::Work || item.cost.occupancy == 0) {
    scalar_ += call_;
    times_.busy[static_cast<int>(Pipe::S)] += call_;
  }
  item.issue = begin;
  Trace(item, begin, scalar_);
  if (keep_resolved_) resolved_.push_back({item.seq, begin, scalar_});
  times_.end = std::max(times_.end, scalar_);
  return true;
}

// PIPE_ALL: the scalar unit goes on when every pipe is done.
bool Timeline::BarrierAll() {
  for (const Lane& lane : lane_)
    if (lane.blocked()) return false;
  for (Lane& lane : lane_) {
    if (lane.done <= scalar_) continue;
    scalar_ = resumed_ = lane.done;
    resumed_node_ = lane.done_node;
  }
  for (Lane& lane : lane_) lane.ready = std::max(lane.ready, lane.done);
  return true;
}

bool Timeline::Cross(Item& item, double* at) {
  if (cross_ == nullptr) return true;
  if (item.kind == Kind::CrossSet) {
    cross_->Publish(core_, *item.cross, *at + flag_latency_);
    return true;
  }
  if (item.cross->op == Op::SyncAll && !item.met) {
    // A meeting is a flag set and waited for by all; it is set once.
    cross_->Publish(core_, *item.cross, *at);
    item.met = true;
  }
  const double known = cross_->Answer(core_, *item.cross);
  if (known < 0) return false;
  *at = std::max(*at, known);
  return true;
}

// Lets the head of a pipe's queue start. False: it waits for something not known yet.
bool Timeline::Start(Lane& lane, Item& item) {
  double start = std::max(item.issue, lane.ready);
  switch (item.kind) {
    case Kind::Work:
      Work(lane, item, start);
      break;
    case Kind::Set:
      flag_at_[item.flag] = std::max(start, lane.done) + flag_latency_;
      flag_node_[item.flag] = lane.done_node;
      progress_ = true;
      break;
    case Kind::Wait: {
      double& at = flag_at_[item.flag];
      if (at < 0) return false;
      if (at > lane.ready) {
        lane.ready = at;
        lane.ready_node = flag_node_[item.flag];
      }
      start = std::max(start, at);
      at = -1;
      break;
    }
    case Kind::CrossSet:
    case Kind::CrossWait: {
      double at = item.kind == Kind::CrossSet ? std::max(start, lane.done) : start;
      if (!Cross(item, &at)) return false;
      if (item.kind == Kind::CrossWait) lane.ready = std::max(lane.ready, at);
      break;
    }
    default:
      if (lane.done > lane.ready) {
        lane.ready = lane.done;
        lane.ready_node = lane.done_node;
      }
      break;
  }
  if (item.kind != Kind::Work) {
    Trace(item, start, start);
    if (keep_resolved_) resolved_.push_back({item.seq, start, start});
  }
  lane.starts[lane.started++ % kRing] = start;
  return true;
}

void Timeline::Work(Lane& lane, const Item& item, double start) {
  const bool issued_last = item.issue > lane.ready;
  const uint32_t before = issued_last ? resumed_node_ : lane.ready_node;
  const double scalar = issued_last ? std::max(0.0, item.issue - resumed_) : 0;
  double occupancy = item.cost.occupancy;
  if (item.pipe == Pipe::MTE1 && lane_[static_cast<int>(Pipe::MTE2)].busy_to > start) occupancy *= contended_;
  double end = start + occupancy + item.cost.latency;
  double ready = start + occupancy;
  if (item.unit != 0) {
    end = UnitFlags(item, &start, end);
    ready = std::max(ready, end - item.cost.latency);
  }
  const uint32_t node = Remember(item, start, before, scalar);
  lane.ready = ready;
  lane.ready_node = node;
  if (end >= lane.done) {
    lane.done = end;
    lane.done_node = node;
  }
  const double counted = std::max(0.0, end - std::max(start, lane.busy_to));
  times_.busy[static_cast<int>(item.pipe)] += counted;
  if (item.cost.writes_gm) times_.writing += counted;
  if (item.cost.miss > 0) times_.missing += counted;
  if (item.cost.hit > 0) times_.hitting += counted;
  lane.busy_to = std::max(lane.busy_to, end);
  times_.end = std::max(times_.end, end);
  Trace(item, start, end);
  if (keep_resolved_) resolved_.push_back({item.seq, start, end});
}

// With unit flags Fixpipe follows the last Mmad of a tile fractal by fractal, and so does the first Mmad of
// the next tile in the same place follow Fixpipe: neither starts before the other, nor ends before it.
double Timeline::UnitFlags(const Item& item, double* start, double end) {
  double* own = item.pipe == Pipe::M ? unit_mmad_ : unit_fix_;
  const double* other = item.pipe == Pipe::M ? unit_fix_ : unit_mmad_;
  if (other[1] > *start) {
    const double length = end - *start;
    *start = std::max(*start, other[0] + item.cost.latency);
    end = std::max(*start + length, other[1] + item.cost.latency);
  }
  own[0] = *start;
  own[1] = end;
  return end;
}

void Timeline::Drain(Lane& lane) {
  while (lane.blocked()) {
    Item item = lane.queue[lane.head];
    if (!Start(lane, item)) {
      lane.queue[lane.head] = item;
      return;
    }
    ++lane.head;
    progress_ = true;
  }
  lane.queue.clear();
  lane.head = 0;
}

void Timeline::DrainStalled() {
  while (stalled_head_ < stalled_.size()) {
    Item item = stalled_[stalled_head_];
    if (!Issue(item)) {
      stalled_[stalled_head_] = item;
      return;
    }
    ++stalled_head_;
    progress_ = true;
  }
  stalled_.clear();
  stalled_head_ = 0;
}

// After a flag was set: whatever waited for it, and what waited for that.
void Timeline::Advance() {
  while (progress_) {
    progress_ = false;
    for (Lane& lane : lane_)
      if (lane.blocked()) Drain(lane);
    if (!stalled_.empty()) DrainStalled();
  }
}

bool Timeline::Resume() {
  const uint64_t before = left();
  if (before == 0) return false;
  progress_ = true;
  Advance();
  return left() != before;
}

uint64_t Timeline::left() const {
  uint64_t items = stalled_.size() - stalled_head_;
  for (const Lane& lane : lane_) items += lane.queue.size() - lane.head;
  return items;
}

const PipeTimes& Timeline::Finish() {
  Resume();
  times_.unresolved = left();
  times_.end = std::max(times_.end, scalar_);
  return times_;
}

uint32_t Timeline::Remember(const Item& item, double start, uint32_t before, double scalar) {
  if (!keep_path_) return 0;
  const uint32_t id = next_node_++;
  if (nodes_.size() < kNodes) nodes_.emplace_back();
  nodes_[id % kNodes] = {start, static_cast<float>(scalar), before, item.at, item.slot, item.pipe};
  return id;
}

void Timeline::Trace(const Item& item, double start, double end) {
  if (trace_.size() >= trace_limit_) {
    times_.untraced += trace_limit_ > 0;
    return;
  }
  const uint16_t flag = static_cast<uint16_t>(item.flag + 1);
  trace_.push_back({item.at, item.issue, start, end, item.seq, item.slot, item.pipe,
                    item.kind == Kind::Set ? flag : uint16_t{0},
                    item.kind == Kind::Wait ? flag : uint16_t{0}});
}

std::vector<PathStep> Timeline::CriticalPath(double* seen) const {
  using Key = std::tuple<int, int, const char*, int>;
  std::map<Key, double> shares;
  uint32_t id = 0;
  double end = 0;
  for (const Lane& lane : lane_) {
    if (lane.done <= end) continue;
    end = lane.done;
    id = lane.done_node;
  }
  double t = end;
  const auto add = [&shares](Pipe pipe, int slot, Place at, double cycles) {
    if (cycles > 0) shares[{static_cast<int>(pipe), slot, at.file, at.line}] += cycles;
  };
  while (id != 0 && id + kNodes > next_node_) {
    const Node& node = nodes_[id % kNodes];
    add(node.pipe, node.slot, node.at, t - node.start);
    t = std::min(t, node.start);
    if (node.scalar > 0) {
      add(Pipe::S, static_cast<int>(Op::Count), node.at, node.scalar);
      t -= node.scalar;
    }
    if (node.before >= id) break;
    id = node.before;
  }
  *seen = end - t;
  std::vector<PathStep> steps;
  for (const auto& [key, cycles] : shares)
    steps.push_back({static_cast<Pipe>(std::get<0>(key)),
                     static_cast<uint16_t>(std::get<1>(key)),
                     {std::get<2>(key), std::get<3>(key)},
                     cycles});
  std::sort(steps.begin(), steps.end(),
            [](const PathStep& a, const PathStep& b) { return a.cycles > b.cycles; });
  return steps;
}

}  // namespace tilewright::twin::timing
