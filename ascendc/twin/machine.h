// A launch (Machine) and one core of it (Core). A core completes, checks, records and executes the
// instructions it is given.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "soc.h"
#include "twin/bridge.h"
#include "twin/record.h"

namespace tilewright::twin {

struct Finding {
  FindingKind kind;
  std::string message;
  Place at;
  int block;
  Pipe pipe;
  Mem mem;
  bool has_memory;
  uint64_t begin, end, allowed_begin, allowed_end;
  uint64_t count;
};

const char* Name(FindingKind kind);

struct GmBuffer {
  std::string name;
  uint64_t base, bytes;
  bool backed;  // false: addresses only, for runs that skip data
};

// Where the bytes of a machine's records end up besides execution: counters, traces, later a scheduler.
class RecordSink {
 public:
  virtual ~RecordSink() = default;
  virtual void OnRecord(int block, const Record& record) = 0;
};

struct Options {
  bool skip_data = false;
  uint32_t max_findings = 64;
};

// What all cores of a launch share; constant while it runs.
struct Machine {
  const Soc* soc;
  Options options;
  uint32_t block_dim;
  std::vector<GmBuffer> buffers;
  RecordSink* sink = nullptr;  // called from several threads
};

// Instructions are counted, traced and charged by name: that of the Op, or of what pipe V computes.
constexpr int kSlots = kOps + kVecOps;
inline int SlotOf(const Record& r) {
  return r.op == Op::Vector ? kOps + static_cast<int>(r.vec.op) : static_cast<int>(r.op);
}
const char* SlotName(int slot);

struct Counts {
  uint64_t issued[kPipes][kSlots] = {};
  uint64_t bytes_written[kPipes][kMems] = {};
  uint64_t macs = 0;
  uint64_t peak[kMems] = {};
  void Merge(const Counts& other);
};

// 2201 is split: a cube core has L1, L0 and the pipes around them, a vector core has UB and pipe V.
enum class CoreKind : uint8_t { Unknown, Cube, Vector };
const char* Name(CoreKind kind);
// The kind of core a record needs, with the memory or pipe that says so; Unknown where both have it.
struct Need {
  CoreKind kind;
  const char* what;
};
Need NeedOf(Pipe pipe);
Need NeedOf(Mem mem);
// Whether flags of this HardEvent exist on a kind of core.
bool HasEvent(CoreKind kind, uint8_t event);

class Core {
 public:
  explicit Core(const Machine& machine);

  // A fresh core for block `block`: poisoned memories, no flags, no reservations.
  void Begin(int block);
  // Flags still set, and what else must not be left behind.
  void End();
  // Instead of End, where the kernel's own code crashed.
  void Fault(const char* what);

  bool Emit(Record& record);
  Region Reserve(Mem mem, uint32_t bytes, const char* holder, Place at);
  void ReleaseAll();
  void Report(FindingKind kind, std::string message, Pipe pipe, Place at);
  void ReportAccess(FindingKind kind, std::string message, const Record& record, Mem mem, uint64_t begin,
                    uint64_t end, uint64_t allowed_begin, uint64_t allowed_end);

  // Host address of a byte of a memory; for GM the address itself.
  uint8_t* At(Mem mem, uint64_t address) {
    return mem == Mem::GM ? reinterpret_cast<uint8_t*>(address)
                          : memory_[static_cast<int>(mem)].get() + address;
  }
  uint8_t* At(const Operand& o) { return At(o.mem, o.base); }

  const Machine& machine() const { return machine_; }
  const CoreInfo& info() const { return info_; }
  CoreState& state() { return state_; }
  // Registers that vector instructions leave their results in.
  uint64_t& Word(StateWord word) { return words_[static_cast<int>(word)]; }
  const std::vector<Finding>& findings() const { return findings_; }
  const Counts& counts() const { return counts_; }
  // Scratch for executors, kept between instructions.
  float* Scratch(int which, size_t floats);

 private:
  struct Holder {
    Mem mem;
    uint32_t base, bytes;
    const char* what;
    Place at;
  };
  struct Flag {
    bool set, internal;
    Place at;
  };
  static constexpr int kEvents = 64, kIds = 8;

