#include <algorithm>
#include <cstdio>
#include <cstring>

#include "api/enums.h"
#include "machine.h"

namespace tilewright::twin {

namespace {

// All ones is a NaN in half, bfloat16 and float.
constexpr int kPoison = 0xff;

constexpr const char* kEventNames[] = {
    "MTE2_MTE1", "MTE1_MTE2", "MTE1_M", "M_MTE1",   "MTE2_V",    "V_MTE2",    "MTE3_V",
    "V_MTE3",    "M_V",       "V_M",    "V_V",      "MTE3_MTE1", "MTE1_MTE3", "MTE1_V",
    "MTE2_M",    "M_MTE2",    "V_MTE1", "M_FIX",    "FIX_M",     "MTE3_MTE2", "MTE2_MTE3",
    "S_V",       "V_S",       "S_MTE2", "MTE2_S",   "S_MTE3",    "MTE3_S",    "MTE2_FIX",
    "FIX_MTE2",  "FIX_S",     "M_S",    "FIX_MTE3", "MTE1_FIX",  "FIX_MTE1",  "FIX_FIX"};
static_assert(sizeof(kEventNames) / sizeof(char*) == static_cast<int>(AscendC::HardEvent::MAX));

constexpr const char* kKindNames[] = {
    "capacity",           "out-of-bounds", "misaligned",    "illegal-parameter", "illegal-memory",
    "unpaired-flag",      "repeated-flag", "reserved-flag", "flag-range",        "queue",
    "assertion",          "fault",         "wrong-core",    "illegal-event",     "race",
    "uninitialized-read", "deadlock",      "cross-flag",    "use-after-free",    "short-row",
    "stale-cache"};
static_assert(sizeof(kKindNames) / sizeof(char*) == static_cast<int>(FindingKind::Count));

}  // namespace

const char* EventName(uint8_t event) { return kEventNames[event]; }

std::string FlagName(const FlagParams& f) {
  return std::string("HardEvent::") + kEventNames[f.event] + " with event id " + std::to_string(f.id);
}

std::string PlaceName(Place at) { return std::string(at.file) + ":" + std::to_string(at.line); }

std::string SyncName(Pipe from, Pipe to) {
  if (from == to) return std::string("PipeBarrier<PIPE_") + Name(from) + ">";
  return std::string("HardEvent::") + Name(from) + "_" + Name(to);
}

const char* Name(FindingKind kind) { return kKindNames[static_cast<int>(kind)]; }

void Counts::Merge(const Counts& other) {
  for (int p = 0; p < kPipes; ++p) {
    for (int o = 0; o < kSlots; ++o) issued[p][o] += other.issued[p][o];
    for (int m = 0; m < kMems; ++m) bytes_written[p][m] += other.bytes_written[p][m];
  }
  macs += other.macs;
  for (int m = 0; m < kMems; ++m) peak[m] = std::max(peak[m], other.peak[m]);
}

Core::Core(const Machine& machine) : machine_(machine), order_(*machine.store) {
  for (int m = 1; m < kMems; ++m) memory_[m] = std::make_unique<uint8_t[]>(machine.soc->capacity[m]);
  if (machine.options.hazards && !machine.options.skip_data) shadow_ = std::make_unique<Shadow>(*machine.soc);
}

Core::~Core() = default;

void Core::Begin(const CoreInfo& info, int block, int place, std::function<bool()> block_on) {
  info_ = info;
  block_ = block;
  id_ = CoreId(block, place);
  block_on_ = std::move(block_on);
  state_ = {};
  std::fill(std::begin(words_), std::end(words_), 0);
  seq_ = 0;
  last_ = {"", 0};
  kind_ = info.kind == 1 ? CoreKind::Cube : info.kind == 2 ? CoreKind::Vector : CoreKind::Unknown;
  kind_at_ = {"", 0};
  stopped_ = mixed_ = false;
  if (!machine_.options.skip_data)
    for (int m = 1; m < kMems; ++m) std::memset(memory_[m].get(), kPoison, machine_.soc->capacity[m]);
  for (auto& row : flags_)
    for (Flag& flag : row) flag = {};
  for (auto& queue : queue_) queue.clear();
  queued_ = 0;
  order_.Reset();
  if (shadow_ != nullptr) shadow_->Reset();
  for (auto& sites : sites_) sites.clear();
  for (auto& clocks : started_) clocks.clear();
  const uint64_t seed = machine_.options.seed * 1000003 + static_cast<uint64_t>(id_);
  if (machine_.options.skip_data || machine_.options.schedule == Schedule::Program)
    deferred_ = nullptr;
  else
    deferred_ = machine_.options.schedule == Schedule::Random ? MakeRandom(*this, seed) : MakeTimeline(*this);
  clock_ = machine_.clocks == nullptr
               ? nullptr
               : std::make_unique<CoreClock>(*machine_.clocks, id_,
                                             machine_.options.schedule == Schedule::Timeline);
  freed_.clear();
  reserved_.clear();
  meets_ = false;
  unit_tiles_.clear();
  ReleaseAll();
}

void Core::Become(const CoreInfo& info, CoreKind kind, bool mixed, Place at) {
  mixed_ = mixed;
  info_ = info;
  kind_ = kind;
  kind_at_ = at;
}

void Core::End() {
  if (stopped_) return;
  AwaitEmpty();
  if (deferred_ != nullptr) deferred_->All();
  if (clock_ != nullptr) cycles_ = std::max(cycles_, clock_->Finish());
  ReportLeftFlags();
  machine_.board->End(id_, order_.issued());
  stopped_ = true;
}

void Core::Fault(const char* what) {
  Report(FindingKind::Fault,
         std::string("the kernel's own code ended in ") + what + ", after the call on this line", Pipe::S,
         last_);
  stopped_ = true;
}

bool Core::Emit(Record& record) {
  if (stopped_) return false;
  record.seq = seq_++;
  last_ = record.at;
  ++counts_.issued[static_cast<int>(record.pipe)][SlotOf(record)];
  record.nop = IsNop(record);
  if (!record.nop) Describe(record);
  if (machine_.sink != nullptr) machine_.sink->OnRecord(id_, record);
  if (record.nop) return true;
  if (record.op == Op::SetFlag || record.op == Op::WaitFlag) {
    if (!FlagIsLegal(record)) return false;
  } else if (record.op == Op::CrossSet || record.op == Op::CrossWait) {
    if (!CrossIsLegal(record)) return false;
  } else {
    if ((record.operands > 0 && !Check(*this, record)) || !OnItsCore(record)) {
      if (shadow_ != nullptr) shadow_->Forgive(record);
      return false;
    }
    Count(record);
    CheckUnitFlag(record);
    if (record.op == Op::SyncAll) CheckReserved(record);
    if (!freed_.empty() && UseAfterFree(record)) {
      if (shadow_ != nullptr) shadow_->Forgive(record);
      return false;
    }
  }
  if (clock_ != nullptr) clock_->Push(record);
  Issue(record);
  return true;
}

void Core::Count(const Record& record) {
  for (int i = 0; i < record.operands; ++i) {
    const Operand& o = record.operand[i];
    if (o.mem == Mem::GM) continue;
    uint64_t& peak = counts_.peak[static_cast<int>(o.mem)];
    peak = std::max(peak, ExtentOf(record, o).end);
  }
  if (record.operands > 0 && record.operand[0].write)
    counts_.bytes_written[static_cast<int>(record.pipe)][static_cast<int>(record.operand[0].mem)] +=
        BytesOf(record, record.operand[0]);
  if (record.op == Op::Mmad) counts_.macs += uint64_t{record.mmad.m} * record.mmad.n * record.mmad.k;
}

bool Core::FlagIsLegal(const Record& record) {
  const FlagParams& f = record.flag;
  const bool set = record.op == Op::SetFlag;
  if (f.id < 0 || f.id >= kIds) {
    Report(FindingKind::FlagRange,
           std::string(set ? "SetFlag<" : "WaitFlag<") + FlagName(f) + ">: event ids are 0..7", record.pipe,
           record.at);
    return false;
  }
  if (!EventExists(record)) return false;
  if (!f.internal && f.id >= 6)
    Report(FindingKind::ReservedFlag,
           std::string(set ? "SetFlag<" : "WaitFlag<") + FlagName(f) +
               ">: ids 6 and 7 belong to the system, use 0..5",
           record.pipe, record.at);
  Flag& flag = flags_[f.event][f.id];
  if (!set) {
    --flag.ahead;
    return true;
  }
  if (flag.ahead > 0) {
    Finding found{
        FindingKind::RepeatedFlag,
        "SetFlag<" + FlagName(f) + "> again without a WaitFlag since the one at " + PlaceName(flag.at),
        record.at,
        block_,
        record.pipe,
        Mem::GM,
        false,
        0,
        0,
        0,
        0,
        1};
    found.other = flag.at;
    Add(std::move(found));
    flag.reported = true;
    return false;
  }
  ++flag.ahead;
  flag.internal = f.internal;
  flag.at = record.at;
  return true;
}

// asc-devkit docs/zh/api, CrossCoreSetFlag: SyncAll takes ids 11..14, which are free where nobody calls it.
void Core::CheckReserved(const Record& record) {
  const auto report = [&](const Record& flag) {
    Report(FindingKind::ReservedFlag,
           "flag id " + std::to_string(flag.cross.id) +
               " between cores: SyncAll, which this kernel calls too, takes 11..14",
           flag.pipe, flag.at);
  };
  if (record.op == Op::SyncAll) {
    meets_ = true;
    for (const Record& flag : reserved_) report(flag);
    reserved_.clear();
  } else if (record.cross.id >= 11 && record.cross.id <= 14 && !record.cross.internal) {
    if (meets_)
      report(record);
    else if (std::none_of(reserved_.begin(), reserved_.end(),
                          [&](const Record& r) { return r.at.line == record.at.line; }))
      reserved_.push_back(record);
  }
}

// The same page: a pipe of its own must complete first.
bool Core::CrossIsLegal(const Record& record) {
  const CrossParams& c = record.cross;
  if (c.mode == 3) return true;
  const std::string name = record.op == Op::CrossSet ? "CrossCoreSetFlag" : "CrossCoreWaitFlag";
  const auto bad = [&](FindingKind kind, const std::string& why) {
    Report(kind, name + ": " + why, record.pipe, record.at);
    return false;
  };
  if (c.id >= kCrossIds)
    return bad(FindingKind::FlagRange, "flag id " + std::to_string(c.id) + ", they are 0..15");
  CheckReserved(record);
  if (record.op == Op::CrossWait) return true;
  if (c.mode > 2)
    return bad(FindingKind::IllegalParameter, "mode " + std::to_string(c.mode) + ", 2201 has 0, 1 and 2");
  if (c.pipe == Pipe::S || c.pipe == Pipe::ALL)
    return bad(FindingKind::IllegalParameter,
               "PIPE_S and PIPE_ALL are not allowed, name the pipe that must be done");
  if (c.mode == 1 && info_.kind == 1)
    return bad(FindingKind::WrongCore,
               "mode 1 is between the vector cores of a group, and this is its cube core");
  if (c.mode != 0 && info_.kind == 0)
    return bad(FindingKind::WrongCore,
               "mode " + std::to_string(c.mode) +
                   " is between the cores of a mixed kernel; KERNEL_TASK_TYPE_DEFAULT says that it is one");
  return true;
}

std::string Core::SinceWhen() const {
  return std::string("this core works as a ") + Name(kind_) + " core since " + PlaceName(kind_at_);
}

bool Core::Meets(const Need& need, const Record& record) {
  if (need.kind == CoreKind::Unknown || need.kind == kind_) return true;
  if (kind_ == CoreKind::Unknown) {
    kind_ = need.kind;
    kind_at_ = record.at;
    return true;
  }
  Report(FindingKind::WrongCore,
         std::string(Name(record.op)) + ": " + need.what + " belongs to a " + Name(need.kind) +
             " core, and " + SinceWhen() + "; 2201 splits the two",
         record.pipe, record.at);
  return false;
}

bool Core::OnItsCore(const Record& record) {
  if (!Meets(NeedOf(record.pipe), record)) return false;
  if (record.op == Op::CubeOrder) return Meets({CoreKind::Cube, "the order of the cube"}, record);
  for (int i = 0; i < record.operands; ++i)
    if (!Meets(NeedOf(record.operand[i].mem), record)) return false;
  return true;
}

bool Core::EventExists(const Record& record) {
  const FlagParams& f = record.flag;
  const bool cube = HasEvent(CoreKind::Cube, f.event), vector = HasEvent(CoreKind::Vector, f.event);
  const bool here = kind_ == CoreKind::Cube ? cube : kind_ == CoreKind::Vector ? vector : cube || vector;
  if (!here) {
    Report(FindingKind::IllegalEvent,
           std::string(record.op == Op::SetFlag ? "SetFlag<" : "WaitFlag<") + FlagName(f) + ">: " +
               (!cube && !vector
                    ? "no core of 2201 has flags from " + std::string(Name(f.from)) + " to " + Name(f.to)
                    : "such flags exist on a " + std::string(Name(cube ? CoreKind::Cube : CoreKind::Vector)) +
                          " core only, and " + SinceWhen()),
           record.pipe, record.at);
    return false;
  }
  if (kind_ == CoreKind::Unknown && cube != vector) {
    kind_ = cube ? CoreKind::Cube : CoreKind::Vector;
    kind_at_ = record.at;
  }
  return true;
}

void Core::Report(FindingKind kind, std::string message, Pipe pipe, Place at) {
  Add({kind, std::move(message), at, block_, pipe, Mem::GM, false, 0, 0, 0, 0, 1});
}

void Core::ReportAccess(FindingKind kind, std::string message, const Record& record, Mem mem, uint64_t begin,
                        uint64_t end, uint64_t allowed_begin, uint64_t allowed_end) {
  Add({kind, std::move(message), record.at, block_, record.pipe, mem, true, begin, end, allowed_begin,
       allowed_end, 1});
}

void Core::Add(Finding finding) {
  finding.core = info_.kind == 1 ? "aic" : info_.kind == 2 ? "aiv" : "";
  for (Finding& f : findings_) {
    if (f.kind == finding.kind && f.at.line == finding.at.line && f.mem == finding.mem &&
        f.other.line == finding.other.line && f.missing == finding.missing &&
        std::strcmp(f.at.file, finding.at.file) == 0) {
      ++f.count;
      return;
    }
  }
  if (findings_.size() < machine_.options.max_findings) findings_.push_back(std::move(finding));
}

float* Core::Scratch(int which, size_t floats) {
  if (scratch_[which].size() < floats) scratch_[which].resize(floats);
  return scratch_[which].data();
}

}  // namespace tilewright::twin
