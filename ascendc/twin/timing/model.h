// A launch under the cycle model: representative blocks, passed over until the shared memory settles.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "timing/cross.h"
#include "timing/timeline.h"

namespace tilewright::twin::timing {

struct BlockClass {
  uint32_t block, times;
};

// While one exists on a thread, the twin's next launch from this thread runs its blocks only and hands it
// their records.
class ModelRun : public RecordSink {
 public:
  // No classes: every block, each for itself.
  ModelRun(const Costs& costs, std::vector<BlockClass> classes);
  ~ModelRun() override;
  static ModelRun* Current();

  // A launch is about to run: its buffers and part.
  void Begin(const Machine& machine);
  std::vector<uint32_t> blocks() const;
  void OnRecord(int core, const Record& record) override;

  void Warm(uint32_t buffers) { sharing_.warm = buffers; }
  void KeepTrace(size_t events) { trace_events_ = events; }
  // After the launch: true if another pass would change little.
  bool Settle();
  std::string Json() const;
  // Chrome's trace format, which ui.perfetto.dev opens: a process a core, a thread a pipe, flags as arrows.
  std::string TraceJson() const;

 private:
  struct Lane {  // a core that runs
    std::unique_ptr<GmModel> gm;
    std::unique_ptr<Timeline> timeline;
    PipeTimes times;
    int core = 0;
    double stands_for = 0;  // cores
  };
  struct Demand;  // of the average core
  Lane& LaneOf(int core);
  void Finish();
  double Chip() const;
  void FindSameAddresses();
  double Cycles() const;

  const Costs& costs_;
  std::vector<BlockClass> classes_;
  std::vector<Lane> lanes_;  // kCoresOfGroup for each class
  std::vector<const Lane*> ran_;
  std::vector<uint32_t> class_of_;  // by block, of those that run
  std::vector<GmBuffer> buffers_;
  const Machine* machine_ = nullptr;
  const Soc* soc_ = nullptr;
  Sharing sharing_;
  std::mutex cross_mutex_;
  std::unique_ptr<CrossTable> cross_;
  uint32_t passes_ = 0;
  size_t trace_events_ = 0;
  double blocks_ = 0;  // of the launch
};

}  // namespace tilewright::twin::timing
