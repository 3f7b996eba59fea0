// A sink of the cube core's part: tiles leave L0C through Fixpipe into rows of C.
#pragma once

#include "gemm_cube.h"

namespace tw_gemm {

// Converted to C's type; under VDEQF16 times `scale`, one uint64 a column, which else is not read.
template <typename Acc, typename Out, QuantMode_t kQuant>
class Direct {
 public:
  static constexpr bool kScales = kQuant == QuantMode_t::VDEQF16;

  __aicore__ inline Direct(GM_ADDR scale, GM_ADDR c, int32_t ldc) : ldc_(ldc) {
    scale_.SetGlobalBuffer(reinterpret_cast<__gm__ uint64_t*>(scale));
    c_.SetGlobalBuffer(reinterpret_cast<__gm__ Out*>(c));
  }
  // Room in L1 for a tile's scales.
  __aicore__ inline void Take(const LocalTensor<uint64_t>& room) { scale1_ = room; }

  __aicore__ inline void Open() {
    if (kScales) SetFlag<HardEvent::FIX_MTE2>(kEventScale);
  }
  __aicore__ inline void Close() {
    if (kScales) WaitFlag<HardEvent::FIX_MTE2>(kEventScale);
  }
  __aicore__ inline void Begin(const Spot& s) {
    if (!kScales) return;
    WaitFlag<HardEvent::FIX_MTE2>(kEventScale);
    AscendC::DataCopy(scale1_, scale_[s.column], static_cast<uint32_t>(RoundUp(s.columns, kFractal)));
    SetFlag<HardEvent::MTE2_FIX>(kEventScale);
  }
  __aicore__ inline void Store(const LocalTensor<Acc>& c, AscendC::FixpipeParamsV220& p, const Spot& s) {
    p.dstStride = static_cast<uint32_t>(ldc_);
    p.quantPre = kQuant;
    const GlobalTensor<Out> dst = c_[static_cast<uint64_t>(s.row) * ldc_ + s.column];
    if constexpr (kScales) {
      WaitFlag<HardEvent::MTE2_FIX>(kEventScale);
      AscendC::Fixpipe<Out, Acc, AscendC::CFG_ROW_MAJOR>(dst, c, scale1_, p);
      SetFlag<HardEvent::FIX_MTE2>(kEventScale);
    } else {
      AscendC::Fixpipe<Out, Acc, AscendC::CFG_ROW_MAJOR>(dst, c, p);
    }
  }

 private:
  GlobalTensor<uint64_t> scale_;
  GlobalTensor<Out> c_;
  LocalTensor<uint64_t> scale1_;
  const int32_t ldc_;
};

}  // namespace tw_gemm
