// What a launch (Machine) is made of and what it yields: buffers, options, counts, findings.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "board.h"
#include "schedule.h"
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
  // Where two accesses or calls are concerned: the earlier one.
  Place other{nullptr, 0};
  Pipe other_pipe = Pipe::S;
  std::string missing = {};  // the synchronisation that would order the two
  const char* core = "";     // "aic", "aiv": which core of a mixed kernel's group
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
  virtual void OnRecord(int core, const Record& record) = 0;  // CoreId
};

struct Options {
  bool skip_data = false;
  bool hazards = true;     // off with skip_data: without data nothing is touched
  bool auto_sync = false;  // what CANN's compiler inserts by default: between V and V, and between S and
                           // another pipe of a vector core
  Schedule schedule = Schedule::Program;
  uint64_t seed = 0;
  TaskType task_type = TaskType::Unknown;  // of a kernel that does not say
  uint32_t max_findings = 64;
  uint64_t gm_accesses = 0;  // in which races are looked for; 0: as many as GmRoom's usual
};

// What all cores of a launch share; constant while it runs.
struct Machine {
  const Soc* soc;
  Options options;
  uint32_t block_dim;
  std::vector<uint32_t> chosen = {};  // blocks that run; empty: all
  std::vector<GmBuffer> buffers;
  Board* board = nullptr;
  RemoteStore* store = nullptr;
  class GmRoom* gm_room = nullptr;
  class Clocks* clocks = nullptr;  // null where nothing runs with data
  RecordSink* sink = nullptr;      // called from several threads
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

// The lowest and one past the highest byte an operand touches.
struct Extent {
  uint64_t begin, end;
};
Extent ExtentOf(const Operand& operand);
uint64_t BytesOf(const Operand& operand);
// The same of the active lanes alone.
Extent ExtentOf(const Record& record, const Operand& operand);
uint64_t BytesOf(const Record& record, const Operand& operand);

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
      const uint32_t lanes = o.unit / o.lane, blocks = o.dims > 0 ? o.dim[0].count : 1;
      const uint32_t elements = o.type == DType::S4 ? 2 : 1;  // of a lane; their mask bits are the same
      uint32_t first = lanes;                                 // of a run of active lanes within this block
      for (uint32_t i = 0; i <= lanes; ++i) {
        const bool on =
            i < lanes && Active(r.vec, at[1], (at[0] * lanes + i) * elements, blocks * lanes * elements);
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

}  // namespace tilewright::twin
