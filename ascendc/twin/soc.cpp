#include "soc.h"

#include <cstring>

#include "machine.h"

namespace tilewright::twin {

namespace {

constexpr uint32_t K = 1024;

// On-chip sizes: asc-devkit docs/zh/guide, architecture page of NPU 2201 (L1 512K, L0A/L0B 64K, L0C 128K, UB
// 192K, BT 1K), of which the system keeps the last 256 bytes of UB (and of L1 in mixed kernels:
// Core::Capacity); fixpipe buffer for quantisation vectors 2K: the public Ascend910B3.ini (fb0..fb3 =
// 2+1+2+2K, of which fb0 serves quantPre).
#define TW_2201_MEMORIES {0, 512 * K, 64 * K, 64 * K, 128 * K, 192 * K - 256, 1 * K, 2 * K}

constexpr Soc kSocs[] = {
    // 24 AIC, 48 AIV, 1.85 GHz: the measuring machine of asc-devkit's performance READMEs.
    {"910b1", 24, 48, 1.85, TW_2201_MEMORIES},
    // 24 AIC, 48 AIV, 1.80 GHz: public SKU tables (pto-kernels notes).
    {"910b2", 24, 48, 1.80, TW_2201_MEMORIES},
    // 20 AIC, 40 AIV, 1.80 GHz: Ascend910B3.ini.
    {"910b3", 20, 40, 1.80, TW_2201_MEMORIES},
    // 20 AIC, 40 AIV, 1.50 GHz: a public parser's test fixture; weak source.
    {"910b4", 20, 40, 1.50, TW_2201_MEMORIES},
    // One die of the two of a 910C (910_93): the same architecture; cores and clock as public SKU tables give
    // them for the 910_9382 (pto-kernels notes). No timing of it is public.
    {"910_93", 24, 48, 1.80, TW_2201_MEMORIES},
};
#undef TW_2201_MEMORIES

constexpr const char* kPipeNames[] = {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX", "ALL"};
constexpr const char* kMemNames[] = {"gm", "l1", "l0a", "l0b", "l0c", "ub", "bt", "fb"};
constexpr const char* kOpNames[] = {
    "Copy",    "CopyPad",   "Nd2Nz",    "Load2d",    "LoadTranspose", "Load3d",    "Mmad", "Fixpipe",
    "SetFlag", "WaitFlag",  "Barrier",  "ScalarGet", "ScalarSet",     "CubeOrder", "Fill", "Nz2Nd",
    "Vector",  "ReadState", "CrossSet", "CrossWait", "SyncAll",       "DataCache"};
constexpr const char* kTypeNames[] = {"none",   "float", "half",   "bfloat16", "int8",   "uint8", "int16",
                                      "uint16", "int32", "uint32", "int64",    "uint64", "int4"};
static_assert(sizeof(kPipeNames) / sizeof(char*) == kPipes);
static_assert(sizeof(kMemNames) / sizeof(char*) == kMems);
static_assert(sizeof(kOpNames) / sizeof(char*) == kOps);
static_assert(sizeof(kTypeNames) / sizeof(char*) == static_cast<int>(DType::Count));

}  // namespace

const Soc* FindSoc(const char* name) {
  for (const Soc& soc : kSocs)
    if (name != nullptr && std::strcmp(soc.name, name) == 0) return &soc;
  return nullptr;
}

std::string SocJson(const Soc& soc) {
  std::string out =
      "{\"name\": \"" + std::string(soc.name) + "\", \"cube_cores\": " + std::to_string(soc.cube_cores) +
      ", \"vector_cores\": " + std::to_string(soc.vector_cores) +
      ", \"clock_mhz\": " + std::to_string(static_cast<int>(soc.clock_ghz * 1000 + 0.5)) + ", \"bytes\": {";
  for (int m = 1; m < kMems; ++m) {
    out += std::string(m > 1 ? ", " : "") + "\"" + kMemNames[m] + "\": " + std::to_string(soc.capacity[m]);
  }
  return out + "}}";
}

// asc-devkit docs: Mmad.md (L0A/L0B 512, BT 64), Fixpipe (L0C 64), L1ToFixpipe-Buffer (FB 128), UB and L1 32,
// GM 1.
uint32_t Alignment(Mem mem) {
  switch (mem) {
    case Mem::L1:
    case Mem::UB:
      return 32;
    case Mem::L0A:
    case Mem::L0B:
      return 512;
    case Mem::L0C:
    case Mem::BT:
      return 64;
    case Mem::FB:
      return 128;
    default:
      return 1;
  }
}

const char* Name(Pipe pipe) { return kPipeNames[static_cast<int>(pipe)]; }
const char* Name(Mem mem) { return kMemNames[static_cast<int>(mem)]; }
const char* SlotName(int slot) {
  return slot < kOps ? kOpNames[slot] : Name(static_cast<VecOp>(slot - kOps));
}
const char* Name(Op op) { return kOpNames[static_cast<int>(op)]; }
const char* Name(DType type) { return kTypeNames[static_cast<int>(type)]; }

}  // namespace tilewright::twin
