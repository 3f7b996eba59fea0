// Who last wrote and read every byte of a core's on-chip memories, and whether an access has to wait for
// them.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "order.h"
#include "soc.h"
#include "twin/record.h"

namespace tilewright::twin {

enum class Hazard : uint8_t { None, Raw, War, Waw };
const char* Name(Hazard hazard);

// Earlier accesses of one pipe that nothing orders before a later one.
struct Conflict {
  Hazard hazard = Hazard::None;
  uint32_t index = 0;           // of the latest of them
  uint64_t begin = 0, end = 0;  // from the first to the last byte concerned
};

// What an operand's access showed.
struct Access {
  bool conflicts = false;
  Conflict with_read[kPipes], with_write[kPipes];  // by the pipe of the earlier access
  uint64_t bytes = 0, undefined = 0;               // read bytes, and those of them that were never written
  uint64_t undefined_begin = 0, undefined_end = 0;
  bool padding = false;  // an undefined byte is what a short row of DataCopyPad left behind
};

// What hazards and the adversarial schedule must know about an instruction after it is gone.
struct Site {
  Place at;
  uint16_t slot;    // SlotName(slot) is its name
  bool unit_flag;   // hands L0C over by unit flags
  bool small_tile;  // an Mmad that the hardware does not order against the next one
};
Site SiteOf(const Record& record);

// Whether the hardware itself keeps a later access on `pipe` behind an earlier one.
bool HardwareOrders(Hazard hazard, Mem mem, Pipe earlier, const Site& before, Pipe later, const Site& after);

class Shadow {
 public:
  explicit Shadow(const Soc& soc);
  void Reset();

  // One operand of instruction `index` of its pipe, which starts when `clock` is known.
  Access Touch(const Record& record, int operand, uint32_t index, const Clock& clock,
               const std::vector<Site>* sites);
  // An instruction that was refused would have written here: what reads it later is no fault of its own.
  void Forgive(const Record& record);
  // Bytes that count as written by nobody in particular.
  void Forget(Mem mem, uint64_t begin, uint64_t end);

 private:
  // Indices count from 1, so that 0 says nobody.
  struct Cell {
    uint32_t read[kPipes];
    uint32_t write;
    Pipe write_pipe;
    bool defined;  // holds what somebody wrote
    bool padding;  // written, but with nothing in particular
  };
  static constexpr uint32_t kGrain = 32;
  struct Memory {
    std::vector<Cell> cells;                                      // one for 32 bytes
    std::vector<bool> split;                                      // the bytes of which differ
    std::unordered_map<uint32_t, std::unique_ptr<Cell[]>> bytes;  // their cells
  };
  struct Visitor;

  void Define(Memory& memory, uint64_t begin, uint64_t end);
  void Walk(Memory& memory, uint64_t begin, uint64_t bytes, Visitor& visitor);

  Memory memory_[kMems];
};

}  // namespace tilewright::twin
