// z = x + y of half: by the scalar unit or by pipe V, with one set of buffers or two, around L2 or through
// it; and additions that stay in UB, for what operands in the same banks cost.
#include "bench.h"

namespace {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::TPosition;
using AscendC::WaitFlag;
using namespace tw_bench;

struct AddTiling {
  int32_t rows, columns;
  int32_t elements;  // of one copy
  int32_t scalar, bypass;
  int32_t buffers;           // sets of x, y, z: 1 or 2
  int32_t x[2], y[2], z[2];  // their addresses in UB
};

class Addition {
 public:
  __aicore__ inline Addition() {}
  __aicore__ inline void Init(GM_ADDR x, GM_ADDR y, GM_ADDR z, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    const Share rows = ShareOf(t_.rows, static_cast<int32_t>(AscendC::GetBlockNum()),
                               static_cast<int32_t>(AscendC::GetBlockIdx()));
    const uint64_t first = static_cast<uint64_t>(rows.begin) * t_.columns;
    total_ = rows.count * t_.columns;
    x_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x) + first);
    y_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(y) + first);
    z_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(z) + first);
    if (t_.bypass == 0) return;
    x_.SetL2CacheHint(AscendC::CacheMode::CACHE_MODE_DISABLE);
    y_.SetL2CacheHint(AscendC::CacheMode::CACHE_MODE_DISABLE);
  }
  __aicore__ inline void Process() {
    for (int32_t i = 0; i < t_.buffers; ++i) {
      Free<HardEvent::V_MTE2, HardEvent::S_MTE2>(i);
      Free<HardEvent::MTE3_V, HardEvent::MTE3_S>(i);
    }
    int32_t slot = 0;
    for (int32_t at = 0; at < total_; at += t_.elements) {
      Step(at, Min(t_.elements, total_ - at), slot);
      slot = slot + 1 == t_.buffers ? 0 : slot + 1;
    }
    for (int32_t i = 0; i < t_.buffers; ++i) {
      Taken<HardEvent::V_MTE2, HardEvent::S_MTE2>(i);
      Taken<HardEvent::MTE3_V, HardEvent::MTE3_S>(i);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  // The flag of pipe V, or in the scalar loop that of the scalar unit.
  template <HardEvent vector, HardEvent scalar>
  __aicore__ inline void Free(int32_t id) {
    if (t_.scalar != 0)
      SetFlag<scalar>(id);
    else
      SetFlag<vector>(id);
  }
  template <HardEvent vector, HardEvent scalar>
  __aicore__ inline void Taken(int32_t id) {
    if (t_.scalar != 0)
      WaitFlag<scalar>(id);
    else
      WaitFlag<vector>(id);
  }
  __aicore__ inline void Step(int32_t at, int32_t count, int32_t slot) {
    const uint32_t size = static_cast<uint32_t>(t_.elements);
    const LocalTensor<half> x(TPosition::VECCALC, static_cast<uint32_t>(t_.x[slot]), size);
    const LocalTensor<half> y(TPosition::VECCALC, static_cast<uint32_t>(t_.y[slot]), size);
    const LocalTensor<half> z(TPosition::VECCALC, static_cast<uint32_t>(t_.z[slot]), size);
    Taken<HardEvent::V_MTE2, HardEvent::S_MTE2>(slot);
    AscendC::DataCopy(x, x_[at], static_cast<uint32_t>(count));
    AscendC::DataCopy(y, y_[at], static_cast<uint32_t>(count));
    Free<HardEvent::MTE2_V, HardEvent::MTE2_S>(slot);
    Taken<HardEvent::MTE2_V, HardEvent::MTE2_S>(slot);
    Taken<HardEvent::MTE3_V, HardEvent::MTE3_S>(slot);
    if (t_.scalar != 0) {
      for (int32_t i = 0; i < count; ++i) z.SetValue(i, half(float(x.GetValue(i)) + float(y.GetValue(i))));
    } else {
      AscendC::Add(z, x, y, count);
    }
    Free<HardEvent::V_MTE2, HardEvent::S_MTE2>(slot);
    Free<HardEvent::V_MTE3, HardEvent::S_MTE3>(slot);
    Taken<HardEvent::V_MTE3, HardEvent::S_MTE3>(slot);
    AscendC::DataCopy(z_[at], z, static_cast<uint32_t>(count));
    Free<HardEvent::MTE3_V, HardEvent::MTE3_S>(slot);
  }

  AddTiling t_;
  int32_t total_;
  GlobalTensor<half> x_, y_, z_;
};

struct AddInUbTiling {
  int32_t elements, times;
  int32_t src0, src1, dst;  // addresses in UB
  int32_t src0_block_stride, src0_repeat_stride;
};

}  // namespace

extern "C" __global__ __aicore__ void bench_add(GM_ADDR x, GM_ADDR y, GM_ADDR z, GM_ADDR tiling) {
  Addition add;
  add.Init(x, y, z, tiling);
  add.Process();
}

// float; `times` instructions of elements / 64 repeats.
extern "C" __global__ __aicore__ void bench_add_in_ub(GM_ADDR tiling) {
  AddInUbTiling t;
  ReadTiling(tiling, t);
  const uint32_t size = static_cast<uint32_t>(t.elements);
  const LocalTensor<float> src0(TPosition::VECCALC, static_cast<uint32_t>(t.src0), size);
  const LocalTensor<float> src1(TPosition::VECCALC, static_cast<uint32_t>(t.src1), size);
  const LocalTensor<float> dst(TPosition::VECCALC, static_cast<uint32_t>(t.dst), size);
  AscendC::BinaryRepeatParams p;
  p.src0BlkStride = static_cast<uint8_t>(t.src0_block_stride);
  p.src0RepStride = static_cast<uint8_t>(t.src0_repeat_stride);
  AscendC::Duplicate(src0, 1.0f, t.elements);
  AscendC::Duplicate(src1, 1.0f, t.elements);
  for (int32_t i = 0; i < t.times; ++i) {
    AscendC::PipeBarrier<PIPE_V>();
    AscendC::Add(dst, src0, src1, uint64_t{64}, static_cast<uint8_t>(t.elements / 64), p);
  }
  AscendC::PipeBarrier<PIPE_ALL>();
}