  bool Flags(const Record& record);
  // The first need of a core decides its kind; a need of the other kind is reported.
  bool OnItsCore(const Record& record);
  bool Meets(const Need& need, const Record& record);
  bool EventExists(const Record& record);
  std::string SinceWhen() const;
  std::string HolderMap(Mem mem) const;
  void Add(Finding finding);

  const Machine& machine_;
  CoreInfo info_{};
  CoreState state_;
  uint64_t words_[static_cast<int>(StateWord::Count)] = {};
  uint64_t seq_ = 0;
  Place last_{"", 0};  // of the latest instruction
  CoreKind kind_ = CoreKind::Unknown;
  Place kind_at_{"", 0};
  std::unique_ptr<uint8_t[]> memory_[kMems];
  uint32_t next_[kMems] = {};
  std::vector<Holder> holders_;
  Flag flags_[kEvents][kIds] = {};
  std::vector<Finding> findings_;
  Counts counts_;
  std::vector<float> scratch_[3];
};

// The stages of Core::Emit.
void Describe(Record& record);                 // parameters -> operand ranges
bool Check(Core& core, const Record& record);  // true: fit to execute
void Execute(Core& core, Record& record);  // moves and computes; data for ScalarGet comes back in the record
bool IsNop(const Record& record);          // documented no-operations: a size or repeat of zero

void ExecuteCopy(Core& core, const Record& record);
void ExecuteCopyPad(Core& core, const Record& record);
void ExecuteNd2Nz(Core& core, const Record& record);
void ExecuteLoad2d(Core& core, const Record& record);
void ExecuteLoadTranspose(Core& core, const Record& record);
void ExecuteLoad3d(Core& core, const Record& record);
void ExecuteMmad(Core& core, const Record& record);
void ExecuteFixpipe(Core& core, const Record& record);

// Pipe V: vector/ops.h.
void DescribeVector(Record& record);
bool CheckVector(Core& core, const Record& record);
void ExecuteVector(Core& core, const Record& record);
bool IsNopVector(const Record& record);
// Bytes that the address of an operand of a vector instruction must be a multiple of.
uint32_t VectorAlignment(const Record& record, int operand);
const char* Name(VecOp op);

// The lowest and one past the highest byte an operand touches.
struct Extent {
  uint64_t begin, end;
};
Extent ExtentOf(const Operand& operand);
uint64_t BytesOf(const Operand& operand);

// Whether element `lane` of repeat `repeat` is computed.
inline bool Active(const VecArgs& v, uint32_t repeat, uint32_t lane, uint32_t lanes) {
  if (v.counter) return uint64_t{repeat} * lanes + lane < v.mask[0];
  return (v.mask[lane / 64] >> (lane % 64) & 1) != 0;
}

// Every contiguous range of bytes an operand touches: visit(first byte, bytes).
template <class Visit>
void ForEachRange(const Record& r, const Operand& o, Visit&& visit) {
  uint32_t at[kMaxDims] = {};
  for (;;) {
    int64_t offset = 0;
    for (int d = 0; d < o.dims; ++d) offset += int64_t{at[d]} * o.dim[d].stride;
    const uint64_t begin = o.base + static_cast<uint64_t>(offset);
    if (o.lane == 0) {
      visit(begin, uint64_t{o.unit});
    } else {
      const uint32_t lanes = 32u / o.lane, blocks = o.dims > 0 ? o.dim[0].count : 1;
      uint32_t first = lanes;  // of a run of active lanes within this block
      for (uint32_t i = 0; i <= lanes; ++i) {
        const bool on = i < lanes && Active(r.vec, at[1], at[0] * lanes + i, blocks * lanes);
        if (on && first == lanes) first = i;
        if (!on && first < i && first != lanes) {
          visit(begin + first * o.lane, uint64_t{i - first} * o.lane);
          first = lanes;
        }
      }
    }
    int d = 0;
    while (d < o.dims && ++at[d] == o.dim[d].count) at[d++] = 0;
    if (d == o.dims) return;
  }
}

// One line, one object.
std::string RecordJson(int block, const Record& record);
std::string FindingsJson(const std::vector<Finding>& findings);
std::string CountsJson(const Counts& counts);
std::string Escape(const std::string& text);

}  // namespace tilewright::twin
