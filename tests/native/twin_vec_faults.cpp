// Vector calls that the documentation forbids, one a kernel, and neighbours of theirs that it allows. And
// transfers that combine with what GM holds.
#include "twin_vec.h"

using namespace vec;

namespace {

template <typename T>
LocalTensor<T> Filled(uint32_t at, uint32_t elements) {
  LocalTensor<T> t(TPosition::VECCALC, at, elements);
  Duplicate(t, T(1), static_cast<int32_t>(elements));
  PipeBarrier<PIPE_V>();
  return t;
}

}  // namespace

KERNEL mask_beyond_a_repeat(GM_ADDR) {
  auto a = Filled<float>(0, 128);
  Adds(a, a, 1.0f, 128, 1, {1, 1, 8, 8});  // FAULT
}
KERNEL repeat_beyond_a_byte(GM_ADDR) {
  auto a = Filled<half>(0, 128);
  const int times = 300;
  Adds(a, a, half(1), 128, times, {1, 1, 0, 0});  // FAULT
}
KERNEL negative_count(GM_ADDR) {
  auto a = Filled<half>(0, 128);
  Exp(a, a, -16);  // FAULT
}
KERNEL len_beyond_a_repeat(GM_ADDR) {
  SetVectorMask<float>(65);  // FAULT
  ResetMask();
}
KERNEL type_not_for_2201(GM_ADDR) {
  LocalTensor<uint8_t> a(TPosition::VECCALC, 0, 256);
  Add(a, a, a, 256);  // FAULT
}
KERNEL pair_not_for_2201(GM_ADDR) {
  LocalTensor<int8_t> a(TPosition::VECCALC, 0, 256);
  LocalTensor<float> b(TPosition::VECCALC, 1024, 256);
  Cast(b, a, RoundMode::CAST_NONE, 256);  // FAULT
}
KERNEL mode_not_for_this_pair(GM_ADDR) {
  auto a = Filled<half>(0, 64);
  LocalTensor<float> b(TPosition::VECCALC, 1024, 64);
  Cast(b, a, RoundMode::CAST_RINT, 64);  // FAULT
}
KERNEL operand_in_l1(GM_ADDR) {
  LocalTensor<half> a(TPosition::A1, 0, 128);
  LocalTensor<half> b(TPosition::VECCALC, 0, 128);
  Adds(b, a, half(1), 128);  // FAULT
}
KERNEL misaligned_source(GM_ADDR) {
  auto a = Filled<half>(0, 256);
  LocalTensor<half> b(TPosition::VECCALC, 1024, 128);
  Abs(b, a[1], 128);  // FAULT
}
KERNEL count_beyond_the_buffer(GM_ADDR) {
  auto a = Filled<half>(0, 128);
  LocalTensor<half> b(TPosition::VECCALC, 1024, 112);
  Abs(b, a, 128);  // FAULT
}
KERNEL overlap_in_part(GM_ADDR) {
  auto a = Filled<half>(0, 512);
  Add(a[16], a, a, 128, 1, {1, 1, 1, 8, 8, 8});  // FAULT
}
KERNEL reads_what_an_earlier_repeat_wrote(GM_ADDR) {
  auto a = Filled<half>(0, 512);
  Adds(a[128], a, half(1), 128, 2, {1, 1, 8, 8});  // FAULT
}
KERNEL int16_does_not_accumulate(GM_ADDR) {
  auto a = Filled<int16_t>(0, 512);
  auto d = Filled<int16_t>(2048, 128);
  Add(d, a, d, 128, 4, {1, 1, 1, 0, 8, 0});  // FAULT
}
KERNEL shift_beyond_the_width(GM_ADDR) {
  auto a = Filled<int16_t>(0, 128);
  ShiftLeft(a, a, static_cast<int16_t>(17), 128);  // FAULT
}
KERNEL compare_of_a_part(GM_ADDR) {
  auto a = Filled<half>(0, 128);
  Compare(LocalTensor<uint8_t>(TPosition::VECCALC, 1024, 32), a, a, CMPMODE::LT, 100);  // FAULT
}
KERNEL compare_of_int32(GM_ADDR) {
  auto a = Filled<int32_t>(0, 64);
  Compare(LocalTensor<uint8_t>(TPosition::VECCALC, 1024, 32), a, a, CMPMODE::LT, 64);  // FAULT
}
KERNEL half_a_byte(GM_ADDR) {
  auto a = Filled<half>(0, 128);
  LocalTensor<int4b_t> b(TPosition::VECCALC, 1024, 256);
  Cast(b, a, RoundMode::CAST_NONE, 7);  // FAULT
}
KERNEL blocks_on_one(GM_ADDR) {
  auto a = Filled<half>(0, 128);
  LocalTensor<half> b(TPosition::VECCALC, 1024, 128);
  Abs(b, a, 128, 1, {0, 1, 8, 8});  // FAULT
}
KERNEL sign_of_another_type(GM_ADDR) {
  auto a = Filled<int16_t>(0, 128);
  SetDeqScale(1.0f, 0, true);
  CastDequant<uint8_t, int16_t, false, false>(LocalTensor<uint8_t>(TPosition::VECCALC, 1024, 256), a,
                                              128);  // FAULT
}
KERNEL atomic_of_another_type(GM_ADDR y) {
  auto a = Filled<float>(0, 64);
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  SetAtomicAdd<half>();
  DataCopy(Gm<float>(y), a, 64);  // FAULT
  SetAtomicNone();
}

