// What the model says about a launch, and its trace.
#include <algorithm>
#include <cstdio>

#include "timing/model.h"

namespace tilewright::twin::timing {

namespace {

constexpr int kReported = static_cast<int>(Pipe::ALL);
constexpr size_t kSteps = 32;  // of the critical path

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

std::string PipesJson(const double* busy) {
  std::string out = "{";
  for (int p = 0; p < kReported; ++p)
    out += std::string(p > 0 ? ", " : "") + "\"" + Name(static_cast<Pipe>(p)) + "\": " + Number(busy[p]);
  return out + "}";
}

std::string PlaceJson(Place at) { return Escape(at.file != nullptr ? at.file : ""); }

bool IsCube(const PipeTimes& t) {
  return t.busy[static_cast<int>(Pipe::M)] + t.busy[static_cast<int>(Pipe::MTE1)] +
             t.busy[static_cast<int>(Pipe::FIX)] >
         0;
}

// Busy cycles of the average core of one kind.
struct Average {
  double cores = 0, end = 0, busy[kPipes] = {};
  void Add(const PipeTimes& t, double times) {
    cores += times;
    end += t.end * times;
    for (int p = 0; p < kReported; ++p) busy[p] += t.busy[p] * times;
  }
  void Close() {
    if (cores == 0) return;
    end /= cores;
    for (double& b : busy) b /= cores;
  }
};

std::string CoreName(int core, bool mixed) {
  const int block = core / kCoresOfGroup, place = core % kCoresOfGroup;
  std::string name = "block " + std::to_string(block);
  if (mixed) name += place == 0 ? " aic" : " aiv " + std::to_string(place - 1);
  return name;
}

}  // namespace

// Of the busiest core: blocks beyond the cores come in waves.
double ModelRun::Cycles() const {
  double longest = 0, sum = 0;
  for (const Lane* lane : ran_) {
    const double end = lane->times.end + costs_[Const::CoreStart];
    longest = std::max(longest, end);
    sum += end * lane->stands_for;
  }
  return sharing_.cores > 0 ? std::max(longest, sum / sharing_.cores) : longest;
}

std::string ModelRun::Json() const {
  const double cycles = Cycles(), per_us = soc_->clock_ghz * 1e3;
  const double launch = costs_[Const::LaunchBase] +
                        costs_[Const::LaunchBlock] * std::min(blocks_, std::max(1.0, sharing_.cores));
  const bool mixed = ran_.size() > classes_.size();
  const bool vector = Chip() == soc_->vector_cores;
  Average all, aic, aiv;
  const Lane* slowest = nullptr;
  double records = 0, unresolved = 0, untraced = 0;
  for (const Lane* lane : ran_) {
    const PipeTimes& t = lane->times;
    if (slowest == nullptr || t.end > slowest->times.end) slowest = lane;
    const bool cube = mixed ? lane->core % kCoresOfGroup == 0 : IsCube(t) || !vector;
    (cube ? aic : aiv).Add(t, lane->stands_for);
    all.Add(t, lane->stands_for);
    records += static_cast<double>(t.records);
    unresolved += static_cast<double>(t.unresolved);
    untraced += static_cast<double>(t.untraced);
  }
  for (Average* a : {&all, &aic, &aiv}) a->Close();
  double pipes[kPipes] = {}, worst[kPipes] = {};
  for (int p = 0; p < kReported; ++p) {
    pipes[p] = std::max(aic.busy[p], aiv.busy[p]);
    if (slowest != nullptr) worst[p] = slowest->times.busy[p];
  }
  const int bound = static_cast<int>(std::max_element(worst, worst + kReported) - worst);
  std::string out =
      "{\"predicted_us\": " + Number(cycles / per_us + launch) + ", \"cycles\": " + Number(cycles) +
      ", \"core_avg_cycles\": " + Number(all.end + costs_[Const::CoreStart]) +
      ", \"clock_ghz\": " + Number(soc_->clock_ghz) + ", \"blocks\": " + Number(blocks_) +
      ", \"cores\": " + Number(sharing_.cores) + ", \"bound_by\": \"" + Name(static_cast<Pipe>(bound)) +
      "\"" + ", \"launch_us\": " + Number(launch) +
      ", \"overhead_us\": " + Number(launch + costs_[Const::CoreStart] / per_us) +
      ", \"pipes\": " + PipesJson(pipes) + ", \"slowest\": " + PipesJson(worst) + ", \"kinds\": {";
  bool first = true;
  for (const auto& [name, of] : {std::pair{"aic", &aic}, std::pair{"aiv", &aiv}}) {
    if (of->cores == 0) continue;
    out += std::string(first ? "" : ", ") + "\"" + name + "\": {\"cores\": " + Number(of->cores) +
           ", \"cycles\": " + Number(of->end + costs_[Const::CoreStart]) +
           ", \"busy\": " + PipesJson(of->busy) + "}";
    first = false;
  }
  out += "}, \"hbm_slow\": " + Number(sharing_.hbm_slow) + ", \"l2_slow\": " + Number(sharing_.l2_slow) +
         ", \"same_addresses\": " + (sharing_.hot_rate > 0 ? "true" : "false") +
         ", \"passes\": " + Number(passes_) + ", \"records\": " + Number(records) +
         ", \"unresolved\": " + Number(unresolved) + ", \"untraced\": " + Number(untraced);
  double seen = 0;
  std::vector<PathStep> steps;
  if (slowest != nullptr) steps = slowest->timeline->CriticalPath(&seen);
  out += ", \"critical_path\": {\"core\": \"" + CoreName(slowest != nullptr ? slowest->core : 0, mixed) +
         "\", \"cycles\": " + Number(seen) + ", \"steps\": [";
  for (size_t i = 0; i < std::min(steps.size(), kSteps); ++i) {
    const PathStep& s = steps[i];
    const bool issue = s.pipe == Pipe::S && s.slot == static_cast<int>(Op::Count);
    out += std::string(i > 0 ? ", " : "") + "{\"pipe\": \"" + Name(s.pipe) + "\", \"op\": \"" +
           (issue ? "issue" : SlotName(s.slot)) + "\", \"file\": \"" + PlaceJson(s.at) +
           "\", \"line\": " + std::to_string(s.at.line) + ", \"cycles\": " + Number(s.cycles) + "}";
  }
  return out + "]}}";
}

std::string ModelRun::TraceJson() const {
  const double per_us = soc_->clock_ghz * 1e3;
  const bool mixed = ran_.size() > classes_.size();
  std::string out =
      "{\"displayTimeUnit\": \"ns\", \"otherData\": {\"evidence\": \"modelled\"}, \"traceEvents\": [";
  bool first = true;
  const auto add = [&](const std::string& event) {
    out += (first ? "\n" : ",\n") + event;
    first = false;
  };
  uint64_t arrow = 0;
  for (const Lane* lane : ran_) {
    const std::string pid = std::to_string(lane->core);
    add("{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": " + pid + ", \"args\": {\"name\": \"" +
        CoreName(lane->core, mixed) + " (stands for " + Number(lane->stands_for) + ")\"}}");
    for (int p = 0; p < kReported; ++p)
      add("{\"ph\": \"M\", \"name\": \"thread_name\", \"pid\": " + pid + ", \"tid\": " + std::to_string(p) +
          ", \"args\": {\"name\": \"" + Name(static_cast<Pipe>(p)) + "\"}}");
    std::vector<std::string> open(64 * 8 + 1);  // arrows that left a SetFlag
    for (const TraceEvent& e : lane->timeline->trace()) {
      const std::string where =
          ", \"pid\": " + pid + ", \"tid\": " + std::to_string(static_cast<int>(e.pipe));
      const std::string at = ", \"ts\": " + Number(e.start / per_us);
      add("{\"ph\": \"X\", \"name\": \"" + std::string(SlotName(e.slot)) + "\"" + where + at +
          ", \"dur\": " + Number((e.end - e.start) / per_us) + ", \"args\": {\"at\": \"" + PlaceJson(e.at) +
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
