// Pipe V as a table: what each VecOp is called and the functions that describe, check and compute it.
#pragma once

#include "machine.h"

namespace tilewright::twin {

struct VecTraits {
  const char* name;
  void (*describe)(Record& record) = nullptr;                 // parameters -> operand ranges
  bool (*check)(Core& core, const Record& record) = nullptr;  // reports what the documentation forbids
  void (*execute)(Core& core, const Record& record) = nullptr;
  uint32_t (*alignment)(const Record& record, int operand) = nullptr;  // null: 32 bytes
  void (*resolve)(Core& core, Record& record) = nullptr;               // narrows ranges that memory decides
};

// Null functions: an instruction that this build of the twin does not have.
const VecTraits& TraitsOf(VecOp op);

}  // namespace tilewright::twin
