// The few functions through which kernel code, in whatever shared object, reaches the machine in
// libtilewright_twin.
#pragma once

#include "twin/record.h"

namespace tilewright::twin {

enum class FindingKind : uint8_t {
  Capacity,
  OutOfBounds,
  Misaligned,
  IllegalParameter,
  IllegalMemory,
  UnpairedFlag,
  RepeatedFlag,
  ReservedFlag,
  FlagRange,
  Queue,
  Assertion,
  Fault,  // the kernel's own code crashed
  WrongCore,
  IllegalEvent,
  Count
};

struct CoreInfo {
  int64_t block_idx, block_num, sub_block_idx, sub_block_num;
};

struct Region {
  uint64_t base;
  uint32_t bytes;
};

}  // namespace tilewright::twin

extern "C" {
// The core this thread plays. Outside a launch it answers block 0 of 1.
const tilewright::twin::CoreInfo* twi_core();
// Completes the record's ranges, checks it, hands it to the sinks and executes it. False: a finding, nothing
// was done.
bool twi_emit(tilewright::twin::Record* record);
// Reserves `bytes` (rounded up to 32) of an on-chip memory; beyond its capacity it reports who holds what.
tilewright::twin::Region twi_alloc(tilewright::twin::Mem mem, uint32_t bytes, const char* holder,
                                   tilewright::twin::Place at);
// Gives back all on-chip memory, as TPipe::Reset does.
void twi_release_all();
uint32_t twi_capacity(tilewright::twin::Mem mem);
void twi_finding(tilewright::twin::FindingKind kind, const char* message, tilewright::twin::Pipe pipe,
                 tilewright::twin::Place at);
}
