#include "vector/ops.h"

#include "vector/elementwise.h"

namespace tilewright::twin {

namespace {

constexpr VecTraits Elementwise(const char* name, void (*execute)(Core&, const Record&)) {
  return {name, DescribeElementwise, CheckElementwise, execute, AlignmentElementwise};
}

constexpr VecTraits kTraits[] = {
    {"None"},
    Elementwise("Add", ExecuteBinary),
    Elementwise("Sub", ExecuteBinary),
    Elementwise("Mul", ExecuteBinary),
    Elementwise("Div", ExecuteBinary),
    Elementwise("Max", ExecuteBinary),
    Elementwise("Min", ExecuteBinary),
    Elementwise("And", ExecuteBinary),
    Elementwise("Or", ExecuteBinary),
    Elementwise("MulAddDst", ExecuteMulAdd),
    Elementwise("AddRelu", ExecuteBinary),
    Elementwise("SubRelu", ExecuteBinary),
    Elementwise("FusedMulAdd", ExecuteMulAdd),
    Elementwise("FusedMulAddRelu", ExecuteMulAdd),
    Elementwise("Adds", ExecuteScalar),
    Elementwise("Muls", ExecuteScalar),
    Elementwise("Maxs", ExecuteScalar),
    Elementwise("Mins", ExecuteScalar),
    Elementwise("Axpy", ExecuteMulAdd),
    Elementwise("LeakyRelu", ExecuteScalar),
    Elementwise("ShiftLeft", ExecuteScalar),
    Elementwise("ShiftRight", ExecuteScalar),
    Elementwise("Abs", ExecuteUnary),
    Elementwise("Exp", ExecuteUnary),
    Elementwise("Ln", ExecuteUnary),
    Elementwise("Sqrt", ExecuteUnary),
    Elementwise("Rsqrt", ExecuteUnary),
    Elementwise("Reciprocal", ExecuteUnary),
    Elementwise("Relu", ExecuteUnary),
    Elementwise("Not", ExecuteUnary),
    Elementwise("Duplicate", ExecuteFill),
    Elementwise("CreateVecIndex", ExecuteFill),
    Elementwise("Compare", ExecuteCompare),
    Elementwise("Compares", ExecuteCompare),
    Elementwise("CompareToMask", ExecuteCompare),
    Elementwise("Select", ExecuteSelect),
    Elementwise("Cast", ExecuteCast),
    Elementwise("CastDeq", ExecuteCastDeq),
    Elementwise("AddReluCast", ExecuteToCast),
    Elementwise("SubReluCast", ExecuteToCast),
    Elementwise("MulCast", ExecuteToCast),
    Elementwise("AddDeqRelu", ExecuteToCast),
    Elementwise("SetCmpMask", ExecuteCmpMask),
    Elementwise("GetCmpMask", ExecuteCmpMask),
    {"WholeReduceSum"},
    {"WholeReduceMax"},
    {"WholeReduceMin"},
    {"BlockReduceSum"},
    {"BlockReduceMax"},
    {"BlockReduceMin"},
    {"PairReduceSum"},
    {"RepeatReduceSum"},
    {"ReduceSum"},
    {"ReduceMax"},
    {"ReduceMin"},
    {"Sort32"},
    {"RpSort16"},
    {"MrgSort"},
    {"ProposalConcat"},
    {"ProposalExtract"},
    {"Gather"},
    {"Gatherb"},
    {"GatherMask"},
    {"Scatter"},
    {"Brcb"},
    {"Transpose"},
    {"TransDataTo5HD"},
    {"CopyRepeat"},
    {"BilinearInterpolation"},
};
static_assert(sizeof(kTraits) / sizeof(VecTraits) == kVecOps);

}  // namespace

const VecTraits& TraitsOf(VecOp op) { return kTraits[static_cast<int>(op)]; }

const char* Name(VecOp op) { return TraitsOf(op).name; }

void DescribeVector(Record& r) {
  if (const auto describe = TraitsOf(r.vec.op).describe) describe(r);
}

bool CheckVector(Core& core, const Record& r) {
  const VecTraits& traits = TraitsOf(r.vec.op);
  if (traits.execute == nullptr) {
    core.Report(FindingKind::IllegalParameter, std::string(traits.name) + " is not in this twin", r.pipe,
                r.at);
    return false;
  }
  return traits.check == nullptr || traits.check(core, r);
}

void ExecuteVector(Core& core, const Record& r) { TraitsOf(r.vec.op).execute(core, r); }

uint32_t VectorAlignment(const Record& r, int operand) {
  const auto alignment = TraitsOf(r.vec.op).alignment;
  return alignment == nullptr ? 32 : alignment(r, operand);
}

// Documented: a repeat of 0, or a count of 0, does nothing.
bool IsNopVector(const Record& r) { return r.vec.repeat == 0 || (r.vec.counter && r.vec.mask[0] == 0); }

}  // namespace tilewright::twin
