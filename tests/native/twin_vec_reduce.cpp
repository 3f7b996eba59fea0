// Reductions: x lies at 0 of UB, the destination behind it, the work tensor behind that.
#include "twin_vec_across.h"

using namespace across;

namespace {

enum Op { kWholeSum, kWholeMax, kWholeMin, kBlockSum, kBlockMax, kBlockMin, kPairSum, kRepeatSum };

}  // namespace

// p: type, bytes of x, bytes of y, op, old or new names, how, mask, mask, repeat, dstRep, srcBlk, srcRep,
// order, dst offset in bytes
KERNEL reduce_lanes(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Floats(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t xs = static_cast<uint32_t>(p[1]), ys = static_cast<uint32_t>(p[2]);
    const LocalTensor<T> src = Load<T>(x, 0, xs);
    const LocalTensor<T> dst = Load<T>(y, xs, ys)[static_cast<uint32_t>(p[13]) / sizeof(T)];
    Ready();
    const int32_t repeat = p.Int(8), dstRep = p.Int(9), blk = p.Int(10), rep = p.Int(11);
    const auto order = static_cast<ReduceOrder>(p[12]);
    const bool old = p[4] == 0;
    Masked<T>(p, 5, [&](auto mask, auto set) {
      constexpr bool kSet = decltype(set)::value;
      switch (p[3]) {
        case kWholeSum:
          if (old) return WholeReduceSum<T, kSet>(dst, src, mask, repeat, dstRep, blk, rep);
          return ReduceRepeat<ReduceType::SUM, T, T, kSet>(dst, src, mask, repeat, dstRep, blk, rep);
        case kWholeMax:
          if (old) return WholeReduceMax<T, kSet>(dst, src, mask, repeat, dstRep, blk, rep, order);
          return ReduceRepeat<ReduceType::MAX, T, T, kSet>(dst, src, mask, repeat, dstRep, blk, rep, order);
        case kWholeMin:
          if (old) return WholeReduceMin<T, kSet>(dst, src, mask, repeat, dstRep, blk, rep, order);
          return ReduceRepeat<ReduceType::MIN, T, T, kSet>(dst, src, mask, repeat, dstRep, blk, rep, order);
        case kBlockSum:
          if (old) return BlockReduceSum<T, kSet>(dst, src, repeat, mask, dstRep, blk, rep);
          return ReduceDataBlock<ReduceType::SUM, T, T, kSet>(dst, src, mask, repeat, dstRep, blk, rep);
        case kBlockMax:
          if (old) return BlockReduceMax<T, kSet>(dst, src, repeat, mask, dstRep, blk, rep);
          return ReduceDataBlock<ReduceType::MAX, T, T, kSet>(dst, src, mask, repeat, dstRep, blk, rep);
        case kBlockMin:
          if (old) return BlockReduceMin<T, kSet>(dst, src, repeat, mask, dstRep, blk, rep);
          return ReduceDataBlock<ReduceType::MIN, T, T, kSet>(dst, src, mask, repeat, dstRep, blk, rep);
        case kPairSum:
          if (old) return PairReduceSum<T, kSet>(dst, src, repeat, mask, dstRep, blk, rep);
          return ReducePairElem<ReduceType::SUM, T, T, kSet>(dst, src, mask, repeat, dstRep, blk, rep);
        default:
          return RepeatReduceSum<T, kSet>(dst, src, repeat, mask, 1, blk, dstRep, rep);
      }
    });
    Store(y, xs, ys);
  });
}

// p: type, bytes of x, bytes of work, op (0 sum, 1 max, 2 min), calIndex, count form, how, mask, mask (the
// count stands in the first), repeat, srcRep. y: 32 bytes of results, 32 of what the registers hold.
KERNEL reduce_all(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Floats(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t xs = static_cast<uint32_t>(p[1]), works = static_cast<uint32_t>(p[2]);
    const LocalTensor<T> src = Load<T>(x, 0, xs), dst = Load<T>(y, xs, 32);
    const LocalTensor<T> work = At<T>(xs + 64, works);
    Ready();
    const bool index = p[4] != 0;
    const int32_t count = p.Int(7), repeat = p.Int(9), rep = p.Int(10);
    if (p[5] != 0) {
      if (p[3] == 0) ReduceSum(dst, src, work, count);
      if (p[3] == 1) ReduceMax(dst, src, work, count, index);
      if (p[3] == 2) ReduceMin(dst, src, work, count, index);
    } else {
      Masked<T>(p, 6, [&](auto mask, auto) {
        if (p[3] == 0) ReduceSum(dst, src, work, mask, repeat, rep);
        if (p[3] == 1) ReduceMax(dst, src, work, mask, repeat, rep, index);
        if (p[3] == 2) ReduceMin(dst, src, work, mask, repeat, rep, index);
      });
    }
    Store(y, xs, 32);
    GlobalTensor<T> registers = Gm<T>(y + 32);
    if (p[3] == 0) {
      registers.SetValue(0, GetAccVal<T>());
      registers.SetValue(1, GetReduceRepeatSumSpr<T>());
    } else {
      T value, place;
      GetReduceMaxMinCount<T>(value, place);
      registers.SetValue(0, value);
      GetReduceRepeatMaxMinSpr<T>(value, place);
      registers.SetValue(1, place);
    }
  });
}

// A source that lies before the destination, as often as asked: how fast the twin is.
KERNEL reduce_speed(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Floats(p[0], [&](auto zero) {
    using T = decltype(zero);
    const LocalTensor<T> src = Load<T>(x, 0, 65280), dst = At<T>(65536, 4096), work = At<T>(81920, 4096);
    Ready();
    const int32_t lanes = 256 / sizeof(T);
    for (int64_t i = 0; i < p[2]; ++i) {
      if (p[1] == 0) WholeReduceMax<T>(dst, src, lanes, 255, 1, 1, 8);
      if (p[1] == 1) WholeReduceSum<T>(dst, src, lanes, 255, 1, 1, 8);
      if (p[1] == 2) ReduceMax<T>(dst, src, work, 255 * lanes, true);
      if (p[1] == 3) ReduceSum<T>(dst, src, work, 255 * lanes);
      PipeBarrier<PIPE_V>();
    }
    Store(y, 65536, 32);
  });
}
