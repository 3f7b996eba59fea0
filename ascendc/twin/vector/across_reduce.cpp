// Reductions within a repeat, a block or a pair.
#include "vector/across.h"
#include "vector/reduce.h"

namespace tilewright::twin {

namespace {

// AscendC::ReduceOrder, in VecArgs::mode.
enum Order : uint8_t { kValueIndex, kIndexValue, kOnlyValue, kOnlyIndex };

bool IsSum(VecOp op) {
  return op == VecOp::WholeReduceSum || op == VecOp::RepeatReduceSum || op == VecOp::BlockReduceSum ||
         op == VecOp::PairReduceSum;
}

// Bytes of what one repeat of a whole-repeat reduction writes.
uint32_t ResultBytes(const VecArgs& v, uint32_t size) {
  if (IsSum(v.op) || v.mode == kOnlyValue) return size;
  return v.mode == kOnlyIndex ? 4 : 2 * size;
}

template <class T>
void WriteBest(uint8_t* to, uint8_t order, T value, uint32_t lane) {
  const T index = static_cast<T>(lane);
  switch (order) {
    case kOnlyValue:
      std::memcpy(to, &value, sizeof value);
      return;
    case kOnlyIndex:
      std::memcpy(to, &lane, 4);
      return;
    default: {
      const T pair[2] = {order == kValueIndex ? value : index, order == kValueIndex ? index : value};
      std::memcpy(to, pair, sizeof pair);
    }
  }
}

template <class T, bool kMin>
void WholeBest(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  Source<T> src(core, r);
  constexpr uint32_t kLanes = src.kLanes;
  uint8_t* dst = core.At(r.operand[0]);
  const uint64_t dst_step = uint64_t{v.repeat_stride[0]} * ResultBytes(v, sizeof(T));
  Best overall{INT32_MIN, 0};
  T overall_value = 0;
  for (uint32_t i = 0; i < v.repeat; ++i) {
    const T* x = src.Repeat(i);
    const Best best = FindBest<kMin>(x, kLanes, src.all() ? nullptr : &src.bits());
    const T value = x[best.lane];
    WriteBest(dst + i * dst_step, v.mode, value, best.lane);
    if (i == 0 || best.key > overall.key) {
      overall = {best.key, i * kLanes + best.lane};
      overall_value = value;
    }
  }
  core.Word(StateWord::ReduceValue) = overall_value;
  core.Word(StateWord::ReduceIndex) = static_cast<T>(overall.lane);
}

template <class T>
void WholeSum(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  Source<T> src(core, r);
  constexpr uint32_t kLanes = src.kLanes;
  uint8_t* dst = core.At(r.operand[0]);
  float x[kLanes];
  for (uint32_t i = 0; i < v.repeat; ++i) {
    Widen(x, src.Repeat(i), kLanes);
    if (!src.all()) DropLanes(x, kLanes, src.bits());
    const T sum = Narrow<T>(TreeSum<T>(x, kLanes, v.saturate));
    std::memcpy(dst + uint64_t{i} * v.repeat_stride[0] * sizeof(T), &sum, sizeof sum);
  }
}

template <class T, bool kSum, bool kMin>
void Blocks(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  Source<T> src(core, r);
  constexpr uint32_t kPer = kBlockBytes / sizeof(T);
  uint8_t* dst = core.At(r.operand[0]);
  T results[kRepeatBlocks];
  for (uint32_t i = 0; i < v.repeat; ++i) {
    const T* x = src.Repeat(i);
    const LaneBits& bits = src.bits();
    for (uint32_t b = 0; b < kRepeatBlocks; ++b) {
      LaneBits here{{bits.word[b * kPer / 64] >> (b * kPer % 64), 0}};
      if (!here.Any(0, kPer)) continue;
      if constexpr (kSum) {
        float sums[kPer];
        Widen(sums, x + b * kPer, kPer);
        DropLanes(sums, kPer, here);
        results[b] = Narrow<T>(TreeSum<T>(sums, kPer, v.saturate));
      } else {
        results[b] = x[b * kPer + FindBest<kMin>(x + b * kPer, kPer, &here).lane];
      }
    }
    uint8_t* to = dst + uint64_t{i} * v.repeat_stride[0] * kRepeatBlocks * sizeof(T);
    for (uint32_t b = 0; b < kRepeatBlocks; ++b)
      if (bits.Any(b * kPer, kPer)) std::memcpy(to + b * sizeof(T), &results[b], sizeof(T));
  }
}

template <class T>
void Pairs(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  Source<T> src(core, r);
  constexpr uint32_t kLanes = src.kLanes;
  uint8_t* dst = core.At(r.operand[0]);
  float x[kLanes];
  for (uint32_t i = 0; i < v.repeat; ++i) {
    Widen(x, src.Repeat(i), kLanes);
    const LaneBits& bits = src.bits();
    DropLanes(x, kLanes, bits);
    uint8_t* to = dst + uint64_t{i} * v.repeat_stride[0] * (kRepeatBytes / 2);
    for (uint32_t p = 0; p < kLanes / 2; ++p) {
      if (!bits.Any(2 * p, 2)) continue;
      const T sum = Narrow<T>(TreeSum<T>(x + 2 * p, 2, v.saturate));
      std::memcpy(to + p * sizeof(T), &sum, sizeof(T));
    }
  }
}

template <class T>
void Execute(Core& core, const Record& r) {
  switch (r.vec.op) {
    case VecOp::WholeReduceMax:
      return WholeBest<T, false>(core, r);
    case VecOp::WholeReduceMin:
      return WholeBest<T, true>(core, r);
    case VecOp::BlockReduceSum:
      return Blocks<T, true, false>(core, r);
    case VecOp::BlockReduceMax:
      return Blocks<T, false, false>(core, r);
    case VecOp::BlockReduceMin:
      return Blocks<T, false, true>(core, r);
    case VecOp::PairReduceSum:
      return Pairs<T>(core, r);
    default:
      return WholeSum<T>(core, r);
  }
}

// Results of `group` lanes each, contiguous within a repeat, `unit` bytes from repeat to repeat; those of
// groups without an active lane are not written. Holes are described as if they were.
void DescribeGroups(Record& r, uint32_t group, uint32_t size, uint32_t unit) {
  const VecArgs& v = r.vec;
  const int64_t step = int64_t{v.repeat_stride[0]} * unit;
  const auto results = [&](uint32_t repeat) {
    return CeilDiv(EndOfLanes(BitsOfRepeat(v, repeat, v.lanes)), group) * size;
  };
  Operand& dst = r.operand[0];
  const uint32_t last = results(v.repeat - 1), first = results(0);
  const Operand rest = dst;
  dst.unit = first;
  RepeatRange(dst, last == first ? v.repeat : v.repeat - 1, step);
  if (last == first) return;
  Operand& tail = r.operand[r.operands++];
  tail = rest;
  tail.base += static_cast<uint64_t>(step) * (v.repeat - 1);
  tail.unit = last;
}

}  // namespace

void DescribeReduce(Record& r) {
  const uint32_t size = SizeOf(r.operand[1].type);
  if (size != 2 && size != 4) return;  // refused by the check
  switch (r.vec.op) {
    case VecOp::BlockReduceSum:
    case VecOp::BlockReduceMax:
    case VecOp::BlockReduceMin:
      DescribeGroups(r, kBlockBytes / size, size, kRepeatBlocks * size);
      break;
    case VecOp::PairReduceSum:
      DescribeGroups(r, 2, size, kRepeatBytes / 2);
      break;
    default: {
      const uint32_t bytes = ResultBytes(r.vec, size);
      r.operand[0].unit = bytes;
      RepeatRange(r.operand[0], r.vec.repeat, int64_t{r.vec.repeat_stride[0]} * bytes);
    }
  }
  DescribeLanes(r, 1, 1, size);
}

bool CheckReduce(Core& core, const Record& r) {
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[1], {DType::F16, DType::F32});
  check.Require(r.operand[0].type == r.operand[1].type, "source and destination differ in type");
  check.Range("order", r.vec.mode, kValueIndex, kOnlyIndex);
  return check.Ok();
}

uint32_t AlignReduce(const Record& r, int operand) {
  const uint32_t size = SizeOf(r.operand[0].type);
  if (operand == 1 || size == 0) return kBlockBytes;
  switch (r.vec.op) {
    case VecOp::BlockReduceSum:
    case VecOp::BlockReduceMax:
    case VecOp::BlockReduceMin:
      return kRepeatBlocks * size;
    case VecOp::PairReduceSum:
      return kBlockBytes;
    default:
      return ResultBytes(r.vec, size);
  }
}

void ExecuteReduce(Core& core, const Record& r) {
  if (r.operand[1].type == DType::F16)
    Execute<uint16_t>(core, r);
  else
    Execute<uint32_t>(core, r);
}

}  // namespace tilewright::twin
