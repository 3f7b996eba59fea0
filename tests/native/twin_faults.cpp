// Small kernels with one planted fault each, and clean ones beside them. The comment `expect: <kind>` stands
// on the line where the twin must report that kind. Arguments: x and y, 4096 bytes of GM each.
#include <stdexcept>

#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kHalfs = 64;

struct Ub {
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer;
  LocalTensor<half> local;
  GlobalTensor<half> x, y;

  Ub(GM_ADDR gm_x, GM_ADDR gm_y) {
    pipe.InitBuffer(buffer, kHalfs * sizeof(half));
    local = buffer.Get<half>();
    x.SetGlobalBuffer(reinterpret_cast<half*>(gm_x));
    y.SetGlobalBuffer(reinterpret_cast<half*>(gm_y));
  }
};

template <typename In, typename Acc>
struct Cube {
  TPipe pipe;
  TBuf<TPosition::A1> a1;
  TBuf<TPosition::A2> a2;
  TBuf<TPosition::B2> b2;
  TBuf<TPosition::CO1> co1;
  LocalTensor<In> a1t, a2t, b2t;
  LocalTensor<Acc> ct;

  Cube() {
    pipe.InitBuffer(a1, 4096);
    pipe.InitBuffer(a2, 4096);
    pipe.InitBuffer(b2, 4096);
    pipe.InitBuffer(co1, 4096);
    a1t = a1.template Get<In>();
    a2t = a2.template Get<In>();
    b2t = b2.template Get<In>();
    ct = co1.template Get<Acc>();
  }
  // Something in L1, L0A and L0B, in place before what follows.
  void Fill(GM_ADDR x) {
    GlobalTensor<In> from;
    from.SetGlobalBuffer(reinterpret_cast<In*>(x));
    DataCopy(a1t, from, 4096 / sizeof(In));
    PipeBarrier<PIPE_ALL>();
    LoadData(a2t, a1t, LoadData2DParams(0, 8, 1, 0, 0, false, 0));
    LoadData(b2t, a1t, LoadData2DParams(0, 8, 1, 0, 0, false, 0));
    PipeBarrier<PIPE_ALL>();
  }
  static MmadParams Params(uint16_t m) {
    MmadParams p;
    p.m = m;
    p.n = 16;
    p.k = 16;
    return p;
  }
};

}  // namespace

#define KERNEL(name) \
  extern "C" __global__ __aicore__ void name([[maybe_unused]] GM_ADDR x, [[maybe_unused]] GM_ADDR y)

KERNEL(clean_copy) {
  Ub ub(x, y);
  DataCopy(ub.local, ub.x, kHalfs);
  SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  DataCopy(ub.y, ub.local, kHalfs);
}

KERNEL(clean_queue) {
  TPipe pipe;
  TQueBind<TPosition::VECIN, TPosition::VECOUT, 2> queue;
  pipe.InitBuffer(queue, 2, kHalfs * sizeof(half));
  GlobalTensor<half> from, to;
  from.SetGlobalBuffer(reinterpret_cast<half*>(x));
  to.SetGlobalBuffer(reinterpret_cast<half*>(y));
  for (uint32_t i = 0; i < 8; ++i) {
    LocalTensor<half> in = queue.AllocTensor<half>();
    DataCopy(in, from[i * kHalfs], kHalfs);
    queue.EnQue(in);
    LocalTensor<half> out = queue.DeQue<half>();
    DataCopy(to[i * kHalfs], out, kHalfs);
    queue.FreeTensor(out);
  }
}

// Queues may use the ids that a kernel may not.
KERNEL(clean_deep_queue) {
  TPipe pipe;
  TQueBind<TPosition::VECIN, TPosition::VECOUT, 8> queue;
  pipe.InitBuffer(queue, 8, kHalfs * sizeof(half));
  LocalTensor<half> held[8];
  for (auto& tensor : held) tensor = queue.AllocTensor<half>();
  for (auto& tensor : held) queue.FreeTensor(tensor);
}

KERNEL(clean_scalar) {
  Ub ub(x, y);
  for (uint32_t i = 0; i < 16; ++i) ub.local.SetValue(i, static_cast<float>(ub.x.GetValue(i)) * 2.0f);
  for (uint32_t i = 0; i < 16; ++i) ub.y.SetValue(i, ub.local.GetValue(i));
}

KERNEL(capacity) {
  TPipe pipe;
  TBuf<TPosition::A1> a;
  TBuf<TPosition::B1> b;
  pipe.InitBuffer(a, 400 * 1024);
  pipe.InitBuffer(b, 200 * 1024);  // expect: capacity
}

KERNEL(ub_capacity) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> most, one_more;
  pipe.InitBuffer(most, 192 * 1024 - 256);
  pipe.InitBuffer(one_more, 32);  // expect: capacity
}

