#include "timing/model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace tilewright::twin::timing {

namespace {

thread_local ModelRun* current = nullptr;

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

std::string PipesJson(const double* busy) {
  std::string out = "{";
  for (int p = 0; p < static_cast<int>(Pipe::ALL); ++p)
    out += std::string(p > 0 ? ", " : "") + "\"" + Name(static_cast<Pipe>(p)) + "\": " + Number(busy[p]);
  return out + "}";
}

}  // namespace

ModelRun::ModelRun(const Costs& costs, std::vector<BlockClass> classes)
    : costs_(costs), classes_(std::move(classes)) {
  current = this;
  uint32_t most = 0;
  for (const BlockClass& c : classes_) {
    most = std::max(most, c.block);
    total_ += c.times;
  }
  lane_of_.assign(most + 1, -1);
  for (size_t i = 0; i < classes_.size(); ++i) lane_of_[classes_[i].block] = static_cast<int32_t>(i);
}

ModelRun::~ModelRun() { current = nullptr; }

ModelRun* ModelRun::Current() { return current; }

void ModelRun::Begin(const Machine& machine) {
  soc_ = machine.soc;
  buffers_ = machine.buffers;
  lanes_.clear();
  lanes_.resize(classes_.size());
  if (passes_ == 0) sharing_.cores = total_;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i].gm = std::make_unique<GmModel>(buffers_, costs_, sharing_);
    lanes_[i].timeline =
        std::make_unique<Timeline>(costs_, *lanes_[i].gm, static_cast<int>(classes_[i].block));
    lanes_[i].timeline->KeepTrace(trace_events_);
    if (path_) lanes_[i].timeline->KeepPath();
  }
}

void ModelRun::OnRecord(int block, const Record& record) {
  lanes_[static_cast<size_t>(lane_of_[static_cast<size_t>(block)])].timeline->Push(record);
}

// The factor by which a shared memory of `rate` slows the part `scaled` of the time `moving` in which a core
// talks to it, so that the `demand` of all cores fits in; `now` is the factor of this pass.
double ModelRun::Slow(double demand, double rate, double moving, double scaled, double now) const {
  if (scaled <= 0) return 1;
  return std::max(1.0, now + (demand / rate - moving) / scaled);
}

