// One core: it completes, checks, orders and executes the instructions it is given.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base.h"
#include "clock.h"
#include "gm_races.h"
#include "hazards.h"
#include "order.h"
#include "schedule.h"

namespace tilewright::twin {

class Core {
 public:
  explicit Core(const Machine& machine);
  ~Core();

  // A fresh core: poisoned memories, no flags, no reservations. `place`: 0 alone or the cube core of a group,
  // 1 and 2 its vector cores. `block_on` leaves the core until another may have raised a flag; false: nobody
  // ever will.
  void Begin(const CoreInfo& info, int block, int place, std::function<bool()> block_on);
  // The kernel has returned: what is still under way completes, then flags still set and the like are
  // reported.
  void End();
  // Instead of End, where the kernel's own code crashed.
  void Fault(const char* what);
  // After a failed assertion the core does nothing more.
  void Stop() { stopped_ = true; }
  bool stopped() const { return stopped_; }
  // The cube core of a group that has just become one.
  void Become(const CoreInfo& info, CoreKind kind, bool mixed, Place at);
  // Usable bytes of a memory; in a mixed kernel the system keeps the last 256 of L1.
  uint32_t Capacity(Mem mem) const {
    const uint32_t all = machine_.soc->capacity[static_cast<int>(mem)];
    return mixed_ && mem == Mem::L1 ? all - 256 : all;
  }

  bool Emit(Record& record);
  Region Reserve(Mem mem, uint32_t bytes, const char* holder, Place at);
  void ReleaseAll();
  // The bytes of a queue's buffer have been given back, or are in use again.
  void Release(Mem mem, uint64_t begin, uint64_t end, bool released, Place at);
  // What a queue hands out after a mistake was reported: nothing more is said of what happened there before.
  void Forget(Mem mem, uint64_t begin, uint64_t end);
  // Whether an address lies in a buffer that did not fit, which was reported when it was asked for.
  bool Overfull(Mem mem, uint64_t address) const;
  void Report(FindingKind kind, std::string message, Pipe pipe, Place at);
  void ReportAccess(FindingKind kind, std::string message, const Record& record, Mem mem, uint64_t begin,
                    uint64_t end, uint64_t allowed_begin, uint64_t allowed_end);
  void Add(Finding finding);

  // Host address of a byte of a memory; for GM the address itself.
  uint8_t* At(Mem mem, uint64_t address) {
    return mem == Mem::GM ? reinterpret_cast<uint8_t*>(address)
                          : memory_[static_cast<int>(mem)].get() + address;
  }
  uint8_t* At(const Operand& o) { return At(o.mem, o.base); }

  const Machine& machine() const { return machine_; }
  const CoreInfo& info() const { return info_; }
  CoreState& state() { return state_; }
  CoreKind kind() const { return kind_; }
  int id() const { return id_; }
  // Registers that vector instructions leave their results in.
  uint64_t& Word(StateWord word) { return words_[static_cast<int>(word)]; }
  std::vector<Finding>& findings() { return findings_; }
  const Counts& counts() const { return counts_; }
  uint64_t inserted_syncs() const { return inserted_syncs_; }
  double cycles() const { return cycles_; }
  // GetSystemCycle: ticks of a counter of 50 MHz.
  uint64_t SystemCycle() const {
    return clock_ == nullptr ? 0 : static_cast<uint64_t>(clock_->Now() / (machine_.soc->clock_ghz * 20));
  }
  GmLog& gm_log() { return gm_log_; }
  const std::vector<std::string>& printed() const { return printed_; }
  void Print(const char* text) { printed_.emplace_back(text); }
  // Scratch for executors, kept between instructions.
  float* Scratch(int which, size_t floats);

 private:
  struct Holder {
    Mem mem;
    uint32_t base, bytes;
    const char* what;
    Place at;
  };
  struct Freed {
    Mem mem;
    uint64_t begin, end;
    Place at;
  };
  struct UnitTile {  // of L0C, which its pipe keeps by unitFlag 2
    uint64_t begin, end;
    Pipe pipe;
    Place at;
  };
  struct Flag {
    int ahead = 0;  // sets issued and not yet paired with a wait in program order; negative: waits
    bool internal = false;
    bool reported = false;      // nothing more is said of it at the end
    int owed = 0;               // waits let through as if a set had come before them
    Place at{"", 0};            // of the latest set
    std::vector<Clock> raised;  // sets that have happened and that no wait has taken
  };
  // Issued and waiting in its pipe's queue, with what the scalar unit knew then.
  struct Waiting {
    Record record;
    Clock issued;
  };
  static constexpr int kEvents = 64, kIds = 8;
  static constexpr size_t kQueueDepth = 32;  // instructions a pipe takes before the scalar unit has to wait

