// Names of the basic API beside the instructions: memory, queues, scalars, tiling, printing. y gets what each
// computes; the test knows what that is.
#include "kernel_operator.h"

using namespace AscendC;

#define KERNEL(name) extern "C" __global__ __aicore__ void name([[maybe_unused]] GM_ADDR x, GM_ADDR y)

namespace {

GlobalTensor<int64_t> Results(GM_ADDR y) {
  GlobalTensor<int64_t> out;
  out.SetGlobalBuffer(reinterpret_cast<__gm__ int64_t*>(y), 64);
  return out;
}

void CopyThrough(const LocalTensor<half>& local, GM_ADDR x, GM_ADDR y, uint32_t at) {
  GlobalTensor<half> from, to;
  from.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x));
  to.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(y));
  DataCopy(local, from[at], 64);
  SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  DataCopy(to[at], local, 64);
  SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
  WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
}

}  // namespace

KERNEL(scalars) {
  auto out = Results(y);
  GlobalTensor<float> in;
  in.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x));
  const float value = in(0);
  const uint64_t bits = 0x00f0000000000010;
  int i = 0;
  out(i++) = CountLeadingZero(bits);
  out(i++) = ScalarCountLeadingZero(0);
  out(i++) = CountBitsCntSameAsSignBit(-16);
  out(i++) = GetBitCount<1>(bits);
  out(i++) = ScalarGetCountOfValue<0>(bits);
  out(i++) = GetSFFValue<1>(bits);
  out(i++) = ScalarGetSFFValue<0>(7);
  out(i++) = GetSFFValue<1>(0);
  out(i++) = Cast<float, int32_t, RoundMode::CAST_RINT>(value);
  out(i++) = Cast<float, int32_t, RoundMode::CAST_ROUND>(value);
  out(i++) = ScalarCast<float, int32_t, RoundMode::CAST_FLOOR>(-value);
  out(i++) = ScalarCast<float, int32_t, RoundMode::CAST_CEIL>(value);
  out(i++) = ScalarCast<float, int32_t, RoundMode::CAST_TRUNC>(-value);
  out(i++) = Cast<float, int32_t, RoundMode::CAST_RINT>(3e9f);
  out(i++) = ScalarCast<float, half, RoundMode::CAST_ODD>(1.0f + 1.0f / 4096).bits;
  out(i++) = ScalarCast<float, half, RoundMode::CAST_ODD>(1.0f - 1.0f / 8192).bits;
  out(i++) = ScalarCast<float, half, RoundMode::CAST_NONE>(1.0f + 1.0f / 4096).bits;
  out(i++) = Cast(value).bits;
  out(i++) = ToBfloat16(value).bits;
  out(i++) = static_cast<int64_t>(Cast(bfloat16_t(4.0f)) + ToFloat(bfloat16_t(8.0f)));
  out(i++) = ReadGmByPassDCache(reinterpret_cast<__gm__ int32_t*>(x));
  WriteGmByPassDCache(reinterpret_cast<__gm__ int64_t*>(y) + i++, int64_t{77});
  uint32_t arch = 0;
  GetArchVersion(arch);
  out(i++) = arch;
  out(i++) = GetDataBlockSizeInBytes();
  out(i++) = block_num * 10 + block_idx;
}

KERNEL(printing) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(buffer, 128);
  LocalTensor<half> local = buffer.Get<half>();
  for (uint32_t i = 0; i < 4; ++i) local(i) = half(0.5f * static_cast<float>(i));
  AscendC::printf("%s %d %.2f\n", "half", 7, half(0.25f));
  PRINTF("block %lld of %lld\n", static_cast<long long>(GetBlockIdx()),
         static_cast<long long>(GetBlockNum()));
  DumpTensor(local, 5, 4);
  GlobalTensor<int32_t> ints;
  ints.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(y), 64);
  ints.SetValue(0, -3);
  DumpAccChkPoint(ints, 9, 0, 1);
  assert(local.GetValue(1) == half(0.5f));
  ascendc_assert(GetBlockNum() == 1, "one block, not %d", 2);
  MetricsProfStart();
  MetricsProfStop();
  CheckLocalMemoryIA({});
}

