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

constexpr const char* kKindNames[] = {"capacity",       "out-of-bounds", "misaligned",    "illegal-parameter",
                                      "illegal-memory", "unpaired-flag", "repeated-flag", "reserved-flag",
                                      "flag-range",     "queue",         "assertion",     "fault",
                                      "wrong-core",     "illegal-event"};
static_assert(sizeof(kKindNames) / sizeof(char*) == static_cast<int>(FindingKind::Count));

std::string FlagName(const FlagParams& f) {
  return std::string("HardEvent::") + kEventNames[f.event] + " with event id " + std::to_string(f.id);
}

std::string PlaceName(Place at) { return std::string(at.file) + ":" + std::to_string(at.line); }

}  // namespace

const char* Name(FindingKind kind) { return kKindNames[static_cast<int>(kind)]; }

void Counts::Merge(const Counts& other) {
  for (int p = 0; p < kPipes; ++p) {
    for (int o = 0; o < kSlots; ++o) issued[p][o] += other.issued[p][o];
    for (int m = 0; m < kMems; ++m) bytes_written[p][m] += other.bytes_written[p][m];
  }
  macs += other.macs;
  for (int m = 0; m < kMems; ++m) peak[m] = std::max(peak[m], other.peak[m]);
}

Core::Core(const Machine& machine) : machine_(machine) {
  for (int m = 1; m < kMems; ++m) memory_[m] = std::make_unique<uint8_t[]>(machine.soc->capacity[m]);
}

void Core::Begin(int block) {
  info_ = {block, machine_.block_dim, 0, 1, 0};
  state_ = {};
  seq_ = 0;
  last_ = {"", 0};
  kind_ = CoreKind::Unknown;
  if (!machine_.options.skip_data)
    for (int m = 1; m < kMems; ++m) std::memset(memory_[m].get(), kPoison, machine_.soc->capacity[m]);
  std::memset(flags_, 0, sizeof flags_);
  ReleaseAll();
}

void Core::End() {
  for (int e = 0; e < kEvents; ++e) {
    for (int id = 0; id < kIds; ++id) {
      const Flag& flag = flags_[e][id];
      if (!flag.set || flag.internal) continue;
      FlagParams params{};
      params.event = static_cast<uint8_t>(e);
      params.id = id;
      Report(
          FindingKind::UnpairedFlag,
          "SetFlag<" + FlagName(params) + "> is never waited for; the next kernel on this core finds it set",
          AscendC::PipesOf(static_cast<AscendC::HardEvent>(e)).from, flag.at);
    }
  }
}

void Core::Fault(const char* what) {
  Report(FindingKind::Fault,
         std::string("the kernel's own code ended in ") + what + ", after the call on this line", Pipe::S,
         last_);
}

bool Core::Emit(Record& record) {
  record.seq = seq_++;
  last_ = record.at;
  auto& issued = counts_.issued[static_cast<int>(record.pipe)][SlotOf(record)];
  ++issued;
  record.nop = IsNop(record);
  if (!record.nop) Describe(record);
  if (machine_.sink != nullptr) machine_.sink->OnRecord(static_cast<int>(info_.block_idx), record);
  if (record.nop) return true;
  if (record.op == Op::SetFlag || record.op == Op::WaitFlag) return Flags(record);
  if (record.operands > 0 && !Check(*this, record)) return false;
  if (!OnItsCore(record)) return false;
  if (record.operands == 0 && record.op != Op::ReadState) return true;
  for (int i = 0; i < record.operands; ++i) {
    const Operand& o = record.operand[i];
    if (o.mem == Mem::GM) continue;
    uint64_t& peak = counts_.peak[static_cast<int>(o.mem)];
    peak = std::max(peak, ExtentOf(o).end);
  }
  if (record.operands > 0 && record.operand[0].write)
    counts_.bytes_written[static_cast<int>(record.pipe)][static_cast<int>(record.operand[0].mem)] +=
        BytesOf(record.operand[0]);
  if (record.op == Op::Mmad) counts_.macs += uint64_t{record.mmad.m} * record.mmad.n * record.mmad.k;
  if (!machine_.options.skip_data || record.op == Op::ScalarGet || record.op == Op::ReadState)
    Execute(*this, record);
  return true;
}

