// Mixed kernels and synchronisation between cores. All values are small integers, so every sum is exact.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kTile = 16, kElements = kTile * kTile;

// C[16,16] = A @ A of one tile on the cube core, into `to`.
void Square(const GlobalTensor<half>& from, const GlobalTensor<float>& to) {
  const LocalTensor<half> a1(TPosition::A1, 0, kElements), a2(TPosition::A2, 0, kElements),
      b2(TPosition::B2, 0, kElements);
  const LocalTensor<float> co1(TPosition::CO1, 0, kElements);
  DataCopy(a1, from, Nd2NzParams(1, kTile, kTile, 0, kTile, kTile, 1, 0));
  SetFlag<HardEvent::MTE2_MTE1>(0);
  WaitFlag<HardEvent::MTE2_MTE1>(0);
  LoadData(a2, a1, LoadData2DParams(0, 1, 1, 0, 0, false, 0));
  LoadData(b2, a1, LoadData2DParams(0, 1, 1, 0, 0, true, 0));
  SetFlag<HardEvent::MTE1_M>(0);
  WaitFlag<HardEvent::MTE1_M>(0);
  MmadParams p;
  p.m = p.n = p.k = kTile;
  Mmad(co1, a2, b2, p);
  SetFlag<HardEvent::M_FIX>(0);
  WaitFlag<HardEvent::M_FIX>(0);
  Fixpipe<float, float, CFG_ROW_MAJOR>(to, co1, FixpipeParamsV220(kTile, kTile, kTile, kTile, false));
}

template <typename T>
GlobalTensor<T> View(GM_ADDR address, uint64_t offset = 0) {
  GlobalTensor<T> t;
  t.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(address) + offset);
  return t;
}

// One vector core's half of a tile: GM -> UB -> GM.
void PassOn(const GlobalTensor<float>& from, const GlobalTensor<float>& to, uint32_t count) {
  const LocalTensor<float> ub(TPosition::VECCALC, 0, count);
  DataCopy(ub, from, count);
  SetFlag<HardEvent::MTE2_MTE3>(0);
  WaitFlag<HardEvent::MTE2_MTE3>(0);
  DataCopy(to, ub, count);
}

}  // namespace

#define KERNEL extern "C" __global__ __aicore__ void

// Each block: the cube core squares its tile, `rounds` times; its vector cores carry the halves to y.
KERNEL cube_to_vector(GM_ADDR x, GM_ADDR work, GM_ADDR y, uint32_t rounds, uint32_t keep_order) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  if ASCEND_IS_AIC {
    const uint64_t at = GetBlockIdx() * kElements;
    for (uint32_t i = 0; i < rounds; ++i) {
      if (i > 0 && keep_order != 0) CrossCoreWaitFlag(1);  // the vector cores are done with the workspace
      if (i > 0) PipeBarrier<PIPE_ALL>();
      Square(View<half>(x, at), View<float>(work, at));  // race without keep_order
      CrossCoreSetFlag<2, PIPE_FIX>(0);
    }
  }
  if ASCEND_IS_AIV {
    constexpr uint32_t half_tile = kElements / 2;
    const uint64_t at = GetBlockIdx() * half_tile;
    for (uint32_t i = 0; i < rounds; ++i) {
      CrossCoreWaitFlag(0);
      if (i > 0) PipeBarrier<PIPE_ALL>();
      PassOn(View<float>(work, at), View<float>(y, at), half_tile);
      if (i + 1 < rounds && keep_order != 0) CrossCoreSetFlag<2, PIPE_MTE2>(1);
    }
  }
}

// Every vector core writes its number, all meet, and each reads its neighbour's.
KERNEL neighbours(GM_ADDR work, GM_ADDR y, uint32_t meet) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  const uint32_t me = GetBlockIdx(), next = (me + 1) % GetBlockNum();
  const LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 8);
  for (uint32_t i = 0; i < 8; ++i) ub.SetValue(i, static_cast<int32_t>(me));
  SetFlag<HardEvent::S_MTE3>(0);
  WaitFlag<HardEvent::S_MTE3>(0);
  DataCopy(View<int32_t>(work, me * 8), ub, 8);
  PipeBarrier<PIPE_ALL>();
  if (meet == 1) SyncAll();
  if (meet == 2) {
    CrossCoreSetFlag<0, PIPE_MTE3>(3);
    CrossCoreWaitFlag(3);
  }
  DataCopy(ub, View<int32_t>(work, next * 8), 8);
  PipeBarrier<PIPE_ALL>();
  DataCopy(View<int32_t>(y, me * 8), ub, 8);
}

