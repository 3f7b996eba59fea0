// A launch under the cycle model: representative blocks, passed over until the shared memory settles.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "timing/timeline.h"

namespace tilewright::twin::timing {

struct BlockClass {
  uint32_t block, times;
};

// While one exists on a thread, the twin's next launch from this thread runs its blocks only and hands it
// their records.
class ModelRun : public RecordSink {
 public:
  ModelRun(const Costs& costs, std::vector<BlockClass> classes);
  ~ModelRun() override;
  static ModelRun* Current();

  // The launch is about to run: its buffers and part.
  void Begin(const Machine& machine);
  uint32_t blocks() const { return static_cast<uint32_t>(classes_.size()); }
  uint32_t BlockAt(uint32_t index) const { return classes_[index].block; }
  void OnRecord(int block, const Record& record) override;

  void Warm(uint32_t buffers) { sharing_.warm = buffers; }
  void KeepDetails(size_t trace_events, bool path) {
    trace_events_ = trace_events;
    path_ = path;
  }
  // After the launch: true if another pass would change little.
  bool Settle();
  std::string Json() const;
  // Chrome's trace format, which ui.perfetto.dev opens: a process a core, a thread a pipe, flags as arrows.
  std::string TraceJson() const;

 private:
  struct Lane {
    std::unique_ptr<GmModel> gm;
    std::unique_ptr<Timeline> timeline;
    PipeTimes times;
  };
  double Slow(double demand, double rate, double moving, double scaled, double now) const;
  double Cycles() const;

  const Costs& costs_;
  std::vector<BlockClass> classes_;
  std::vector<Lane> lanes_;
  std::vector<int32_t> lane_of_;  // by block; -1: not run
  std::vector<GmBuffer> buffers_;
  const Soc* soc_ = nullptr;
  Sharing sharing_;
  bool vector_ = false;
  uint32_t passes_ = 0;
  size_t trace_events_ = 0;
  bool path_ = false;
  double total_ = 0;  // blocks of the launch
};

}  // namespace tilewright::twin::timing
