// Sort32 and MrgSort (documented under Memory矢量计算/排序组合（ISASI）). The older region proposals do not
// exist on 2201.
#pragma once

#include "api/vector_reduce.h"

namespace AscendC {

constexpr int32_t MRG_SORT_ELEMENT_LEN = 4;

struct MrgSort4Info {  // lengths in entries of 8 bytes
  MrgSort4Info() = default;
  MrgSort4Info(const uint16_t lengths[MRG_SORT_ELEMENT_LEN], bool suspend, uint16_t valid, uint16_t repeat)
      : ifExhaustedSuspension(suspend), validBit(valid), repeatTimes(static_cast<uint8_t>(repeat)) {
    for (int i = 0; i < MRG_SORT_ELEMENT_LEN; ++i) elementLengths[i] = lengths[i];
  }
  uint16_t elementLengths[MRG_SORT_ELEMENT_LEN] = {0};
  bool ifExhaustedSuspension = false;
  uint16_t validBit = 0;
  uint8_t repeatTimes = 1;
};

template <typename T>
struct MrgSortSrcList {
  MrgSortSrcList() = default;
  MrgSortSrcList(const LocalTensor<T>& first, const LocalTensor<T>& second, const LocalTensor<T>& third,
                 const LocalTensor<T>& fourth)
      : src1(first), src2(second), src3(third), src4(fourth) {}
  LocalTensor<T> src1;
  LocalTensor<T> src2;
  LocalTensor<T> src3;
  LocalTensor<T> src4;
};

namespace detail {

// An instruction without a mask.
inline tilewright::twin::VecArgs MakeUnmasked(tilewright::twin::VecOp op, uint32_t repeat) {
  auto v = MakeVector(op, 0);
  v.mask[0] = v.mask[1] = ~uint64_t{0};
  v.repeat = repeat;
  return v;
}

}  // namespace detail

// Each repeat: 32 scores of src0 with their indices of src1, largest first, as entries of 8 bytes.
template <typename T>
inline void Sort32(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<uint32_t>& src1,
                   const int32_t repeatTime, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  if (repeatTime < 0) detail::RejectParameter(at, "repeatTime is %lld, allowed are 0..255", repeatTime);
  const auto v = detail::MakeUnmasked(tilewright::twin::VecOp::Sort32,
                                      repeatTime < 0 ? 0 : static_cast<uint32_t>(repeatTime));
  detail::EmitVector(v, {dst.AsOperand(true), src0.AsOperand(false), src1.AsOperand(false)}, at);
}

// Sorted lists to one; of equal scores that of the earlier list comes first.
template <typename T>
inline void MrgSort(const LocalTensor<T>& dst, const MrgSortSrcList<T>& src, const MrgSort4Info& params,
                    tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto v = detail::MakeUnmasked(tilewright::twin::VecOp::MrgSort, params.repeatTimes);
  v.mode = static_cast<uint8_t>((params.validBit & 0xf) | (params.ifExhaustedSuspension ? 0x10 : 0));
  if (params.validBit > 0xf) v.mode = 0;  // refused
  const LocalTensor<T>* lists[MRG_SORT_ELEMENT_LEN] = {&src.src1, &src.src2, &src.src3, &src.src4};
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Vector, tilewright::twin::Pipe::V, at);
  tilewright::twin::AddOperand(r, dst.AsOperand(true));
  for (int i = 0; i < MRG_SORT_ELEMENT_LEN; ++i) {
    v.arg[i] = params.elementLengths[i];
    if ((params.validBit >> i & 1) != 0) tilewright::twin::AddOperand(r, lists[i]->AsOperand(false));
  }
  r.vec = v;
  twi_emit(&r);
}

// How many entries the latest MrgSort took of each list.
inline void GetMrgSortResult(uint16_t& mrgSortList1, uint16_t& mrgSortList2, uint16_t& mrgSortList3,
                             uint16_t& mrgSortList4,
                             tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  using tilewright::twin::StateWord;
  mrgSortList1 = static_cast<uint16_t>(detail::ReadState(StateWord::MrgSort0, at));
  mrgSortList2 = static_cast<uint16_t>(detail::ReadState(StateWord::MrgSort1, at));
  mrgSortList3 = static_cast<uint16_t>(detail::ReadState(StateWord::MrgSort2, at));
  mrgSortList4 = static_cast<uint16_t>(detail::ReadState(StateWord::MrgSort3, at));
}

}  // namespace AscendC