bool ModelRun::Settle() {
  double filled = 0, dirty = 0, missing = 0, hitting = 0, miss = 0, hit = 0, from_hbm = 0, from_l2 = 0;
  double touched[kGmBuffers] = {};
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    lane.times = lane.timeline->Finish();
    const PipeTimes& t = lane.times;
    const double n = classes_[i].times / total_;  // per block
    filled += classes_[i].times * lane.gm->filled();
    dirty += classes_[i].times * lane.gm->dirty();
    // What is written back is while the core writes, or reads what pushes it out.
    missing += n * std::min(t.end, t.missing + t.writing);
    hitting += n * t.hitting;
    miss += n * t.miss;
    hit += n * t.hit;
    from_hbm += n * t.from_hbm;
    from_l2 += n * t.from_l2;
    for (int b = 0; b < kGmBuffers; ++b) touched[b] += classes_[i].times * lane.gm->footprint(b);
    for (const Pipe pipe : {Pipe::V, Pipe::MTE3}) vector_ = vector_ || t.busy[static_cast<int>(pipe)] > 0;
  }
  const Sharing before = sharing_;
  const bool cube = !vector_ && std::any_of(lanes_.begin(), lanes_.end(), [](const Lane& l) {
    return l.times.busy[static_cast<int>(Pipe::M)] > 0 || l.times.busy[static_cast<int>(Pipe::MTE1)] > 0;
  });
  const double chip = cube ? soc_->cube_cores : soc_->vector_cores;
  sharing_.cores = std::min(total_, chip);
  for (size_t b = 0; b < std::min<size_t>(buffers_.size(), kGmBuffers); ++b)
    sharing_.first_touch[b] =
        touched[b] > 0 ? std::min(1.0, static_cast<double>(buffers_[b].bytes) / touched[b]) : 1;
  // Two blocks that read the same addresses in the same order stand for all.
  size_t same = 0, compared = 0;
  for (size_t i = 1; i < lanes_.size() && compared == 0; ++i) {
    const auto &one = lanes_[0].gm->first_reads(), &other = lanes_[i].gm->first_reads();
    compared = std::min(one.size(), other.size());
    for (size_t k = 0; k < compared; ++k) same += one[k] == other[k];
  }
  sharing_.hot_rate =
      compared >= 8 && same * 10 > compared * 9 ? costs_[Const::HotLines] / sharing_.cores : 0;
  const double capacity = costs_[Const::L2Bytes];
  const double back = filled > capacity ? dirty * (1 - capacity / filled) / total_ : 0;
  const double to_cycle = 1e3 / soc_->clock_ghz;  // TB/s -> B a cycle
  sharing_.hbm_slow = Slow((from_hbm + costs_[Const::HbmWriteBack] * back) * sharing_.cores,
                           costs_[Const::HbmRate] * to_cycle, missing, miss, before.hbm_slow);
  sharing_.l2_slow =
      Slow(from_l2 * sharing_.cores, costs_[Const::L2Rate] * to_cycle, hitting, hit, before.l2_slow);
  ++passes_;
  const auto near = [](double a, double b) { return std::abs(a - b) <= 0.01 * std::max(a, b); };
  bool settled = passes_ > 1 && near(before.hbm_slow, sharing_.hbm_slow) &&
                 near(before.l2_slow, sharing_.l2_slow) && near(before.hot_rate, sharing_.hot_rate) &&
                 before.cores == sharing_.cores;
  for (int b = 0; b < kGmBuffers; ++b)
    settled = settled && near(before.first_touch[b], sharing_.first_touch[b]);
  return settled;
}

// Of the busiest core: blocks beyond the cores come in waves.
double ModelRun::Cycles() const {
  double longest = 0, sum = 0;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const double end = lanes_[i].times.end + costs_[Const::CoreStart];
    longest = std::max(longest, end);
    sum += end * classes_[i].times;
  }
  return std::max(longest, sum / sharing_.cores);
}

std::string ModelRun::Json() const {
  const double cycles = Cycles();
  const double per_us = soc_->clock_ghz * 1e3;
  const double launch =
      costs_[Const::LaunchBase] + costs_[Const::LaunchBlock] * std::min(total_, sharing_.cores);
  const double us = cycles / per_us + launch;
  size_t slowest = 0;
  double busy[kPipes] = {}, records = 0, unresolved = 0, average = 0;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (lanes_[i].times.end > lanes_[slowest].times.end) slowest = i;
    for (int p = 0; p < kPipes; ++p) busy[p] += lanes_[i].times.busy[p] * classes_[i].times / total_;
    average += lanes_[i].times.end * classes_[i].times / total_;
    records += static_cast<double>(lanes_[i].times.records);
    unresolved += static_cast<double>(lanes_[i].times.unresolved);
  }
  const PipeTimes& worst = lanes_[slowest].times;
  int bound = 0;
  for (int p = 0; p < static_cast<int>(Pipe::ALL); ++p)
    if (worst.busy[p] > worst.busy[bound]) bound = p;
  std::string out = "{\"predicted_us\": " + Number(us) + ", \"cycles\": " + Number(cycles) +
                    ", \"core_avg_cycles\": " + Number(average + costs_[Const::CoreStart]) +
                    ", \"clock_ghz\": " + Number(soc_->clock_ghz) + ", \"blocks\": " + Number(total_) +
                    ", \"cores\": " + Number(sharing_.cores) + ", \"bound_by\": \"" +
                    Name(static_cast<Pipe>(bound)) + "\"";
  out += ", \"launch_us\": " + Number(launch) +
         ", \"overhead_us\": " + Number(launch + costs_[Const::CoreStart] / per_us);
  out += ", \"pipes\": " + PipesJson(busy) + ", \"slowest\": " + PipesJson(worst.busy);
  out += ", \"hbm_slow\": " + Number(sharing_.hbm_slow) + ", \"l2_slow\": " + Number(sharing_.l2_slow) +
         ", \"same_addresses\": " + (sharing_.hot_rate > 0 ? "true" : "false") +
         ", \"passes\": " + Number(passes_) + ", \"records\": " + Number(records) +
         ", \"unresolved\": " + Number(unresolved);
  if (path_) {
    double seen = 0;
    const auto steps = lanes_[slowest].timeline->CriticalPath(&seen);
    out += ", \"critical_path\": {\"block\": " + std::to_string(classes_[slowest].block) +
           ", \"cycles\": " + Number(seen) + ", \"steps\": [";
    for (size_t i = 0; i < std::min<size_t>(steps.size(), 32); ++i) {
      const PathStep& s = steps[i];
      const bool issue = s.pipe == Pipe::S && s.slot == static_cast<int>(Op::Count);
      out += std::string(i > 0 ? ", " : "") + "{\"pipe\": \"" + Name(s.pipe) + "\", \"op\": \"" +
             (issue ? "issue" : SlotName(s.slot)) + "\", \"file\": \"" +
             Escape(s.at.file != nullptr ? s.at.file : "") + "\", \"line\": " + std::to_string(s.at.line) +
             ", \"cycles\": " + Number(s.cycles) + "}";
    }
    out += "]}";
  }
  return out + "}";
}

