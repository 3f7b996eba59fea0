// Each host thread owns some cores, each on a fiber: one that waits for another core makes room for the next.
#include "run.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <thread>

#include "fiber.h"
#include "guard.h"

namespace tilewright::twin {

namespace {

thread_local Core* current = nullptr;
thread_local class Worker* worker = nullptr;

struct Stopped {};  // leaves a kernel whose assertion failed

struct Shared {
  Machine& machine;
  const std::function<void()>& kernel;
  std::atomic<uint32_t> next_block{0};
  std::atomic<uint32_t> live{0};  // groups under way
  std::atomic<uint32_t> cores{0};
  std::atomic<int> kind{0};  // TaskType
  std::mutex mutex{};
  Outcome outcome{};
  std::vector<GmAccess> gm{};
  std::vector<int> broken{};  // cores that did not come to their end
};

// What the fault guard calls.
struct Job {
  const std::function<void()>& kernel;
  std::string thrown;
};

void CallJob(void* context) {
  Job& job = *static_cast<Job*>(context);
  try {
    job.kernel();
  } catch (const Stopped&) {
  } catch (const std::exception& error) {
    job.thrown = std::string("the exception '") + error.what() + "'";
  }
}

uint32_t Blocks(const Machine& machine) {
  return machine.chosen.empty() ? machine.block_dim : static_cast<uint32_t>(machine.chosen.size());
}

class Worker {
 public:
  explicit Worker(Shared& shared) : shared_(shared) {}

  void Run() {
    worker = this;
    uint64_t seen = 0;  // the state of the flags when parked cores last looked at them
    for (;;) {
      if (Step()) continue;
      if (running_.empty()) break;
      // All of this thread's cores wait, and no other block may start.
      shared_.machine.board->WaitForChange(seen);
      seen = shared_.machine.board->Version();
      for (auto& run : running_) run->parked = false;
    }
    worker = nullptr;
    Collect();
  }

  // From within a core's fiber.
  bool Block() {
    running_[at_]->parked = true;
    running_[at_]->fiber->Yield();
    return !shared_.machine.board->TakeVictim(current->id());
  }
  void Declare(TaskType type, Place at);

 private:
  struct Running {
    std::unique_ptr<Core> core;
    std::unique_ptr<Fiber> fiber;
    int block;
    bool lead, parked = false;
  };

  // Moves one core, or starts a block; false where neither is possible.
  bool Step() {
    for (size_t i = 0; i < running_.size(); ++i) {
      if (running_[i]->parked) continue;
      Resume(i);
      return true;
    }
    return StartBlock();
  }

  void Resume(size_t i) {
    at_ = i;
    Running& run = *running_[i];
    current = run.core.get();
    run.fiber->Resume();
    current = nullptr;
    if (!run.fiber->done()) return;
    if (run.lead) --shared_.live;
    free_.push_back(std::move(run.core));
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i));
    shared_.machine.board->Touch();
  }

  // No more blocks at a time than the chip has cores of the kind, where they may wait for each other.
  uint32_t MostAtATime() const {
    const Soc& soc = *shared_.machine.soc;
    const auto type = static_cast<TaskType>(shared_.kind.load());
    const bool cube = type != TaskType::Unknown && type != TaskType::AivOnly && type != TaskType::Mix01;
    return cube ? soc.cube_cores : soc.vector_cores;
  }

  bool StartBlock() {
    if (shared_.live >= MostAtATime()) return false;
    const uint32_t turn = shared_.next_block++, turns = Blocks(shared_.machine);
    if (turn >= turns) {
      shared_.next_block = turns;
      return false;
    }
    const uint32_t block = shared_.machine.chosen.empty() ? turn : shared_.machine.chosen[turn];
    ++shared_.live;
    const auto blocks = static_cast<int64_t>(shared_.machine.block_dim);
    Start({block, blocks, 0, 1, 0}, static_cast<int>(block), 0);
    if (shared_.machine.options.task_type != TaskType::Unknown) {
      current = running_.back()->core.get();
      at_ = running_.size() - 1;
      Declare(shared_.machine.options.task_type, {"", 0});
      current = nullptr;
    }
    return true;
  }

  void Start(const CoreInfo& info, int block, int place) {
    auto run = std::make_unique<Running>();
    if (free_.empty()) {
      run->core = std::make_unique<Core>(shared_.machine);
    } else {
      run->core = std::move(free_.back());
      free_.pop_back();
    }
    Core* core = run->core.get();
    run->block = block;
    run->lead = place == 0;
    ++shared_.cores;
    core->Begin(info, block, place, [] { return worker->Block(); });
    run->fiber = std::make_unique<Fiber>([this, core] { Body(*core); });
    running_.push_back(std::move(run));
  }

  void Body(Core& core) {
    Job job{shared_.kernel, ""};
    const int fault = RunGuarded(CallJob, &job);
    if (fault == 0 && job.thrown.empty() && !core.stopped()) return core.End();
    if (fault != 0)
      core.Fault(FaultName(fault));
    else if (!job.thrown.empty())
      core.Fault(job.thrown.c_str());
    const std::lock_guard<std::mutex> lock(shared_.mutex);
    shared_.broken.push_back(core.id());
  }

