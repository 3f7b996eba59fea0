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
  Race,           // two accesses to the same bytes that nothing orders
  Uninitialized,  // a read of memory that nobody wrote
  Deadlock,
  CrossFlag,     // a flag between cores that is lost or raised too often
  UseAfterFree,  // of a queue's buffer
  ShortRow,      // rows below 32 B that do not lie as dense as they are read
  StaleCache,    // GM is read while what the scalar unit wrote there is still in its data cache
  Count
};

// `kind`: 0 not split (an unmixed kernel), 1 the cube core of a group, 2 one of its vector cores.
struct CoreInfo {
  int64_t block_idx, block_num, sub_block_idx, sub_block_num;
  int32_t kind;
};

// What SetFmatrix, SetLoadDataPaddingValue, SetLoadDataBoundary and SetLoadDataRepeat leave for LoadData 3D.
struct Load3dState {
  uint16_t h = 0, w = 0;
  uint8_t pad[4] = {0, 0, 0, 0};
  uint64_t pad_value = 0;
  uint32_t boundary = 0;
  uint16_t repeat_stride = 0;
  uint8_t repeat_time = 1;
  uint8_t repeat_mode = 0;
};

// What SetFixpipeNz2ndFlag, SetFixpipePreQuantFlag and SetFixPipeConfig leave for DataCopy out of L0C.
struct FixpipeState {
  uint16_t nd = 1, src_nd = 0, dst_nd = 0;
  uint64_t scalar = 0;
  Operand scales{};  // in the fixpipe buffer; of no use before scales_set
  bool nd_set = false, scalar_set = false, scales_set = false;
};

// Registers of the scalar unit that one API call sets and later ones read, and the TPipe in use.
struct CoreState {
  uint64_t mask[2] = {~uint64_t{0}, ~uint64_t{0}};
  bool counter = false;  // Counter mode
  Atomic atomic = Atomic::None;
  DType atomic_type = DType::None;
  uint64_t deq_scale = 0;
  bool saturate = false;  // SetSaturationFlag: FLOAT
  bool truncate = false;  // SetSaturationFlag: CAST, switched off
  Load3dState load3d;
  FixpipeState fixpipe;
  bool pad_set = false;  // SetPadValue was called, with pad_value
  uint64_t pad_value = 0;
  void* pipe = nullptr;
  bool destroyed = false;  // the TPipe before was, with all that it had under way
  bool ordered = false;    // WaitPreBlock has been called
};

// KERNEL_TASK_TYPE_DEFAULT: which cores a kernel runs on.
enum class TaskType : uint8_t { Unknown, AicOnly, AivOnly, Mix10, Mix01, Mix11, Mix12 };

struct Region {
  uint64_t base;
  uint32_t bytes;
};

}  // namespace tilewright::twin

extern "C" {
// The core this thread plays. Outside a launch it answers block 0 of 1.
const tilewright::twin::CoreInfo* twi_core();
tilewright::twin::CoreState* twi_state();
// The kernel says which cores it runs on; in a mixed kernel each core goes on with its own CoreInfo.
void twi_task_type(tilewright::twin::TaskType type, tilewright::twin::Place at);
// Text printed by the kernel, and a failed assertion, after which the core does nothing more.
void twi_print(const char* text);
void twi_assert(const char* text, tilewright::twin::Place at);
// Copies bytes as they are now, without being an instruction; false where they do not exist.
bool twi_peek(tilewright::twin::Mem mem, uint64_t address, uint32_t bytes, void* into);
// GetSystemCycle: ticks of the 50 MHz counter.
uint64_t twi_system_cycle();
// Completes the record's ranges, checks it, hands it to the sinks and executes it. False: a finding, nothing
// was done.
bool twi_emit(tilewright::twin::Record* record);
// Reserves `bytes` (rounded up to 32) of an on-chip memory; beyond its capacity it reports who holds what.
tilewright::twin::Region twi_alloc(tilewright::twin::Mem mem, uint32_t bytes, const char* holder,
                                   tilewright::twin::Place at);
// Gives back all on-chip memory, as TPipe::Reset does.
void twi_release_all();
// A queue's buffer is free (released) or in use.
void twi_release(tilewright::twin::Mem mem, uint64_t begin, uint64_t end, bool released,
                 tilewright::twin::Place at);
// A queue that was misused hands out these bytes: what happened to them before counts no more.
void twi_forget(tilewright::twin::Mem mem, uint64_t begin, uint64_t end);
// Whether this core is (1) the cube core or (2) a vector core; asking makes an unmixed kernel a mixed one.
bool twi_is(int32_t kind, tilewright::twin::Place at);
uint32_t twi_capacity(tilewright::twin::Mem mem);
void twi_finding(tilewright::twin::FindingKind kind, const char* message, tilewright::twin::Pipe pipe,
                 tilewright::twin::Place at);
}
