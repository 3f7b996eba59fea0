// What one AscendC API call becomes: an instruction on a pipe, its operands as byte ranges, its parameters,
// its source place. API -> Record -> machine: everything that runs, checks, schedules or times a kernel reads
// these and nothing else.
#pragma once

#include <cstdint>

#include "twin/vec_op.h"

namespace tilewright::twin {

enum class Pipe : uint8_t { S, V, M, MTE1, MTE2, MTE3, FIX, ALL, Count };
enum class Mem : uint8_t { GM, L1, L0A, L0B, L0C, UB, BT, FB, Count };
enum class DType : uint8_t { None, F32, F16, BF16, S8, U8, S16, U16, S32, U32, S64, U64, S4, Count };
enum class Op : uint8_t {
  Copy,           // blocks of bytes, also half -> float on the way to the bias table
  CopyPad,        // rows of any length, padded to 32 B on chip
  Nd2Nz,          // row-major GM matrix -> fractals in L1
  Load2d,         // L1 or GM fractals -> L0
  LoadTranspose,  // L1 squares of fractals -> L0, transposed
  Load3d,         // L1 feature map -> L0, image to column
  Mmad,
  Fixpipe,
  SetFlag,
  WaitFlag,
  Barrier,
  ScalarGet,
  ScalarSet,
  CubeOrder,  // SetMMRowMajor / SetMMColumnMajor
  Fill,       // InitConstValue: L1 or L0 filled with one value
  Nz2Nd,      // fractals in UB -> rows in GM
  Vector,     // everything pipe V computes; VecArgs says what
  ReadState,  // the scalar unit reads what a vector instruction left in a register
  CrossSet,   // CrossCoreSetFlag
  CrossWait,  // CrossCoreWaitFlag
  SyncAll,
  DataCache,  // DataCacheCleanAndInvalid
  Count
};
// What later transfers to GM do with the value already there.
enum class Atomic : uint8_t { None, Add, Max, Min };

constexpr int kPipes = static_cast<int>(Pipe::Count);
constexpr int kMems = static_cast<int>(Mem::Count);
constexpr int kOps = static_cast<int>(Op::Count);
constexpr int kMaxOperands = 6;
constexpr int kMaxDims = 3;

// The line of the kernel that made the call.
struct Place {
  const char* file;
  int32_t line;
  static constexpr Place Here(const char* f = __builtin_FILE(), int l = __builtin_LINE()) { return {f, l}; }
};

// `count` repetitions, `stride` bytes apart.
struct Dim {
  uint32_t count;
  int64_t stride;
};

// One operand: `unit` contiguous bytes at `base` + every combination of the dims. Filled by the machine from
// the parameters; the API gives memory, type, base and the buffer it was cut from.
struct Operand {
  uint64_t base;    // byte address in `mem`; for GM the host address
  uint64_t lo, hi;  // bytes of the buffer the tensor belongs to; for GM an address in it, and 0
  Dim dim[kMaxDims];
  uint32_t unit;
  Mem mem;
  DType type;
  bool write;
  uint8_t dims;
  // Not 0: `unit` is a block and dim[0] runs over those of one repeat, of whose elements, `lane` bytes each
  // (two in one byte of S4), only those in the record's mask are touched.
  uint8_t lane;
  bool bypass;  // of GM: L2 keeps nothing of it (SetL2CacheHint)
};

struct CopyParams {  // lengths and steps (start to start) in bytes
  uint32_t count;
  uint32_t bytes;
  int64_t src_step, dst_step;
  uint32_t requested;  // bytes the kernel asked for before hardware rounds down to whole 32 B blocks
};
struct CopyPadParams {
  uint32_t count;
  uint32_t bytes;  // of data per row
  int64_t src_step, dst_step;
  uint64_t value;       // of padding, low bytes
  uint8_t left, right;  // padding elements
  bool pad;
};
struct Nd2NzArgs {
  uint32_t nd, n, d, src_nd, src_d, dst_c0, dst_n, dst_nd;
};
struct Load2dParams {  // in fractals of 512 B; also LoadTranspose, whose start and src_stride count squares
  uint32_t start, repeat, src_stride, dst_gap, frac_gap;
  bool transpose, decrease;
};
struct Load3dParams {
  uint16_t h, w, c, k_ext, m_ext, k_start, m_start;
  uint16_t filter_w, filter_h;
  uint8_t pad[4];  // left, right, top, bottom
  uint8_t stride_w, stride_h, dilation_w, dilation_h;
  bool transpose;
  uint64_t pad_value;
  uint64_t map;            // where the feature map starts in L1; the operand starts at the first byte read
  uint32_t boundary;       // bytes of L1, beyond which reading goes on at its start; 0: none
  uint16_t repeat_stride;  // from repeat to repeat, in 16 rows or in blocks of 32 B
  uint8_t repeat_time;
  uint8_t repeat_mode;  // 0: down the rows, 1: along the columns
};
enum class CInit : uint8_t { Zero, Accumulate, Bias };
struct MmadArgs {
  uint16_t m, n, k;
  CInit init;
  uint8_t unit_flag;
  bool k_align16;
};
enum class Quant : uint8_t {
  None,
  F32ToF16,
  F32ToBF16,
  S32ToF16,
  S32ToF16Vector,
  F32ToB8,
  F32ToB8Vector,
  S32ToB8,
  S32ToB8Vector
};
struct FixpipeArgs {
  uint32_t n, m, src_stride, dst_stride;
  uint32_t nd, src_nd, dst_nd;
  uint64_t scalar;
  Quant quant;
  uint8_t unit_flag;
  bool relu, to_nd, channel_split;
};
struct FlagParams {
  int32_t id;
  uint8_t event;  // HardEvent
  Pipe from, to;
  bool internal;  // issued by a queue, not written by the kernel's author
};
struct BarrierParams {
  Pipe pipe;
};
struct ScalarParams {
  uint64_t bits;
  uint8_t size;
  bool uncached;  // past the data cache
};
struct OrderParams {
  bool row_major;
};
// Pipe V. `mask` holds the lanes of one repeat; with `counter`, mask[0] counts elements over all repeats. The
// strides are those of dst, src0, src1. What else an instruction needs stands in mode, scalar and arg, as
// said beside its VecOp.
struct VecArgs {
  VecOp op;
  uint8_t mode;
  bool counter;
  bool saturate;   // SetSaturationFlag<FLOAT>(true): results in half end at its largest value, NaN becomes 0
  bool truncate;   // SetSaturationFlag<CAST>(false): integers lose their high bits
  uint16_t lanes;  // elements of one repeat, masked or not
  uint32_t repeat;
  uint64_t mask[2];
  uint16_t block_stride[3], repeat_stride[3];  // in 32 B
  uint64_t scalar;                             // bits, in the type of the source
  uint32_t arg[6];
};
// TransDataTo5HD: byte addresses of the 16 blocks read and written; the operands hold the same as ranges.
struct BlockLists {
  VecArgs vec;
  uint32_t dst[16], src[16];
};
struct CrossParams {
  uint8_t mode;  // 0: all cores of one kind; 1: the two vector cores of a group; 2: a cube core and its
                 // vector cores; 3: through global memory, `key` names the signal
  uint8_t id;
  Pipe pipe;
  bool internal;
  bool vector_only;  // SyncAll: only the vector cores of a mixed kernel meet
  uint32_t cores;    // SyncAll: how many meet; 0: all
  uint32_t key;
};
struct StateParams {
  uint8_t what;  // of twin/vec_op.h: StateWord
  uint64_t bits;
};
struct CacheParams {
  bool entire;  // all of the data cache, whatever the address
};
struct FillParams {  // blocks of `bytes`, `step` apart
  uint32_t count, bytes;
  int64_t step;
  uint64_t value;
};
struct Nz2NdArgs {  // the Nz2NdParamsFull of the documentation
  uint32_t nd, n, d, src_nd, src_n, dst_d, dst_nd;
};

struct Record {
  Op op;
  Pipe pipe;
  uint8_t operands;
  bool nop;       // a size or repeat of 0: issued and counted, nothing moves; its ranges are not filled
  Atomic atomic;  // how a transfer to GM combines with what is there
  uint64_t seq;   // program order within the core
  Place at;
  Operand operand[kMaxOperands];
  union {
    CopyParams copy;
    CopyPadParams pad;
    Nd2NzArgs nd2nz;
    Load2dParams load2d;
    Load3dParams load3d;
    MmadArgs mmad;
    FixpipeArgs fix;
    FlagParams flag;
    BarrierParams barrier;
    ScalarParams scalar;
    OrderParams order;
    VecArgs vec;
    BlockLists lists;
    CrossParams cross;
    StateParams state;
    CacheParams cache;
    FillParams fill;
    Nz2NdArgs nz2nd;
  };
};

constexpr uint32_t SizeOf(DType t) {
  switch (t) {
    case DType::S8:
    case DType::U8:
      return 1;
    case DType::F16:
    case DType::BF16:
    case DType::S16:
    case DType::U16:
      return 2;
    case DType::F32:
    case DType::S32:
    case DType::U32:
      return 4;
    case DType::S64:
    case DType::U64:
      return 8;
    default:
      return 0;
  }
}

// Elements in the 32 B of a fractal's row; two of S4 share a byte. 0: the cube does not take the type.
constexpr uint32_t ColumnsOf(DType t) {
  if (t == DType::S4) return 64;
  return SizeOf(t) == 0 || SizeOf(t) > 4 ? 0 : 32 / SizeOf(t);
}

constexpr uint32_t CeilDiv(uint32_t a, uint32_t b) { return (a + b - 1) / b; }
constexpr uint32_t AlignUp(uint32_t a, uint32_t b) { return CeilDiv(a, b) * b; }

}  // namespace tilewright::twin