  void Collect() {
    const std::lock_guard<std::mutex> lock(shared_.mutex);
    for (const auto& core : free_) {
      shared_.outcome.counts.Merge(core->counts());
      auto& findings = core->findings();
      shared_.outcome.findings.insert(shared_.outcome.findings.end(), findings.begin(), findings.end());
      auto& accesses = core->gm_log().accesses();
      shared_.gm.insert(shared_.gm.end(), accesses.begin(), accesses.end());
      const auto& printed = core->printed();
      shared_.outcome.printed.insert(shared_.outcome.printed.end(), printed.begin(), printed.end());
      shared_.outcome.inserted_syncs += core->inserted_syncs();
      shared_.outcome.cycles = std::max(shared_.outcome.cycles, core->cycles());
    }
  }

  Shared& shared_;
  std::vector<std::unique_ptr<Running>> running_;
  std::vector<std::unique_ptr<Core>> free_;
  size_t at_ = 0;
};

void Worker::Declare(TaskType type, Place at) {
  Core& core = *current;
  if (core.info().kind != 0) return;  // each core of a group comes by here; the first one decides
  shared_.kind = static_cast<int>(type);
  CoreInfo info = core.info();
  const bool vector = type == TaskType::AivOnly || type == TaskType::Mix01;
  const int vectors = type == TaskType::Mix12 ? 2 : type == TaskType::Mix11 ? 1 : 0;
  info.kind = vector ? 2 : 1;
  info.sub_block_num = 1;
  core.Become(info, vector ? CoreKind::Vector : CoreKind::Cube, vectors > 0, at);
  shared_.machine.board->Shape(vectors);
  if (shared_.machine.clocks != nullptr) shared_.machine.clocks->Shape(vectors);
  const int block = running_[at_]->block;
  for (int v = 0; v < vectors; ++v)
    Start({int64_t{block} * vectors + v, info.block_num, v, vectors, 2}, block, v + 1);
}

void AddGmRaces(Shared& shared, bool mixed) {
  for (const GmRace& race : FindGmRaces(shared.gm, shared.machine.buffers)) {
    const GmAccess &a = race.before, &b = race.after;
    const auto buffer = std::find_if(shared.machine.buffers.begin(), shared.machine.buffers.end(),
                                     [&](const GmBuffer& g) { return race.begin - g.base < g.bytes; });
    const bool same = a.core == b.core;
    Finding f{race.stale ? FindingKind::StaleCache : FindingKind::Race,
              "",
              b.site.at,
              b.core / kCoresOfGroup,
              b.pipe,
              Mem::GM,
              true,
              race.begin - buffer->base,
              race.end - buffer->base,
              0,
              buffer->bytes,
              1};
    f.other = a.site.at;
    f.other_pipe = a.pipe;
    f.missing = race.stale ? "DataCacheCleanAndInvalid"
                : same     ? SyncName(a.pipe, b.pipe)
                           : "CrossCoreSetFlag/CrossCoreWaitFlag or SyncAll";
    f.core = !mixed ? "" : b.core % kCoresOfGroup == 0 ? "aic" : "aiv";
    const auto who = [&](const GmAccess& access) {
      return std::string(SlotName(access.site.slot)) + " on pipe " + Name(access.pipe) + " of " +
             shared.machine.board->NameOf(access.core);
    };
    const std::string bytes =
        "bytes " + std::to_string(f.begin) + ".." + std::to_string(f.end) + " of '" + buffer->name + "'";
    if (race.stale)
      f.message = who(b) + " may read old values of " + bytes + ", which " + who(a) + " at " +
                  PlaceName(a.site.at) + " left in its core's data cache; missing " + f.missing +
                  " before the two are ordered";
    else
      f.message = std::string(Name(race.hazard)) + " of " + bytes + ": " + who(b) + " is not ordered after " +
                  who(a) + " at " + PlaceName(a.site.at) + "; missing " + f.missing;
    shared.outcome.findings.push_back(std::move(f));
  }
}

void AddLeftFlags(Shared& shared) {
  if (!shared.broken.empty()) return;  // a core that fell over explains the rest
  for (const Board::Left& left : shared.machine.board->Leftovers()) {
    if (left.at.line == 0) continue;
    Finding f{FindingKind::CrossFlag,
              "",
              left.at,
              left.core / kCoresOfGroup,
              Pipe::S,
              Mem::GM,
              false,
              0,
              0,
              0,
              0,
              1};
    f.message = "CrossCoreSetFlag of flag " + std::to_string(left.id) +
                (left.partial ? " by " + shared.machine.board->NameOf(left.core) +
                                    " takes no effect: not every core that its mode needs sets it"
                              : " is never waited for by " + shared.machine.board->NameOf(left.core) +
                                    "; the next kernel finds it raised");
    shared.outcome.findings.push_back(std::move(f));
  }
}

