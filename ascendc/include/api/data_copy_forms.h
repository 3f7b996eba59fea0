// DataCopy in its rarer forms: fractals to rows, slices, the enhanced parameters of other architectures;
// Fill.
#pragma once

#include "api/data_copy.h"
#include "api/vector_common.h"

namespace AscendC {

struct Nz2NdParamsFull {  // srcNdMatrixStride in 256 elements, srcNStride in 16 elements, the others in
                          // elements
  Nz2NdParamsFull() = default;
  Nz2NdParamsFull(uint16_t nd, uint16_t n, uint16_t d, uint16_t srcNd, uint16_t srcN, uint16_t dstD,
                  uint16_t dstNd)
      : ndNum(nd),
        nValue(n),
        dValue(d),
        srcNdMatrixStride(srcNd),
        srcNStride(srcN),
        dstDStride(dstD),
        dstNdMatrixStride(dstNd) {}
  uint16_t ndNum = 1;
  uint16_t nValue = 0;
  uint16_t dValue = 0;
  uint16_t srcNdMatrixStride = 1;
  uint16_t srcNStride = 0;
  uint16_t dstDStride = 0;
  uint16_t dstNdMatrixStride = 1;
};

enum class BlockMode : uint8_t {
  BLOCK_MODE_NORMAL = 0,
  BLOCK_MODE_MATRIX,
  BLOCK_MODE_VECTOR,
  BLOCK_MODE_SMALL_CHANNEL,
  BLOCK_MODE_DEPTHWISE,
};
enum class DeqScale : uint8_t { DEQ_NONE = 0, DEQ, VDEQ, DEQ8, VDEQ8, DEQ16, VDEQ16 };

struct DataCopyEnhancedParams {  // for paths out of L0C to UB, which 2201 does not have
  BlockMode blockMode = BlockMode::BLOCK_MODE_NORMAL;
  DeqScale deqScale = DeqScale::DEQ_NONE;
  uint64_t deqValue = 0;
  uint8_t sidStoreMode = 0;
  bool isRelu = false;
  uint64_t padValue = 0;
  uint64_t deqTensorAddr = 0;
};

struct SliceInfo {  // in elements; burstLen in 32 B in the first dimension, 1 in the others
  SliceInfo() = default;
  SliceInfo(uint32_t start, uint32_t end, uint32_t strideIn, uint32_t burst, uint32_t shape = 0)
      : startIndex(start), endIndex(end), stride(strideIn), burstLen(burst), shapeValue(shape) {}
  uint32_t startIndex = 0;
  uint32_t endIndex = 31;
  uint32_t stride = 0;
  uint32_t burstLen = 32;
  uint32_t shapeValue = 0;
};

template <typename T>
struct InitConstValueParams {
  InitConstValueParams() = default;
  InitConstValueParams(uint16_t repeat, uint16_t blocks, uint16_t gap, T value)
      : repeatTimes(repeat), blockNum(blocks), dstGap(gap), initValue(value) {}
  InitConstValueParams(uint16_t repeat, T value) : repeatTimes(repeat), initValue(value) {}
  uint16_t repeatTimes = 0;
  uint16_t blockNum = 0;
  uint16_t dstGap = 0;
  T initValue{};
};

namespace detail {

constexpr uint32_t kMaxSliceDims = 8;

// How many slices a dimension has whose slices are `length` long; 0: the indices do not fit the slices.
inline uint32_t SlicesOf(const SliceInfo& s, uint32_t length) {
  if (s.endIndex < s.startIndex || length == 0 || (s.shapeValue != 0 && s.endIndex > s.shapeValue)) return 0;
  const uint64_t span = uint64_t{s.endIndex} - s.startIndex + 1 + s.stride,
                 step = uint64_t{s.stride} + length;
  return span % step == 0 ? static_cast<uint32_t>(span / step) : 0;
}

// Slices of one side: where each row of them starts, and how they lie within a row.
class SliceSide {
 public:
  SliceSide(const SliceInfo* info, uint32_t dims, uint32_t perBlock) : info_(info), dims_(dims) {
    for (uint32_t d = 0; d < dims; ++d)
      count_[d] = SlicesOf(info[d], d == 0 ? info[0].burstLen * perBlock : 1);
  }
  uint32_t count(uint32_t d) const { return count_[d]; }
  // Elements from the tensor's start to the first slice of row `row`, counted over all outer dimensions.
  uint64_t Start(uint64_t row) const {
    uint64_t offset = info_[0].startIndex, pitch = info_[0].shapeValue;
    for (uint32_t d = 1; d < dims_; ++d) {
      offset += (info_[d].startIndex + row % count_[d] * (uint64_t{info_[d].stride} + 1)) * pitch;
      row /= count_[d];
      pitch *= info_[d].shapeValue;
    }
    return offset;
  }

