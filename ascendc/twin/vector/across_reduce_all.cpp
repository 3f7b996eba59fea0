// ReduceSum, ReduceMax and ReduceMin: one result of all repeats.
#include <algorithm>
#include <vector>

#include "vector/across.h"
#include "vector/reduce.h"

namespace tilewright::twin {

namespace {

// VecArgs::mode of ReduceSum: repeats are summed one after the other, or as a tree in the work tensor. Of
// ReduceMax and ReduceMin: whether the index is wanted.
enum Mode : uint8_t { kPlain = 0, kTree = 1, kIndex = 1 };

constexpr int kDst = 0, kSrc = 1, kWork = 2;

// Elements of the work tensor that the documentation asks for.
uint32_t WorkElements(const VecArgs& v, uint32_t size) {
  const uint32_t block = kBlockBytes / size, lanes = kRepeatBytes / size;
  if (v.op == VecOp::ReduceSum) return AlignUp(v.repeat, block);
  // Over the first elements of a tensor the documentation counts whole repeats only.
  const uint32_t repeats =
      v.counter ? std::max<uint32_t>(1, static_cast<uint32_t>(v.mask[0] / lanes)) : v.repeat;
  uint32_t made = repeats * 2, total = AlignUp(made, block);
  if (v.mode != kIndex) return total;
  do {  // rounds after the first until one pair is left: at least one
    made = CeilDiv(made, lanes) * 2;
    total += AlignUp(made, block);
  } while (made > 2);
  return total;
}

template <class T>
void Sum(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  Source<T> src(core, r);
  float x[Source<T>::kLanes];
  std::vector<float> sums(v.repeat);
  for (uint32_t i = 0; i < v.repeat; ++i) {
    Widen(x, src.Repeat(i), src.kLanes);
    if (!src.all()) DropLanes(x, src.kLanes, src.bits());
    sums[i] = TreeSum<T>(x, src.kLanes, v.saturate);
  }
  float total = sums[0];
  if (v.mode == kTree) {
    uint8_t* work = core.At(r.operand[kWork]);
    for (uint32_t i = 0; i < v.repeat; ++i) {
      const T one = Narrow<T>(sums[i]);
      std::memcpy(work + i * sizeof(T), &one, sizeof one);
    }
    uint32_t width = 1;
    while (width < v.repeat) width *= 2;
    sums.resize(width, -0.0f);
    total = TreeSum<T>(sums.data(), width, v.saturate);
  } else {
    for (uint32_t i = 1; i < v.repeat; ++i) {
      total += sums[i];
      if constexpr (sizeof(T) == 2) total = RoundHalf(total, v.saturate);
    }
  }
  const T out = Narrow<T>(total);
  std::memcpy(core.At(r.operand[kDst]), &out, sizeof out);
  core.Word(StateWord::AccValue) = out;
}

template <class T, bool kMin>
void Find(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  Source<T> src(core, r);
  std::vector<T> pairs(2 * v.repeat);
  Best overall{INT32_MIN, 0};
  T value = 0;
  for (uint32_t i = 0; i < v.repeat; ++i) {
    const T* x = src.Repeat(i);
    const Best best = FindBest<kMin>(x, src.kLanes, src.all() ? nullptr : &src.bits());
    pairs[2 * i] = x[best.lane];
    pairs[2 * i + 1] = static_cast<T>(best.lane);
    if (i == 0 || best.key > overall.key) {
      overall = {best.key, i * src.kLanes + best.lane};
      value = x[best.lane];
    }
  }
  // The work tensor may lie on the source, the destination on the work tensor.
  std::memcpy(core.At(r.operand[kWork]), pairs.data(),
              std::min<size_t>(pairs.size() * sizeof(T), r.operand[kWork].unit));
  const T out[2] = {value, static_cast<T>(overall.lane)};
  std::memcpy(core.At(r.operand[kDst]), out, v.mode == kIndex ? sizeof out : sizeof(T));
  core.Word(StateWord::ReduceValue) = value;
  core.Word(StateWord::ReduceIndex) = static_cast<T>(overall.lane);
}

template <class T>
void Execute(Core& core, const Record& r) {
  if (r.vec.op == VecOp::ReduceSum) return Sum<T>(core, r);
  if (r.vec.op == VecOp::ReduceMin) return Find<T, true>(core, r);
  Find<T, false>(core, r);
}

}  // namespace

void DescribeReduceAll(Record& r) {
  const uint32_t size = SizeOf(r.operand[kSrc].type);
  if (size != 2 && size != 4) return;  // refused by the check
  r.operand[kDst].unit = r.vec.op != VecOp::ReduceSum && r.vec.mode == kIndex ? 2 * size : size;
  DescribeLanes(r, kSrc, 1, size);
  if (r.operands > kWork) r.operand[kWork].unit = WorkElements(r.vec, size) * size;
}

bool CheckReduceAll(Core& core, const Record& r) {
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[kSrc], {DType::F16, DType::F32});
  check.Require(r.operand[kDst].type == r.operand[kSrc].type, "source and destination differ in type");
  if (r.vec.op != VecOp::ReduceSum && r.vec.mode == kIndex && r.operand[kSrc].type == DType::F16)
    check.Require(uint64_t{r.vec.repeat} * 128 <= 65536, "an index beyond 65535 does not fit half");
  return check.Ok();
}

uint32_t AlignReduceAll(const Record& r, int operand) {
  return operand == kDst ? r.operand[kDst].unit : kBlockBytes;
}

void ExecuteReduceAll(Core& core, const Record& r) {
  if (r.operand[kSrc].type == DType::F16)
    Execute<uint16_t>(core, r);
  else
    Execute<uint32_t>(core, r);
}

}  // namespace tilewright::twin