const char* KindName(TaskType type) {
  constexpr const char* names[] = {"", "aic", "aiv", "aic", "aiv", "mix", "mix"};
  return names[static_cast<int>(type)];
}

}  // namespace

Outcome RunCores(Machine& machine, const std::function<void()>& kernel, int threads) {
  Board board(machine.block_dim);
  RemoteStore store;
  machine.board = &board;
  machine.store = &store;
  GmRoom room(machine.options.gm_accesses != 0 ? machine.options.gm_accesses : GmRoom::kUsual);
  machine.gm_room = &room;
  Clocks clocks(machine);
  machine.clocks = machine.options.skip_data ? nullptr : &clocks;
  uint32_t count =
      threads > 0 ? static_cast<uint32_t>(threads) : std::max(1u, std::thread::hardware_concurrency());
  if (machine.options.schedule != Schedule::Program) count = 1;
  count = std::min(count, Blocks(machine));
  Shared shared{machine, kernel};
  const FaultGuard guard;
  const auto work = [&shared, &board] {
    Worker(shared).Run();
    board.Leave();
  };
  for (uint32_t t = 0; t < count; ++t) board.Enter();
  std::vector<std::thread> pool;
  for (uint32_t t = 1; t < count; ++t) pool.emplace_back(work);
  work();
  for (std::thread& t : pool) t.join();
  const auto type = static_cast<TaskType>(shared.kind.load());
  const bool mixed = type == TaskType::Mix11 || type == TaskType::Mix12;
  AddGmRaces(shared, mixed);
  AddLeftFlags(shared);
  shared.outcome.unchecked_gm = room.refused();
  shared.outcome.cores = shared.cores;
  shared.outcome.kind = KindName(type);
  return std::move(shared.outcome);
}

}  // namespace tilewright::twin

using namespace tilewright::twin;

#define TW_EXPORT __attribute__((visibility("default")))

// Kernel side. Outside of a launch nothing is recorded and nothing is done.
extern "C" {

TW_EXPORT const CoreInfo* twi_core() {
  static const CoreInfo none{0, 1, 0, 1, 0};
  return current != nullptr ? &current->info() : &none;
}
TW_EXPORT CoreState* twi_state() {
  static thread_local CoreState none;
  return current != nullptr ? &current->state() : &none;
}
TW_EXPORT bool twi_emit(Record* record) { return current != nullptr && current->Emit(*record); }
TW_EXPORT Region twi_alloc(Mem mem, uint32_t bytes, const char* holder, Place at) {
  return current != nullptr ? current->Reserve(mem, bytes, holder, at) : Region{0, bytes};
}
TW_EXPORT void twi_release_all() {
  if (current != nullptr) current->ReleaseAll();
}
TW_EXPORT void twi_release(Mem mem, uint64_t begin, uint64_t end, bool released, Place at) {
  if (current != nullptr) current->Release(mem, begin, end, released, at);
}
TW_EXPORT void twi_forget(Mem mem, uint64_t begin, uint64_t end) {
  if (current != nullptr) current->Forget(mem, begin, end);
}
TW_EXPORT uint32_t twi_capacity(Mem mem) { return current != nullptr ? current->Capacity(mem) : 0; }
TW_EXPORT void twi_finding(FindingKind kind, const char* message, Pipe pipe, Place at) {
  if (current != nullptr && !current->stopped()) current->Report(kind, message, pipe, at);
}
TW_EXPORT void twi_task_type(TaskType type, Place at) {
  if (worker != nullptr && type != TaskType::Unknown) worker->Declare(type, at);
}
TW_EXPORT bool twi_is(int32_t kind, Place at) {
  if (current == nullptr) return false;
  if (current->info().kind == 0) worker->Declare(TaskType::Mix12, at);
  return current->info().kind == kind;
}
TW_EXPORT bool twi_peek(Mem mem, uint64_t address, uint32_t bytes, void* into) {
  if (current == nullptr) return false;
  const Machine& machine = current->machine();
  const auto holds = [&](uint64_t begin, uint64_t size) {
    return address >= begin && bytes <= size && address - begin <= size - bytes;
  };
  const auto& buffers = machine.buffers;
  const bool there = mem == Mem::GM
                         ? std::any_of(buffers.begin(), buffers.end(),
                                       [&](const GmBuffer& b) { return b.backed && holds(b.base, b.bytes); })
                         : holds(0, machine.soc->capacity[static_cast<int>(mem)]);
  if (there) std::memcpy(into, current->At(mem, address), bytes);
  return there;
}
TW_EXPORT void twi_print(const char* text) {
  if (current != nullptr) current->Print(text);
}
TW_EXPORT void twi_assert(const char* text, Place at) {
  if (current == nullptr || current->stopped()) return;
  current->Report(FindingKind::Assertion, text, Pipe::S, at);
  current->Stop();
  throw Stopped{};
}
TW_EXPORT uint64_t twi_system_cycle() { return current != nullptr ? current->SystemCycle() : 0; }

}  // extern "C"