// The two vector cores of each group exchange halves.
KERNEL swap_halves(GM_ADDR work, GM_ADDR y) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  if ASCEND_IS_AIV {
    const uint32_t me = GetBlockIdx(), other = me ^ 1;
    const LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 8);
    for (uint32_t i = 0; i < 8; ++i) ub.SetValue(i, static_cast<int32_t>(me));
    PipeBarrier<PIPE_ALL>();
    DataCopy(View<int32_t>(work, me * 8), ub, 8);
    CrossCoreSetFlag<1, PIPE_MTE3>(5);
    CrossCoreWaitFlag(5);
    PipeBarrier<PIPE_ALL>();
    DataCopy(ub, View<int32_t>(work, other * 8), 8);
    PipeBarrier<PIPE_ALL>();
    DataCopy(View<int32_t>(y, me * 8), ub, 8);
  }
}

// What each core says of itself: block, sub-block, their numbers, and its kind.
KERNEL who(GM_ADDR y, uint32_t declared) {
  if (declared == 12) KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  if (declared == 11) KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_1);
  int64_t slot = 0;
  if ASCEND_IS_AIV
    slot = GetBlockNum() + GetBlockIdx();
  if ASCEND_IS_AIC
    slot = GetBlockIdx();
  GlobalTensor<int32_t> out = View<int32_t>(y, slot * 16);
  out.SetValue(0, static_cast<int32_t>(GetBlockIdx()));
  out.SetValue(1, static_cast<int32_t>(GetBlockNum()));
  out.SetValue(2, static_cast<int32_t>(GetSubBlockIdx()));
  out.SetValue(3, static_cast<int32_t>(GetSubBlockNum()));
  bool vector = false;
  if ASCEND_IS_AIV
    vector = true;
  out.SetValue(4, vector ? 2 : 1);
}

KERNEL cube_waits_for_nothing(GM_ADDR) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  if ASCEND_IS_AIC
    CrossCoreWaitFlag(0);
}

KERNEL one_vector_core_forgets(GM_ADDR) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  if ASCEND_IS_AIC
    CrossCoreWaitFlag(0);
  if ASCEND_IS_AIV {
    if (GetSubBlockIdx() == 0) CrossCoreSetFlag<2, PIPE_MTE3>(0);
  }
}

KERNEL flag_for_nobody(GM_ADDR) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  if ASCEND_IS_AIC
    CrossCoreSetFlag<2, PIPE_FIX>(7);
}

KERNEL too_many_flags(GM_ADDR) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  if ASCEND_IS_AIC {
    for (int i = 0; i < 16; ++i) CrossCoreSetFlag<2, PIPE_FIX>(7);
  }
  if ASCEND_IS_AIV {
    SyncAll<false>();
    for (int i = 0; i < 16; ++i) CrossCoreWaitFlag(7);
  }
  if ASCEND_IS_AIC
    SyncAll<false>();
}

KERNEL all_but_one_meet(GM_ADDR) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  if (GetBlockIdx() != 1) SyncAll();
}

// Copy-in, copy-out; the flag between them is missing where `flag` is 0.
KERNEL copy(GM_ADDR x, GM_ADDR y, uint32_t flag) {
  const LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 64);
  DataCopy(ub, View<int32_t>(x), 64);
  if (flag != 0) {
    SetFlag<HardEvent::MTE2_MTE3>(0);
    WaitFlag<HardEvent::MTE2_MTE3>(0);
  }
  DataCopy(View<int32_t>(y), ub, 64);
}

// The scalar unit adds one to what was copied in, and writes nothing where `flags` is 0.
KERNEL add_one(GM_ADDR x, GM_ADDR y, uint32_t flags) {
  const LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 64);
  DataCopy(ub, View<int32_t>(x), 64);
  if (flags != 0) {
    SetFlag<HardEvent::MTE2_S>(0);
    WaitFlag<HardEvent::MTE2_S>(0);
  }
  for (uint32_t i = 0; i < 64; ++i) ub.SetValue(i, ub.GetValue(i) + 1);
  if (flags != 0) {
    SetFlag<HardEvent::S_MTE3>(0);
    WaitFlag<HardEvent::S_MTE3>(0);
  }
  DataCopy(View<int32_t>(y), ub, 64);
}

// MTE2 waits for MTE3, which waits for MTE2.
KERNEL cycle(GM_ADDR x, GM_ADDR y) {
  const LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 64);
  WaitFlag<HardEvent::MTE3_MTE2>(0);
  DataCopy(ub, View<int32_t>(x), 64);
  SetFlag<HardEvent::MTE2_MTE3>(0);
  WaitFlag<HardEvent::MTE2_MTE3>(0);
  DataCopy(View<int32_t>(y), ub, 64);
  SetFlag<HardEvent::MTE3_MTE2>(0);
}

// A wait may be issued before its set, as long as the scalar unit goes on to the set.
KERNEL wait_first(GM_ADDR x, GM_ADDR y) {
  const LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 64);
  WaitFlag<HardEvent::MTE2_MTE3>(0);
  DataCopy(View<int32_t>(y), ub, 64);
  DataCopy(ub, View<int32_t>(x), 64);
  SetFlag<HardEvent::MTE2_MTE3>(0);
}

