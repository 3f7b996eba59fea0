// The instructions of pipe V, by the name under which counts, traces and the cost model know them.
#pragma once

#include <cstdint>

namespace tilewright::twin {

enum class VecOp : uint8_t {
  None,
  // Elementwise: vector_unary.h, vector_binary.h, vector_cast.h, vector_select.h.
  Add,
  Sub,
  Mul,
  Div,
  Max,
  Min,
  And,
  Or,
  MulAddDst,  // dst += src0 * src1
  AddRelu,
  SubRelu,
  FusedMulAdd,  // dst = src0 * dst + src1
  FusedMulAddRelu,
  Adds,
  Muls,
  Maxs,
  Mins,
  Axpy,  // dst += src * scalar
  LeakyRelu,
  ShiftLeft,
  ShiftRight,
  Abs,
  Exp,
  Ln,
  Sqrt,
  Rsqrt,
  Reciprocal,
  Relu,
  Not,
  Duplicate,
  CreateVecIndex,
  Compare,
  Compares,
  CompareToMask,  // into the CMPMASK register
  Select,
  Cast,
  CastDeq,  // with the deq scale
  AddReluCast,
  SubReluCast,
  MulCast,
  AddDeqRelu,
  SetCmpMask,  // 16 bytes into the CMPMASK register
  GetCmpMask,
  // Across lanes and addresses: vector_reduce.h, vector_sort.h, vector_gather.h, vector_move.h. Region
  // proposals (RpSort16, ProposalConcat, ProposalExtract) and Scatter are not on 2201. Strides of a
  // reduction's destination count its results.
  WholeReduceSum,
  WholeReduceMax,
  WholeReduceMin,
  BlockReduceSum,
  BlockReduceMax,
  BlockReduceMin,
  PairReduceSum,
  RepeatReduceSum,
  ReduceSum,
  ReduceMax,
  ReduceMin,
  Sort32,
  RpSort16,
  MrgSort,
  ProposalConcat,
  ProposalExtract,
  Gather,
  Gatherb,
  GatherMask,
  Scatter,
  Brcb,
  Transpose,
  TransDataTo5HD,
  CopyRepeat,
  BilinearInterpolation,
  Count
};
constexpr int kVecOps = static_cast<int>(VecOp::Count);

// What vector instructions leave in registers of the scalar unit's.
enum class StateWord : uint8_t {
  AccValue,     // GetAccVal
  ReduceValue,  // GetReduceMaxMinCount
  ReduceIndex,
  RsvdCount,  // GatherMask's count of kept elements
  MrgSort0,   // GetMrgSortResult: elements taken of each list
  MrgSort1,
  MrgSort2,
  MrgSort3,
  CmpMask0,  // GetCmpMask
  CmpMask1,
  Count
};

}  // namespace tilewright::twin