KERNEL(failing_assert) {
  auto out = Results(y);
  out(0) = 1;
  assert(GetBlockNum() == 2, "%d blocks", 5);  // expect: assertion
  out(0) = 2;
}

KERNEL(trap) {
  auto out = Results(y);
  out(0) = 1;
  Trap();  // expect: assertion
  out(0) = 2;
}

KERNEL(allocator) {
  LocalMemAllocator<Hardware::UB> ub;
  LocalTensor<half> a = ub.Alloc<half, 64>();
  LocalTensor<half> b = ub.Alloc<TPosition::VECIN, half>(64);
  auto rest = ub.Alloc<TPosition::VECOUT, float, 32>();
  CopyThrough(a, x, y, 0);
  CopyThrough(b, x, y, 64);
  auto out = Results(y);
  out(32) = ub.GetCurAddr();
  out(33) = static_cast<int64_t>(rest.GetPhyAddr());
  out(34) = b.GetSize();
}

KERNEL(too_much) {
  LocalMemAllocator<Hardware::L0A> l0a;
  auto all = l0a.Alloc<half, 32 * 1024>();
  auto more = l0a.Alloc<half, 16>();  // expect: capacity
  Results(y)(0) = all.GetSize() + more.GetSize();
}

KERNEL(pools) {
  TPipe pipe;
  TBufPool<TPosition::VECCALC> whole, first, second;
  pipe.InitBufPool(whole, 1024);
  whole.InitBufPool(first, 512);
  whole.InitBufPool(second, 512, first);
  TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> queue;
  first.InitBuffer(queue, 2, 128);
  TBuf<TPosition::VECCALC> buffer, again;
  second.InitBuffer(buffer, 128);
  LocalTensor<half> tensor = queue.AllocTensor<half>();
  CopyThrough(tensor, x, y, 0);
  queue.FreeTensor(tensor);
  queue.FreeAllEvent();
  second.Reset();
  second.InitBuffer(again, 128);
  auto out = Results(y);
  out(16) = static_cast<int64_t>(again.Get<half>().GetPhyAddr() == buffer.Get<half>().GetPhyAddr());
  LocalTensor<half> left;
  PopStackBuffer<half, TPosition::LCM>(left);
  out(17) = left.GetLength();
  CopyThrough(left, x, y, 128);
}

KERNEL(pool_overrun) {
  TPipe pipe;
  TBufPool<TPosition::VECCALC> pool;
  pipe.InitBufPool(pool, 256);
  TBuf<TPosition::VECCALC> buffer;
  pool.InitBuffer(buffer, 288);  // expect: capacity
  Results(y)(0) = 0;
}

// Tensors in place, and one buffer on two legs of its way.
KERNEL(legs) {
  TPipe pipe;
  TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> queue;
  pipe.InitBuffer(queue, 1, 128);
  GlobalTensor<half> from, to;
  from.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x));
  to.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(y));
  for (uint32_t i = 0; i < 2; ++i) {
    LocalTensor<half> tensor;
    queue.AllocTensor<half>(tensor);
    tensor.SetBufferLen(64);
    DataCopy(tensor, from[i * 64], 64);
    queue.EnQue<TPosition::GM, TPosition::VECIN, half>(tensor);
    tensor = queue.DeQue<TPosition::GM, TPosition::VECIN, half>();
    Add(tensor, tensor, tensor, 64);
    queue.EnQue<TPosition::VECOUT, TPosition::GM, half>(tensor);
    queue.DeQue<half>(tensor);
    DataCopy(to[i * 64], tensor, 64);
    queue.FreeTensor(tensor);
  }
}

namespace {

struct Part {
  int32_t a, b;
};
struct Tiling {
  int64_t total;
  Part part;
  int64_t list[2];
};

}  // namespace