KERNEL(gm_out_of_bounds) {
  Ub ub(x, y);
  DataCopy(ub.local, ub.x[2048 - 32], kHalfs);  // expect: out-of-bounds
}

KERNEL(gm_not_an_argument) {
  Ub ub(x, y);
  GlobalTensor<half> wild;
  wild.SetGlobalBuffer(reinterpret_cast<half*>(uintptr_t{4096}));
  DataCopy(ub.local, wild, kHalfs);  // expect: out-of-bounds
}

KERNEL(ub_out_of_bounds) {
  Ub ub(x, y);
  DataCopy(ub.local[32], ub.x, kHalfs);  // expect: out-of-bounds
}

KERNEL(ub_scalar_out_of_bounds) {
  Ub ub(x, y);
  ub.local.SetValue(kHalfs, 1.0f);  // expect: out-of-bounds
}

KERNEL(ub_misaligned) {
  Ub ub(x, y);
  DataCopy(ub.local[1], ub.x, 32);  // expect: misaligned
}

KERNEL(l0a_misaligned) {
  Cube<half, float> cube;
  LoadData2DParams p;
  p.repeatTimes = 1;
  LoadData(cube.a2t[16], cube.a1t, p);  // expect: misaligned
}

KERNEL(dropped_bytes) {
  Ub ub(x, y);
  DataCopy(ub.local, ub.x, 20);  // expect: illegal-parameter
}

KERNEL(mmad_m_range) {
  Cube<half, float> cube;
  Mmad(cube.ct, cube.a2t, cube.b2t, Cube<half, float>::Params(4096));  // expect: illegal-parameter
}

KERNEL(mmad_types) {
  Cube<int8_t, float> cube;
  Mmad(cube.ct, cube.a2t, cube.b2t, Cube<int8_t, float>::Params(16));  // expect: illegal-parameter
}

KERNEL(mmad_memory) {
  Cube<half, float> cube;
  Mmad(cube.ct, cube.a1t, cube.b2t, Cube<half, float>::Params(16));  // expect: illegal-memory
}

KERNEL(mmad_bias_ignored) {
  Cube<half, float> cube;
  cube.Fill(x);
  TBuf<TPosition::C2> c2;
  cube.pipe.InitBuffer(c2, 64);
  const MmadParams p = Cube<half, float>::Params(16);
  Mmad(cube.ct, cube.a2t, cube.b2t, c2.Get<float>(), p);  // expect: illegal-parameter
}

KERNEL(transpose_of_float) {
  Cube<float, float> cube;
  LoadData2DParams p;
  p.repeatTimes = 1;
  p.ifTranspose = true;
  LoadData(cube.a2t, cube.a1t, p);  // expect: illegal-parameter
}

KERNEL(fixpipe_rows_overlap) {
  Cube<half, float> cube;
  GlobalTensor<float> out;
  out.SetGlobalBuffer(reinterpret_cast<float*>(y));
  FixpipeParamsV220 p(16, 16, 16, 8, false);
  Fixpipe(out, cube.ct, p);  // expect: illegal-parameter
}

KERNEL(fixpipe_quant_types) {
  Cube<half, float> cube;
  GlobalTensor<half> out;
  out.SetGlobalBuffer(reinterpret_cast<half*>(y));
  FixpipeParamsV220 p(16, 16, 16, 16, false);
  Fixpipe(out, cube.ct, p);  // expect: illegal-parameter
}

KERNEL(fixpipe_nz_misaligned) {
  Cube<half, float> cube;
  GlobalTensor<float> out;
  out.SetGlobalBuffer(reinterpret_cast<float*>(y));
  FixpipeParamsV220 p(16, 16, 16, 32, false);
  Fixpipe<float, float, CFG_NZ>(out[4], cube.ct, p);  // expect: misaligned
}

KERNEL(no_path) {
  Ub ub(x, y);
  TBuf<TPosition::A2> a2;
  ub.pipe.InitBuffer(a2, 1024);
  DataCopy(a2.Get<half>(), ub.local, 32);  // expect: illegal-memory
}

KERNEL(scalar_of_l1) {
  Cube<half, float> cube;
  cube.a1t.GetValue(0);  // expect: illegal-memory
}

KERNEL(flag_set_twice) {
  SetFlag<HardEvent::MTE2_V>(EVENT_ID1);
  SetFlag<HardEvent::MTE2_V>(EVENT_ID1);  // expect: repeated-flag
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID1);
}

// Each has its wait, but the pipe that waits is still behind another flag.
KERNEL(flag_set_ahead_of_its_wait) {
  SetFlag<HardEvent::MTE2_V>(EVENT_ID1);
  WaitFlag<HardEvent::MTE3_V>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID1);
  SetFlag<HardEvent::MTE2_V>(EVENT_ID1);  // expect: repeated-flag
  SetFlag<HardEvent::MTE3_V>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID1);
}