// Allowed: the last block of a tensor under a mask, a chain of sums, int4 in pairs, the same bytes.
KERNEL allowed(GM_ADDR y) {
  auto tail = Filled<half>(0, 16);
  Adds(tail, tail, half(1), 16, 1, {1, 1, 8, 8});
  auto rows = Filled<float>(1024, 256);
  auto sum = Filled<float>(4096, 64);
  Add(sum, rows, sum, 64, 4, {1, 1, 1, 0, 8, 0});
  PipeBarrier<PIPE_V>();
  Mul(sum, sum, sum, 64);
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  DataCopy(Gm<float>(y), sum, 64);
}

namespace {

template <typename T>
void Atomic(GM_ADDR y, GM_ADDR x, int32_t what, int32_t count, int32_t padded) {
  LocalTensor<T> a(TPosition::VECCALC, 0, static_cast<uint32_t>(count));
  DataCopy(a, Gm<T>(x)[static_cast<uint64_t>(GetBlockIdx()) * count], static_cast<uint32_t>(count));
  SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  if (what == 0) SetAtomicAdd<T>();
  if (what == 1) SetAtomicMax<T>();
  if (what == 2) SetAtomicMin<T>();
  if (padded != 0)
    DataCopyPad(Gm<T>(y), a, DataCopyExtParams(1, static_cast<uint32_t>(count * sizeof(T)), 0, 0, 0));
  else
    DataCopy(Gm<T>(y), a, static_cast<uint32_t>(count));
  DisableDmaAtomic();
}

}  // namespace

KERNEL atomic_copy(GM_ADDR y, GM_ADDR x, int32_t type, int32_t what, int32_t count, int32_t padded) {
  using tilewright::twin::DType;
  switch (static_cast<DType>(type)) {
    case DType::F32:
      return Atomic<float>(y, x, what, count, padded);
    case DType::F16:
      return Atomic<half>(y, x, what, count, padded);
    case DType::BF16:
      return Atomic<bfloat16_t>(y, x, what, count, padded);
    case DType::S8:
      return Atomic<int8_t>(y, x, what, count, padded);
    case DType::S16:
      return Atomic<int16_t>(y, x, what, count, padded);
    default:
      return Atomic<int32_t>(y, x, what, count, padded);
  }
}

// y += x @ eye, both 16 x 16.
KERNEL atomic_fixpipe(GM_ADDR y, GM_ADDR x, GM_ADDR eye) {
  LocalTensor<half> a1(TPosition::A1, 0, 256), b1(TPosition::B1, 512, 256);
  LocalTensor<half> a2(TPosition::A2, 0, 256), b2(TPosition::B2, 0, 256);
  LocalTensor<float> c(TPosition::CO1, 0, 256);
  DataCopy(a1, Gm<half>(x), 256);
  DataCopy(b1, Gm<half>(eye), 256);
  SetFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
  LoadData(a2, a1, LoadData2DParams(0, 1, 1, 0, 0, false, 0));
  LoadData(b2, b1, LoadData2DParams(0, 1, 1, 0, 0, false, 0));
  SetFlag<HardEvent::MTE1_M>(EVENT_ID0);
  WaitFlag<HardEvent::MTE1_M>(EVENT_ID0);
  MmadParams p;
  p.m = p.n = p.k = 16;
  Mmad(c, a2, b2, p);
  SetFlag<HardEvent::M_FIX>(EVENT_ID0);
  WaitFlag<HardEvent::M_FIX>(EVENT_ID0);
  SetAtomicAdd<float>();
  Fixpipe(Gm<float>(y), c, FixpipeParamsV220(16, 16, 16, 16, false));
  SetAtomicNone();
}

// `times` instructions of 16384 elements, for the clock.
KERNEL many(GM_ADDR x, int32_t what, int32_t times) {
  LocalTensor<half> a(TPosition::VECCALC, 0, 16384), b(TPosition::VECCALC, 32768, 16384);
  LocalTensor<float> f(TPosition::VECCALC, 65536, 16384);
  DataCopy(a, Gm<half>(x), 16384);
  SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
  for (int32_t i = 0; i < times; ++i) {
    if (what == 0) Add(b, a, a, 16384);
    if (what == 1) Exp(b, a, 16384);
    if (what == 2) Cast(f, a, RoundMode::CAST_NONE, 16384);
    if (what == 3) Cast(b.ReinterpretCast<int8_t>(), a, RoundMode::CAST_RINT, 16384);
    if (what == 4) Compare(b.ReinterpretCast<uint8_t>(), a, a, CMPMODE::LT, 16384);
    PipeBarrier<PIPE_V>();
  }
}

// What the registers of the scalar unit hold, and a sum in the type set last.
KERNEL atomic_registers(GM_ADDR y, GM_ADDR x, GM_ADDR state) {
  int32_t* out = reinterpret_cast<int32_t*>(state);
  uint16_t type = 9, op = 9;
  SetStoreAtomicConfig<AtomicDtype::ATOMIC_S32, AtomicOp::ATOMIC_SUM>();
  GetStoreAtomicConfig(type, op);
  out[0] = type;
  out[1] = op;
  out[2] = GetSaturationFlag<SaturationMode::FLOAT>();
  out[3] = GetSaturationFlag<SaturationMode::CAST>();
  SetSaturationFlag<SaturationMode::FLOAT>(true);
  SetSaturationFlag<SaturationMode::CAST>(false);
  out[4] = GetSaturationFlag<SaturationMode::FLOAT>();
  out[5] = GetSaturationFlag<SaturationMode::CAST>();
  SetAtomicAdd<half>();
  SetAtomicType<float>();
  LocalTensor<float> a(TPosition::VECCALC, 0, 64);
  DataCopy(a, Gm<float>(x), 64);
  SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  DataCopy(Gm<float>(y), a, 64);
  SetStoreAtomicConfig<AtomicDtype::ATOMIC_NONE, AtomicOp::ATOMIC_SUM>();
  GetStoreAtomicConfig(type, op);
  out[6] = type;
}