KERNEL(tiling) {
  auto out = Results(y);
  REGISTER_TILING_DEFAULT(Tiling);
  GET_TILING_DATA(whole, x);
  GET_TILING_DATA_WITH_STRUCT(Tiling, named, x);
  GET_TILING_DATA_MEMBER(Tiling, part, part, x);
  GET_TILING_DATA_PTR_WITH_STRUCT(Tiling, pointer, x);
  COPY_TILING_WITH_STRUCT(Part, pointer->part, copied);
  COPY_TILING_WITH_ARRAY(int64_t, 2, pointer->list, list);
  out(0) = whole.total + named.part.b;
  out(1) = part.a * 100 + copied->b;
  out(2) = (*list)[0] * 100 + (*list)[1];
  if (TILING_KEY_IS(0)) out(3) = 30;
  if (TILING_KEY_LIST(1, 2)) out(3) = 31;
  SetSysWorkspace(x);
  out(4) = GetSysWorkSpacePtr() == x && GetUserWorkspace(y) == y;
}

namespace {
void OnCube(GM_ADDR y) { Results(y)(0) = 10; }
void OnVector(GM_ADDR y, int64_t add) { Results(y)(1 + GetSubBlockIdx()) = 20 + add; }
}  // namespace

KERNEL(by_engine) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  Async<EngineType::AIC, OnCube>(y);
  Async<EngineType::AIV, OnVector>(y, int64_t{5});
  DataSyncBarrier<MemDsbT::ALL>();
  SetNextTaskStart();
  WaitPreTaskEnd();
  ICachePreLoad(2);
  Results(y)(8 + GetSubBlockIdx()) = GetICachePreloadStatus();
  DataCacheCleanAndInvalid<int64_t, CacheLine::ENTIRE_DATA_CACHE, DcciDst::CACHELINE_OUT>(Results(y));
}

// What tensors, queues and pipes say of themselves.
KERNEL(bookkeeping) {
  InitSocState();
  int64_t said[24];
  int i = 0;
  TPipe pipe;
  TQue<TPosition::VECIN, 2> queue;
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(queue, 2, 64);
  pipe.InitBuffer(buffer, 256);
  said[i++] = GetTPipePtr() == &pipe;
  said[i++] = queue.HasIdleBuffer() * 100 + queue.VacantInQue() * 10 + queue.HasTensorInQue();
  LocalTensor<half> first = queue.AllocTensor<half>(), second = queue.AllocTensor<half>();
  said[i++] = queue.HasIdleBuffer();
  queue.EnQue(first);
  said[i++] = queue.GetTensorCountInQue() * 10 + queue.HasTensorInQue();
  queue.FreeTensor(queue.DeQue<half>());
  queue.FreeTensor(second);
  said[i++] = queue.GetTensorCountInQue() * 10 + queue.HasIdleBuffer();
  LocalTensor<half> part = buffer.GetWithOffset<half>(32, 64), all = buffer.Get<half>(), other;
  said[i++] = static_cast<int64_t>(part.GetPhyAddr() - all.GetPhyAddr());
  said[i++] = part.GetSize();
  part.SetSize(16);
  part.SetUserTag(77);
  said[i++] = part.GetSize() * 100 + part.GetUserTag();
  said[i++] = part.GetPosition() == TPosition::VECCALC;
  other.SetAddrWithOffset(all, 48);
  said[i++] = static_cast<int64_t>(other.GetPhyAddr() - all.GetPhyAddr());
  said[i++] = GetTaskRatio();
  pipe.Destroy();
  said[i++] = GetTPipePtr() == nullptr;
  pipe.Init();
  said[i++] = GetTPipePtr() == &pipe;
  auto out = Results(y);
  out.SetL2CacheHint(CacheMode::CACHE_MODE_DISABLE);
  for (int k = 0; k < i; ++k) out(k) = said[k];
}