KERNEL(flag_never_set) {
  SetFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
  WaitFlag<HardEvent::MTE1_MTE2>(EVENT_ID0);  // expect: unpaired-flag
}

KERNEL(flag_never_waited) {
  SetFlag<HardEvent::M_FIX>(EVENT_ID2);  // expect: unpaired-flag
}

KERNEL(flag_reserved) {
  SetFlag<HardEvent::MTE2_V>(EVENT_ID6);   // expect: reserved-flag
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID6);  // expect: reserved-flag
}

KERNEL(flag_range) {
  SetFlag<HardEvent::MTE2_V>(9);  // expect: flag-range
}

KERNEL(event_ids_exhausted) {
  TPipe pipe;
  for (int i = 0; i < 6; ++i) {
    const TEventID id = pipe.AllocEventID<HardEvent::MTE2_V>();
    SetFlag<HardEvent::MTE2_V>(id);
    WaitFlag<HardEvent::MTE2_V>(id);
  }
  pipe.AllocEventID<HardEvent::MTE2_V>();  // expect: flag-range
  pipe.FetchEventID<HardEvent::MTE2_V>();  // expect: flag-range
  pipe.FetchEventID(HardEvent::MTE2_V);    // expect: flag-range
  pipe.ReleaseEventID<HardEvent::MTE2_V>(EVENT_ID3);
  SetFlag<HardEvent::MTE2_V>(pipe.FetchEventID<HardEvent::MTE2_V>());
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID3);
}

KERNEL(vector_core_multiplies) {
  Ub ub(x, y);
  DataCopy(ub.local, ub.x, kHalfs);
  Cube<half, float> cube;
  LoadData(cube.a2t, cube.a1t, LoadData2DParams(0, 1, 1, 0, 0, false, 0));  // expect: wrong-core
  Mmad(cube.ct, cube.a2t, cube.b2t, Cube<half, float>::Params(16));         // expect: wrong-core
}

KERNEL(cube_core_uses_ub) {
  Cube<half, float> cube;
  cube.Fill(x);
  Ub ub(x, y);
  DataCopy(ub.local, ub.x, kHalfs);  // expect: wrong-core
  ub.local.SetValue(0, 1.0f);        // expect: wrong-core
  PipeBarrier<PIPE_V>();             // expect: wrong-core
}

KERNEL(one_copy_between_cores) {
  Ub ub(x, y);
  Cube<half, float> cube;
  DataCopy(cube.a1t, ub.local, kHalfs);  // expect: wrong-core
}

KERNEL(event_of_the_other_core) {
  SetFlag<HardEvent::MTE1_M>(EVENT_ID0);
  WaitFlag<HardEvent::MTE1_M>(EVENT_ID0);
  SetFlag<HardEvent::MTE2_S>(EVENT_ID0);   // expect: illegal-event
  WaitFlag<HardEvent::MTE2_S>(EVENT_ID0);  // expect: illegal-event
}

KERNEL(event_of_no_core) {
  SetFlag<HardEvent::M_V>(EVENT_ID0);  // expect: illegal-event
}

KERNEL(queue_deque_empty) {
  TPipe pipe;
  TQue<TPosition::VECIN, 1> queue;
  pipe.InitBuffer(queue, 1, 128);
  queue.DeQue<half>();  // expect: queue
}

KERNEL(queue_exhausted) {
  TPipe pipe;
  TQue<TPosition::VECIN, 1> queue;
  pipe.InitBuffer(queue, 1, 128);
  LocalTensor<half> first = queue.AllocTensor<half>();
  queue.AllocTensor<half>();  // expect: queue
  queue.FreeTensor(first);
}

KERNEL(queue_leak) {
  TPipe pipe;
  TQue<TPosition::VECIN, 1> queue;
  pipe.InitBuffer(queue, 1, 128);  // expect: queue
  queue.AllocTensor<half>();
}

KERNEL(queue_double_free) {
  TPipe pipe;
  TQue<TPosition::VECIN, 1> queue;
  pipe.InitBuffer(queue, 1, 128);
  LocalTensor<half> tensor = queue.AllocTensor<half>();
  queue.FreeTensor(tensor);
  queue.FreeTensor(tensor);  // expect: queue
}

KERNEL(fault_division) {
  Ub ub(x, y);
  const int32_t zero = ub.x.ReinterpretCast<int32_t>().GetValue(1023);  // expect: fault
  ub.y.SetValue(static_cast<uint32_t>(7 / zero), 1.0f);
}

KERNEL(fault_pointer) {
  PipeBarrier<PIPE_ALL>();  // expect: fault
  *reinterpret_cast<volatile int32_t*>(x + (uint64_t{1} << 50)) = 1;
}

KERNEL(fault_exception) {
  PipeBarrier<PIPE_ALL>();  // expect: fault
  throw std::runtime_error("no");
}
