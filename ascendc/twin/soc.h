// Parameter sets of the 910B line, as data.
#pragma once

#include <cstdint>
#include <string>

#include "twin/record.h"

namespace tilewright::twin {

struct Soc {
  const char* name;
  uint32_t cube_cores, vector_cores;
  double clock_ghz;
  uint32_t capacity[kMems];  // bytes, indexed by Mem; GM 0
};

const Soc* FindSoc(const char* name);
std::string SocJson(const Soc& soc);

// Address alignment of an operand in each memory, in bytes.
uint32_t Alignment(Mem mem);

const char* Name(Pipe pipe);
const char* Name(Mem mem);
const char* Name(Op op);
const char* Name(DType type);

}  // namespace tilewright::twin