// Block 0 tells block 1, which reads what block 0 wrote; `tell` 0 leaves the signal out.
KERNEL tell(GM_ADDR work, GM_ADDR y, uint32_t tell) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  GlobalTensor<int32_t> room = View<int32_t>(work, 64);
  const LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 8), state(TPosition::VECCALC, 64, 8);
  if (GetBlockIdx() == 0) {
    for (uint32_t i = 0; i < 8; ++i) ub.SetValue(i, 41);
    PipeBarrier<PIPE_ALL>();
    DataCopy(View<int32_t>(work), ub, 8);
    if (tell != 0) IBSet(room, state, 1, 0);
    return;
  }
  IBWait(room, state, 1, 0);
  DataCopy(ub, View<int32_t>(work), 8);
  PipeBarrier<PIPE_ALL>();
  DataCopy(View<int32_t>(y), ub, 8);
}

// Each block doubles what is there and adds its number, twice around: an order shows in the result.
KERNEL in_turn(GM_ADDR y, GM_ADDR work) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  GlobalTensor<int32_t> room = View<int32_t>(work);
  LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 8), state(TPosition::VECCALC, 64, 64);
  InitDetermineComputeWorkspace(room, state);
  for (int turn = 0; turn < 2; ++turn) {
    WaitPreBlock(room, state);
    DataCopy(ub, View<int32_t>(y), 8);
    PipeBarrier<PIPE_ALL>();
    ub.SetValue(0, ub.GetValue(0) * 2 + static_cast<int32_t>(GetBlockIdx()));
    PipeBarrier<PIPE_ALL>();
    DataCopy(View<int32_t>(y), ub, 8);
    NotifyNextBlock(room, state);
  }
}

// Every core writes, all meet on their MTE3, and each writes its own place again: its first copy is done.
KERNEL write_again(GM_ADDR y) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  const LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 8);
  GlobalTensor<int32_t> mine = View<int32_t>(y, GetBlockIdx() * 8);
  for (uint32_t i = 0; i < 8; ++i) ub.SetValue(i, static_cast<int32_t>(GetBlockIdx()));
  SetFlag<HardEvent::S_MTE3>(0);
  WaitFlag<HardEvent::S_MTE3>(0);
  DataCopy(mine, ub, 8);
  CrossCoreSetFlag<0, PIPE_MTE3>(0);
  CrossCoreWaitFlag(0);
  DataCopy(mine, ub, 8);
}

// How long a copy takes on the core's own clock.
KERNEL ticks(GM_ADDR x, GM_ADDR y) {
  const LocalTensor<float> ub(TPosition::VECCALC, 0, 16384);
  const int64_t before = GetSystemCycle();
  for (int i = 0; i < 16; ++i) {
    DataCopy(ub, View<float>(x), 16384);
    PipeBarrier<PIPE_ALL>();
  }
  GlobalTensor<int64_t> out = View<int64_t>(y);
  out.SetValue(0, GetSystemCycle() - before);
}

// Core 0 writes 16 words by its scalar unit, all meet, core 1 reads them: by MTE2, or (how 5) by its own
// scalar unit. how 0: never cleaned; 1: the line; 2: all of the cache; 3: half of the line; 6: written past
// it; 4: after the meeting.
KERNEL cached(GM_ADDR x, GM_ADDR y, int32_t how) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  constexpr CacheLine kLine = CacheLine::SINGLE_CACHE_LINE, kAll = CacheLine::ENTIRE_DATA_CACHE;
  const LocalTensor<int32_t> ub(TPosition::VECCALC, 0, 16);
  GlobalTensor<int32_t> words = View<int32_t>(x);
  if (GetBlockIdx() == 0) {
    for (uint32_t i = 0; i < 16 && how != 6; ++i) words.SetValue(i, 7);
    for (uint32_t i = 0; i < 16 && how == 6; ++i)
      WriteGmByPassDCache(reinterpret_cast<__gm__ int32_t*>(x) + i, 7);
    if (how == 1) DataCacheCleanAndInvalid<int32_t, kLine, DcciDst::CACHELINE_OUT>(words);
    if (how == 2) DataCacheCleanAndInvalid<int32_t, kAll>(GlobalTensor<int32_t>());
    if (how == 3) DataCacheCleanAndInvalid<int32_t, kLine>(words[8]);
  }
  SyncAll();
  if (GetBlockIdx() == 0 && how == 4) DataCacheCleanAndInvalid<int32_t, kLine>(words);
  if (GetBlockIdx() == 1) {
    if (how == 5) return View<int32_t>(y).SetValue(0, words.GetValue(3));
    DataCopy(ub, words, 16);
    PipeBarrier<PIPE_ALL>();
    DataCopy(View<int32_t>(y), ub, 16);
  }
}

// Two meetings by a flag with an id that SyncAll takes, which may be called as well, before or after.
KERNEL ids_of_sync_all(GM_ADDR, int32_t before, int32_t after) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  if (before != 0) SyncAll();
  CrossCoreSetFlag<0, PIPE_MTE3>(12);
  CrossCoreWaitFlag(12);
  if (after != 0) SyncAll();
}
