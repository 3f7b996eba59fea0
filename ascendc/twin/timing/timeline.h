// One core's simulated time. Records go in in program order; each leaves with a start and an end.
//
// The scalar unit issues at its own clock. A pipe works in order; a full queue in front of it stops the
// scalar unit. A WaitFlag holds its pipe until the flag is set, which may be issued later: what stands behind
// it is kept until then. Costs come from costs.h, what the memory beyond the core does from a GmModel.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "timing/costs.h"
#include "timing/gm.h"

namespace tilewright::twin::timing {

struct Resolved {
  uint64_t seq;
  double start, end;  // cycles of the core; the end is when the result is visible
};

// Times of flags between cores. The machine that runs several cores at a time owns one; a Timeline without
// one takes every flag from outside as set at once.
class CrossTimes {
 public:
  virtual ~CrossTimes() = default;
  // A core sets `flag` at `cycle`.
  virtual void Publish(int core, const Record& flag, double cycle) = 0;
  // Takes a flag that was set: when that was, or a negative number where it is not known yet.
  virtual double Answer(int core, const Record& flag) = 0;
};

// A share of the critical path: the cycles it spent in one kind of instruction of one source line.
struct PathStep {
  Pipe pipe;
  uint16_t slot;
  Place at;
  double cycles;
};

struct TraceEvent {
  Place at;
  double issue, start, end;
  uint64_t seq;
  uint16_t slot;
  Pipe pipe;
  // Flags: where an arrow starts or ends; 0 none, else 1 + event * 8 + id.
  uint16_t set, waited;
};

struct PipeTimes {
  double busy[kPipes] = {};  // a pipe is busy from a start to the end of its result
  double end = 0;            // of the last instruction
  // Cycles in which the core writes GM, reads what HBM has a part in, reads what L2 has a part in; and what
  // the last two would take if the core had HBM and L2 for itself.
  double writing = 0, missing = 0, hitting = 0;
  double miss = 0, hit = 0;
  double from_hbm = 0, from_l2 = 0;  // bytes
  uint64_t records = 0;
  uint64_t untraced = 0;    // instructions beyond those that a trace keeps
  uint64_t unresolved = 0;  // left behind a flag that nobody set
};

class Timeline {
 public:
  Timeline(const Costs& costs, GmModel& gm, int core, CrossTimes* cross = nullptr);
  ~Timeline();

  void Push(const Record& record);
  // Asks again for flags of other cores that were not known; whether anything came of it.
  bool Resume();
  // From now on keep the times of records as they become known, events for a trace (the first `most`), nodes
  // for the critical path.
  void KeepResolved() { keep_resolved_ = true; }
  void KeepTrace(size_t most) { trace_limit_ = most; }
  void KeepPath() { keep_path_ = true; }
  const std::vector<Resolved>& resolved() const { return resolved_; }
  void ClearResolved() { resolved_.clear(); }
  const std::vector<TraceEvent>& trace() const { return trace_; }
  // Walks back from the last result to what each instruction waited for; the largest shares first. `seen`:
  // the cycles walked, less than all where the ring of nodes was too short.
  std::vector<PathStep> CriticalPath(double* seen) const;

  double now() const { return scalar_; }
  uint64_t left() const;  // instructions whose times are not known
  const PipeTimes& Finish();

 private:
  static constexpr int kFlags = 64 * 8, kRing = 64;
  static constexpr size_t kNodes = size_t{1} << 16;
  enum class Kind : uint8_t { Work, Set, Wait, Barrier, BarrierAll, CrossSet, CrossWait };
  struct Item {
    Cost cost;
    double issue;
    uint64_t seq;
    Place at;
    const Record* cross;  // a copy, of CrossSet, CrossWait and SyncAll
    uint16_t slot, flag;
    Pipe pipe;
    Kind kind;
    uint8_t unit;  // unit flag of Mmad and Fixpipe
    bool met;      // a SyncAll that this core has come to
  };
  struct Lane {
    double ready = 0;    // when the next instruction may start
    double done = 0;     // when everything so far is visible
    double busy_to = 0;  // end of the time counted as busy
    double starts[kRing] = {};
    uint64_t entered = 0, started = 0;
    uint32_t ready_node = 0, done_node = 0;
    std::vector<Item> queue;  // behind something not known yet
    size_t head = 0;
    bool blocked() const { return head < queue.size(); }
  };
  struct Node {
    double start;
    float scalar;  // of the time before the start, what the scalar unit took; the rest is `before`'s
    uint32_t before;
    Place at;
    uint16_t slot;
    Pipe pipe;
  };

  Item Make(const Record& record);
  bool Issue(Item& item);
  bool OnScalar(Item& item);
  bool BarrierAll();
  bool Start(Lane& lane, Item& item);
  void Work(Lane& lane, const Item& item, double start);
  double UnitFlags(const Item& item, double* start, double end);
  bool Cross(Item& item, double* at);
  void Drain(Lane& lane);
  void DrainStalled();
  void Advance();
  uint32_t Remember(const Item& item, double start, uint32_t before, double scalar);
  void Trace(const Item& item, double start, double end);

  const Costs& costs_;
  GmModel& gm_;
  const int core_;
  CrossTimes* const cross_;
  const double call_, flag_latency_, contended_;
  const uint64_t depth_;
  double scalar_ = 0;
  double resumed_ = 0;         // when the scalar unit last went on after waiting
  uint32_t resumed_node_ = 0;  // and what it had waited for
  Lane lane_[kPipes];
  double flag_at_[kFlags];  // negative: not set
  uint32_t flag_node_[kFlags] = {};
  double unit_mmad_[2] = {}, unit_fix_[2] = {};  // start and end of the latest with a unit flag
  std::vector<Item> stalled_;                    // not issued yet
  size_t stalled_head_ = 0;
  bool progress_ = false;
  PipeTimes times_;
  bool keep_resolved_ = false, keep_path_ = false;
  size_t trace_limit_ = 0;
  std::vector<Resolved> resolved_;
  std::vector<TraceEvent> trace_;
  std::vector<Node> nodes_{1};  // a ring of kNodes once it is full; node 0 is none
  uint32_t next_node_ = 1;
  std::vector<std::unique_ptr<Record>> crossing_;
};

}  // namespace tilewright::twin::timing