 private:
  const SliceInfo* info_;
  uint32_t dims_;
  uint32_t count_[kMaxSliceDims] = {};
};

template <typename T, typename Dst, typename Src>
inline void EmitSlices(const Dst& dst, const Src& src, const SliceInfo* dstInfo, const SliceInfo* srcInfo,
                       uint32_t dims, tilewright::twin::Place at) {
  constexpr uint32_t kPer = 32 / sizeof(T);
  if (dims == 0 || dims > kMaxSliceDims)
    return RejectParameter(at, "dimValue is %lld, allowed are 1..8", dims);
  const SliceSide to(dstInfo, dims, kPer), from(srcInfo, dims, kPer);
  uint64_t rows = 1;
  for (uint32_t d = 0; d < dims; ++d) {
    if (dstInfo[d].burstLen != srcInfo[d].burstLen || (d > 0 && dstInfo[d].burstLen != 1))
      return RejectParameter(
          at, "burstLen of dimension %lld: both sides must be equal, and 1 beyond the first dimension", d);
    if (to.count(d) == 0 || to.count(d) != from.count(d))
      return RejectParameter(at,
                             "startIndex, endIndex, stride and burstLen of dimension %lld do not describe "
                             "one number of slices on both sides",
                             d);
    if (d > 0) rows *= to.count(d);
  }
  const uint32_t bytes = dstInfo[0].burstLen * 32;
  const int64_t dst_step = bytes + int64_t{dstInfo[0].stride} * static_cast<int64_t>(sizeof(T));
  const int64_t src_step = bytes + int64_t{srcInfo[0].stride} * static_cast<int64_t>(sizeof(T));
  for (uint64_t row = 0; row < rows; ++row) {
    const auto to_row = dst[static_cast<uint32_t>(to.Start(row))].AsOperand(true);
    const auto from_row = src[static_cast<uint32_t>(from.Start(row))].AsOperand(false);
    auto r =
        tilewright::twin::MakeRecord(tilewright::twin::Op::CopyPad, CopyPipe(from_row.mem, to_row.mem), at);
    tilewright::twin::AddOperand(r, to_row);
    tilewright::twin::AddOperand(r, from_row);
    r.atomic = AtomicTo(to_row, r.pipe, at);
    r.pad = {to.count(0), bytes, src_step, dst_step, 0, 0, 0, false};
    twi_emit(&r);
  }
}

}  // namespace detail

// Fractals of 16 columns in UB to row-major matrices in GM.
template <typename T>
inline void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const Nz2NdParamsFull& p,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Nz2Nd, tilewright::twin::Pipe::MTE3, at);
  tilewright::twin::AddOperand(r, dst.AsOperand(true));
  tilewright::twin::AddOperand(r, src.AsOperand(false));
  r.atomic = detail::AtomicTo(r.operand[0], r.pipe, at);
  r.nz2nd = {p.ndNum,      p.nValue,     p.dValue,           p.srcNdMatrixStride,
             p.srcNStride, p.dstDStride, p.dstNdMatrixStride};
  twi_emit(&r);
}

template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const SliceInfo dstSliceInfo[],
                     const SliceInfo srcSliceInfo[], const uint32_t dimValue = 1,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitSlices<T>(dst, src, dstSliceInfo, srcSliceInfo, dimValue, at);
}
template <typename T>
inline void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const SliceInfo dstSliceInfo[],
                     const SliceInfo srcSliceInfo[], const uint32_t dimValue = 1,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  detail::EmitSlices<T>(dst, src, dstSliceInfo, srcSliceInfo, dimValue, at);
}

// The enhanced parameters change nothing on the paths that 2201 has.
template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyParams& intriParams,
                     const DataCopyEnhancedParams&,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  DataCopy(dst, src, intriParams, at);
}
template <typename T>
inline void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyParams& intriParams,
                     const DataCopyEnhancedParams&,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  DataCopy(dst, src, intriParams, at);
}
template <typename T, typename U>
inline void DataCopy(const LocalTensor<T>& dst, const LocalTensor<U>& src, const DataCopyParams& intriParams,
                     const DataCopyEnhancedParams&,
                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  DataCopy(dst, src, intriParams, at);
}

// L1 or L0 set to one value, in blocks of 32 B in L1 and of 512 B in L0.
template <typename T, typename U = T>
inline void Fill(const LocalTensor<T>& dst, const InitConstValueParams<U>& p,
                 tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  static_assert(std::is_same_v<T, U>, "initValue has the type of the tensor");
  using tilewright::twin::Pipe;
  const auto to = dst.AsOperand(true);
  const bool l1 = to.mem == tilewright::twin::Mem::L1;
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::Fill, l1 ? Pipe::MTE2 : Pipe::MTE1, at);
  tilewright::twin::AddOperand(r, to);
  const uint32_t block = l1 ? 32 : 512;
  r.fill = {p.repeatTimes, p.blockNum * block, (int64_t{p.blockNum} + p.dstGap) * block, BitsOf(p.initValue)};
  twi_emit(&r);
}
template <typename T, typename U = T>
inline void InitConstValue(const LocalTensor<T>& dst, const InitConstValueParams<U>& p,
                           tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  Fill<T, U>(dst, p, at);
}

}  // namespace AscendC