std::string ModelRun::TraceJson() const {
  const double per_us = soc_->clock_ghz * 1e3;
  std::string out =
      "{\"displayTimeUnit\": \"ns\", \"otherData\": {\"evidence\": \"modelled\"}, \"traceEvents\": [";
  bool first = true;
  const auto add = [&](const std::string& event) {
    out += (first ? "\n" : ",\n") + event;
    first = false;
  };
  uint64_t arrow = 0;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const std::string pid = std::to_string(classes_[i].block);
    add("{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": " + pid + ", \"args\": {\"name\": \"block " +
        pid + " (stands for " + std::to_string(classes_[i].times) + ")\"}}");
    for (int p = 0; p < static_cast<int>(Pipe::ALL); ++p)
      add("{\"ph\": \"M\", \"name\": \"thread_name\", \"pid\": " + pid + ", \"tid\": " + std::to_string(p) +
          ", \"args\": {\"name\": \"" + Name(static_cast<Pipe>(p)) + "\"}}");
    std::vector<std::string> open(64 * 8 + 1);  // arrows that left a SetFlag
    for (const TraceEvent& e : lanes_[i].timeline->trace()) {
      const std::string where =
          ", \"pid\": " + pid + ", \"tid\": " + std::to_string(static_cast<int>(e.pipe));
      const std::string at = ", \"ts\": " + Number(e.start / per_us);
      const char* file = e.at.file != nullptr ? e.at.file : "";
      add("{\"ph\": \"X\", \"name\": \"" + std::string(SlotName(e.slot)) + "\"" + where + at +
          ", \"dur\": " + Number((e.end - e.start) / per_us) + ", \"args\": {\"at\": \"" + Escape(file) +
          ":" + std::to_string(e.at.line) + "\", \"cycles\": " + Number(e.end - e.start) + "}}");
      if (e.set != 0) {
        open[e.set] = std::to_string(++arrow);
        add("{\"ph\": \"s\", \"name\": \"flag\", \"cat\": \"flag\", \"id\": " + open[e.set] + where + at +
            "}");
      }
      if (e.waited != 0 && !open[e.waited].empty()) {
        add("{\"ph\": \"f\", \"bp\": \"e\", \"name\": \"flag\", \"cat\": \"flag\", \"id\": " +
            open[e.waited] + where + at + "}");
        open[e.waited].clear();
      }
    }
  }
  return out + "\n]}\n";
}

}  // namespace tilewright::twin::timing