  // core.cpp: what an instruction must satisfy whenever it executes.
  bool FlagIsLegal(const Record& record);
  // The first need of a core decides its kind; a need of the other kind is reported.
  bool OnItsCore(const Record& record);
  bool Meets(const Need& need, const Record& record);
  bool EventExists(const Record& record);
  void CheckReserved(const Record& record);
  bool CrossIsLegal(const Record& record);
  std::string SinceWhen() const;
  std::string HolderMap(Mem mem) const;
  void Count(const Record& record);
  void CheckUnitFlag(const Record& record);
  bool UseAfterFree(const Record& record);

  // issue.cpp: from program order to the order in which pipes get going.
  void Issue(Record& record);
  bool CanGo(const Record& record);
  const Record* UnitWait(const Record& record) const;
  const Record& Waiter(const Record& front) const;
  void Go(Record& record, const Clock& issued);
  void GoFlag(const Record& record);
  void GoCross(const Record& record);
  void GoMemory(Record& record);
  void Perform(Record& record, uint32_t index, const Clock& clock);
  bool Pump();
  void AwaitEmpty();
  // Until something changes elsewhere; where nothing will, reports the deadlock and lets one waiter through.
  void AwaitOthers(const Record* scalar);
  void BreakHang(const Record& waiter, bool full);
  const Waiting* SetFor(const FlagParams& flag) const;
  const Remote* Publish(const Clock& clock);
  Clock Told(const Remote* known) const;

  // races.cpp
  void CheckOperand(const Record& record, int operand, uint32_t index, Clock& clock);
  bool AutoSynced(Pipe earlier, Pipe later) const;
  void SettleAll(const Record& record, Mem mem, uint32_t index, const Access& access, const Clock& clock);
  void Settle(const Record& record, Mem mem, Pipe earlier, uint32_t index, const Conflict& conflict);
  void ReportRace(const Record& record, Mem mem, Pipe earlier, const Conflict& conflict);
  void ReportUndefined(const Record& record, const Operand& o, const Access& access);
  void ReportLeftFlags();

  const Machine& machine_;
  CoreInfo info_{};
  int block_ = 0, id_ = 0;
  CoreState state_;
  uint64_t words_[static_cast<int>(StateWord::Count)] = {};
  uint64_t seq_ = 0;
  Place last_{"", 0};  // of the latest instruction
  CoreKind kind_ = CoreKind::Unknown;
  Place kind_at_{"", 0};
  bool stopped_ = false, mixed_ = false;
  std::function<bool()> block_on_;
  std::unique_ptr<uint8_t[]> memory_[kMems];
  uint32_t next_[kMems] = {};
  std::vector<Holder> holders_;
  std::vector<Freed> freed_;
  std::vector<Record> reserved_;  // flags between cores with ids that SyncAll takes, should one come
  bool meets_ = false;            // SyncAll was called
  std::vector<UnitTile> unit_tiles_;
  Flag flags_[kEvents][kIds];
  std::deque<Waiting> queue_[kPipes];
  size_t queued_ = 0;
  Order order_;
  Clock starts_after_;  // what the instruction under way waits for
  std::unique_ptr<Shadow> shadow_;
  std::vector<Site> sites_[kPipes];
  std::vector<Clock> started_[kPipes];  // what was known when they started
  std::unique_ptr<Deferred> deferred_;
  std::unique_ptr<CoreClock> clock_;
  double cycles_ = 0;  // of the longest block so far
  GmLog gm_log_;
  uint64_t inserted_syncs_ = 0;
  std::vector<Finding> findings_;
  std::vector<std::string> printed_;
  Counts counts_;
  std::vector<float> scratch_[3];
};

const char* EventName(uint8_t event);
std::string FlagName(const FlagParams& flag);
std::string PlaceName(Place at);
// The flag or barrier that makes instructions of one pipe wait for those of another, by name.
std::string SyncName(Pipe from, Pipe to);

}  // namespace tilewright::twin
