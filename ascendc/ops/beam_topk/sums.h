// Sums of exp((x - largest) / temperature) in UB, tile by tile and share by share.
#pragma once

#include "sorter.h"

namespace tw_topk {

constexpr float kNone = -__builtin_inff();
constexpr float kMost = 3.4028234663852886e38f;
constexpr int32_t kSums =
    2 * kBlockFloats;  // floats of a record: the largest logit and the sum, a block each

__aicore__ inline float FloatOf(int32_t bits) {
  union {
    int32_t i;
    float f;
  } word;
  word.i = bits;
  return word.f;
}

// x[valid..end) = -inf.
__aicore__ inline void FillBehind(const LocalTensor<float>& x, int32_t valid, int32_t end) {
  int32_t whole = RoundUp(valid, kFloats);
  if (whole > valid) {
    whole -= kFloats;
    const uint64_t behind[2] = {~uint64_t{0} << (valid - whole), 0};
    AscendC::Duplicate(x[static_cast<uint32_t>(whole)], kNone, behind, 1, 1, 8);
    whole += kFloats;
  }
  if (end > whole) AscendC::Duplicate(x[static_cast<uint32_t>(whole)], kNone, end - whole);
  Fence();
}

// -inf for NaN, the largest float for +inf; of whole repeats.
__aicore__ inline void CleanFloats(const LocalTensor<float>& x, const LocalTensor<uint8_t>& bits,
                                   int32_t count) {
  const uint32_t all = static_cast<uint32_t>(RoundUp(count, kFloats));
  AscendC::Compare(bits, x, x, AscendC::CMPMODE::EQ, all);
  Fence();
  AscendC::Select(x, bits, x, kNone, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, all);
  Fence();
  AscendC::Mins(x, x, kMost, static_cast<int32_t>(all));
  Fence();
}

class Sums {
 public:
  __aicore__ inline Sums() {}
  __aicore__ inline void Init(Room& room, float inverse) {
    inverse_ = inverse;
    largest_ = room.Take<float>(kFloats);
    one_ = room.Take<float>(kFloats);
    record_ = room.Take<float>(kSums);
  }
  // What is stored of a share.
  __aicore__ inline LocalTensor<float> record() const { return record_; }
  // The largest logit so far in every lane of a block.
  __aicore__ inline LocalTensor<float> largest() const { return largest_; }

  // The first of `values` is the largest now; the smallest float where that is -inf.
  __aicore__ inline void SetLargest(const LocalTensor<float>& values) {
    AscendC::Brcb(largest_, values, 1, AscendC::BrcbRepeatParams(1, 8));
    Fence();
    AscendC::Maxs(largest_, largest_, -kMost, kBlockFloats);
    Fence();
  }

  // `count` of x, which become their weights, to the sum.
  __aicore__ inline void Add(const LocalTensor<float>& x, int32_t count, bool first) {
    if (!first) Rescale(total(), record_);
    Weigh(x, x, count);
    AscendC::Adds(record_, largest_, 0.0f, kBlockFloats);
    AscendC::ReduceSum(one_, x, x, count);
    Fence();
    AscendC::Brcb(largest_, one_, 1, AscendC::BrcbRepeatParams(1, 8));
    Fence();
    Put(largest_, first);
  }
  // The record of another share, which is lost, to the sum.
  __aicore__ inline void Meet(const LocalTensor<float>& record, bool first) {
    const LocalTensor<float> sum = record[static_cast<uint32_t>(kBlockFloats)];
    Rescale(sum, record);
    if (first) AscendC::Adds(record_, largest_, 0.0f, kBlockFloats);
    Put(sum, first);
  }

  __aicore__ inline void Weigh(const LocalTensor<float>& dst, const LocalTensor<float>& x, int32_t count) {
    ByBlock<Sub2>(dst, x, largest_, count);
    Fence();
    AscendC::Muls(dst, dst, inverse_, count);
    Fence();
    AscendC::Exp(dst, dst, count);
    Fence();
  }
  // log of the weights over the row's sum.
  __aicore__ inline void LogWeigh(const LocalTensor<float>& dst, const LocalTensor<float>& x, int32_t count) {
    AscendC::Ln(one_, total(), kBlockFloats);
    ByBlock<Sub2>(dst, x, largest_, count);
    Fence();
    AscendC::Muls(dst, dst, inverse_, count);
    Fence();
    ByBlock<Sub2>(dst, dst, one_, count);
    Fence();
  }
  // Weights to probabilities, over the row's sum or over their own.
  __aicore__ inline void Divide(const LocalTensor<float>& p, int32_t count, bool whole_row) {
    LocalTensor<float> sum = total();
    if (!whole_row) {
      AscendC::ReduceSum(one_, p, p, count);
      Fence();
      AscendC::Brcb(largest_, one_, 1, AscendC::BrcbRepeatParams(1, 8));
      sum = largest_;
      Fence();
    }
    // At least 1, but for rows of -inf alone, whose weights are 0.
    AscendC::Maxs(sum, sum, 0.5f, kBlockFloats);
    Fence();
    ByBlock<Div2>(p, p, sum, count);
  }

 private:
  __aicore__ inline LocalTensor<float> total() const { return record_[static_cast<uint32_t>(kBlockFloats)]; }
  // sum *= exp((was - largest) / temperature); `was` is lost.
  __aicore__ inline void Rescale(const LocalTensor<float>& sum, const LocalTensor<float>& was) {
    Weigh(was, was, kBlockFloats);
    AscendC::Mul(sum, sum, was, kBlockFloats);
    Fence();
  }
  __aicore__ inline void Put(const LocalTensor<float>& sum, bool first) {
    if (first)
      AscendC::Adds(total(), sum, 0.0f, kBlockFloats);
    else
      AscendC::Add(total(), total(), sum, kBlockFloats);
    Fence();
  }

  LocalTensor<float> largest_, one_, record_;
  float inverse_ = 1.0f;
};

}  // namespace tw_topk