bool Core::Flags(const Record& record) {
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
  if (set) {
    if (flag.set) {
      Report(FindingKind::RepeatedFlag,
             "SetFlag<" + FlagName(f) + "> again without a WaitFlag since the one at " + PlaceName(flag.at),
             record.pipe, record.at);
      return false;
    }
    flag = {true, f.internal, record.at};
    return true;
  }
  if (!flag.set) {
    Report(
        FindingKind::UnpairedFlag,
        "WaitFlag<" + FlagName(f) + "> has no SetFlag before it: pipe " + Name(f.to) + " would wait for ever",
        record.pipe, record.at);
    return false;
  }
  flag.set = false;
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

Region Core::Reserve(Mem mem, uint32_t bytes, const char* holder, Place at) {
  const int m = static_cast<int>(mem);
  const uint32_t base = next_[m], rounded = AlignUp(bytes, 32);
  const uint64_t end = uint64_t{base} + rounded;
  holders_.push_back({mem, base, rounded, holder, at});
  const uint32_t capacity = machine_.soc->capacity[m];
  if (end > capacity && mem != Mem::GM) {
    Finding f{FindingKind::Capacity,
              "",
              at,
              static_cast<int>(info_.block_idx),
              Pipe::S,
              mem,
              true,
              base,
              end,
              0,
              capacity,
              1};
    f.message = std::string(holder) + " needs " + std::to_string(rounded) + " bytes of " + Name(mem) +
                ", which has " + std::to_string(capacity) + " and " +
                std::to_string(capacity > base ? capacity - base : 0) + " left. " + HolderMap(mem);
    Add(std::move(f));
  }
  next_[m] = static_cast<uint32_t>(std::min<uint64_t>(end, UINT32_MAX));
  counts_.peak[m] = std::max(counts_.peak[m], end);
  return {base, rounded};
}

void Core::ReleaseAll() {
  holders_.clear();
  std::memset(next_, 0, sizeof next_);
}

std::string Core::HolderMap(Mem mem) const {
  std::string out = "Held:";
  for (const Holder& h : holders_) {
    if (h.mem != mem) continue;
    out += " [" + std::to_string(h.base) + ".." + std::to_string(uint64_t{h.base} + h.bytes) + ") " + h.what +
           " " + PlaceName(h.at) + ";";
  }
  out.back() = '.';
  return out;
}

void Core::Report(FindingKind kind, std::string message, Pipe pipe, Place at) {
  Add({kind, std::move(message), at, static_cast<int>(info_.block_idx), pipe, Mem::GM, false, 0, 0, 0, 0, 1});
}

void Core::ReportAccess(FindingKind kind, std::string message, const Record& record, Mem mem, uint64_t begin,
                        uint64_t end, uint64_t allowed_begin, uint64_t allowed_end) {
  Add({kind, std::move(message), record.at, static_cast<int>(info_.block_idx), record.pipe, mem, true, begin,
       end, allowed_begin, allowed_end, 1});
}

void Core::Add(Finding finding) {
  for (Finding& f : findings_) {
    if (f.kind == finding.kind && f.at.line == finding.at.line && f.mem == finding.mem &&
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

void Execute(Core& core, Record& r) {
  switch (r.op) {
    case Op::Copy:
      return ExecuteCopy(core, r);
    case Op::CopyPad:
      return ExecuteCopyPad(core, r);
    case Op::Nd2Nz:
      return ExecuteNd2Nz(core, r);
    case Op::Load2d:
      return ExecuteLoad2d(core, r);
    case Op::LoadTranspose:
      return ExecuteLoadTranspose(core, r);
    case Op::Load3d:
      return ExecuteLoad3d(core, r);
    case Op::Mmad:
      return ExecuteMmad(core, r);
    case Op::Fixpipe:
      return ExecuteFixpipe(core, r);
    case Op::ScalarGet:
      r.scalar.bits = 0;
      for (const GmBuffer& b : core.machine().buffers)
        if (!b.backed && r.operand[0].mem == Mem::GM && r.operand[0].base - b.base < b.bytes) return;
      std::memcpy(&r.scalar.bits, core.At(r.operand[0]), r.scalar.size);
      return;
    case Op::ScalarSet:
      std::memcpy(core.At(r.operand[0]), &r.scalar.bits, r.scalar.size);
      return;
    case Op::Vector:
      return ExecuteVector(core, r);
    case Op::ReadState:
      r.state.bits = core.Word(static_cast<StateWord>(r.state.what));
      return;
    default:
      return;
  }
}

}  // namespace tilewright::twin
