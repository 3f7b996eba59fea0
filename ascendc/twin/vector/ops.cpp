#include "vector/ops.h"

namespace tilewright::twin {

namespace {

constexpr VecTraits kTraits[] = {
    {"None"},
    {"Add"},
    {"Sub"},
    {"Mul"},
    {"Div"},
    {"Max"},
    {"Min"},
    {"And"},
    {"Or"},
    {"MulAddDst"},
    {"AddRelu"},
    {"SubRelu"},
    {"FusedMulAdd"},
    {"FusedMulAddRelu"},
    {"Adds"},
    {"Muls"},
    {"Maxs"},
    {"Mins"},
    {"Axpy"},
    {"LeakyRelu"},
    {"ShiftLeft"},
    {"ShiftRight"},
    {"Abs"},
    {"Exp"},
    {"Ln"},
    {"Sqrt"},
    {"Rsqrt"},
    {"Reciprocal"},
    {"Relu"},
    {"Not"},
    {"Duplicate"},
    {"CreateVecIndex"},
    {"Compare"},
    {"Compares"},
    {"CompareToMask"},
    {"Select"},
    {"Cast"},
    {"CastDeq"},
    {"AddReluCast"},
    {"SubReluCast"},
    {"MulCast"},
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
