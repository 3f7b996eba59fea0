// What instructions cost: constants of the machine as data, and the cost of one record by them.
#pragma once

#include <cstdint>
#include <string>

#include "machine.h"

namespace tilewright::twin::timing {

// Every constant of the model. Cycles are of the core's clock, rates in bytes a cycle of one core, unless the
// unit in costs.cpp says otherwise.
enum class Const : uint8_t {
  ScalarCall,    // scalar unit, one API call
  ScalarAccess,  // GetValue or SetValue of UB
  ScalarGm,      // GetValue of GM
  QueueDepth,    // instructions waiting in front of one pipe
  FlagLatency,   // SetFlag's to WaitFlag's pipe
  MmadHead,      // between Mmads back to back
  MmadLatency,   // from the last fractal until the result is seen
  Mte1L0a,
  Mte1L0b,
  Mte1Table,  // L1 to the bias table or the fixpipe buffer
  Mte1Issue,
  Mte1Latency,
  Mte1Latency3d,
  Mte1Contended,  // factor on MTE1 while MTE2 writes L1
  Mte2Issue,
  Mte2Row,  // each row or burst
  Mte2L1Hit,
  Mte2UbHit,
  Mte2Miss,
  Mte2Latency,
  LineBytes,    // a burst pays for every line it touches
  BypassBurst,  // bytes lost per burst that goes around L2
  Mte3Rate,
  Mte3Row,
  Mte3Latency,
  FixGm,
  FixL1,  // elements a cycle
  FixRow,
  FixLatency,
  VectorBytes,
  VectorFixed,
  VectorReadWrite,  // extra beats of a repeat whose reads and delayed writes meet in a bank
  VectorSlow,       // elements a cycle of Exp, Ln, Sqrt, Div
  SortRate,
  GatherRate,
  HotLines,      // bytes a cycle of all cores together when they read the same addresses in step
  L2Bytes,       // capacity
  L2Rate,        // TB/s, all cores
  HbmRate,       // TB/s
  HbmWriteBack,  // cost of a byte written back, in bytes read
  LaunchBase,    // us
  LaunchBlock,   // us a block
  CoreStart,     // cycles before the first and after the last instruction of a core
  Count
};
constexpr int kConsts = static_cast<int>(Const::Count);

struct ConstInfo {
  const char* name;
  double value;
  const char* unit;
  const char* source;
};
const ConstInfo& InfoOf(Const which);

// The constants of one run: those of the table, with some replaced.
class Costs {
 public:
  Costs();
  double operator[](Const which) const { return value_[static_cast<int>(which)]; }
  // "name=value,name=value"; the empty string changes nothing. Returns what is wrong, or "".
  std::string Override(const char* text);

 private:
  double value_[kConsts];
};

// How the memory beyond the core behaves towards one transfer.
struct Supply {
  double miss = 0;      // fraction of its bytes that come from HBM
  double hbm_slow = 1;  // factors by which the shared HBM and L2 are slower than one core alone finds them
  double l2_slow = 1;
  double hot_rate = 0;  // not 0: bytes a cycle of this core, as other cores read the same lines in step
};

struct Cost {
  double occupancy = 0;  // of the pipe
  double latency = 0;    // after it, until the result is visible
  double miss = 0;       // part of the occupancy that an HBM of its own would take for the missed bytes
  double hit = 0;        // the same of L2
  double from_hbm = 0, from_l2 = 0;  // bytes, whole lines where a burst is not aligned to them
  bool writes_gm = false;
};

Cost CostOf(const Record& record, const Costs& costs, const Supply& supply);

// Beats that one repeat of a vector instruction takes for its operands' banks; averages over all repeats.
double BankBeats(const Record& record, double read_write);

std::string ConstantsJson();

}  // namespace tilewright::twin::timing
