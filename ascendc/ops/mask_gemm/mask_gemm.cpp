// c[M,N] = a[M,K] @ b[N,K]^T (+ bias[N]), each row in bf16 or in int8 by a packed selection: a mix of one
// cube core and two vector cores a block. One source for CANN and for the twin.
//
// Where the selection names a layer, or nothing, all rows take one path as they lie. Else one vector core
// sorts the numbers of the rows by path. Where both have some, all vector cores gather them, and each path is
// a product of its own over rows one after the other, whose results the vector cores scale and place.
// Empty M, N or K: the kernel does nothing; the host fills c and counts.
#include "../gemm/gemm_cube.h"
#include "deal.h"
#include "kernel_operator.h"
#include "rows_of_path.h"

namespace {

using namespace tw_mask;

constexpr uint16_t kSorted = 2;  // flag of the vector cores: counts are known, rows gathered

struct Arguments {
  GM_ADDR a8;
  GM_ADDR row_scale;
  GM_ADDR b8;
  GM_ADDR col_scale;
  GM_ADDR selection;
  GM_ADDR owner;
  GM_ADDR a;
  GM_ADDR b16;
  GM_ADDR bias;
  GM_ADDR c;
  GM_ADDR counts;
  GM_ADDR workspace;
};

class MaskGemm {
 public:
  __aicore__ inline MaskGemm(const Arguments& a, TwMaskGemmTiling& t)
      : a_(a),
        t_(t),
        blocks_(static_cast<int32_t>(AscendC::GetBlockNum())),
        to_(a.workspace, t, blocks_),
        selection_(a.selection, t),
        report_(a.counts, t),
        mixed_(t.resident != 0 && selection_.Mixed()) {
    paths_ = t.resident != 0 && selection_.layer ? Paths{0, t.codes.m} : Paths{t.codes.m, 0};
  }

  __aicore__ inline void Multiply() {
    if (mixed_) {
      AscendC::CrossCoreWaitFlag<2>(kSorted);
      Part();
    }
    const int32_t core = static_cast<int32_t>(AscendC::GetBlockIdx());
    Product<int8_t, int32_t>(t_.codes, apart_ ? to_.codes : a_.a8, a_.b8, TilesOfCodes(core));
    Product<bfloat16_t, float>(t_.floats, apart_ ? to_.floats : a_.a, a_.b16, TilesOfFloats(core));
  }

  __aicore__ inline void Finish() {
    const int32_t vector = static_cast<int32_t>(AscendC::GetBlockIdx());
    if (vector == 0) Sort();
    if (mixed_) Meet(vector);
    GM_ADDR bias = t_.has_bias != 0 ? a_.bias : nullptr;
    GM_ADDR scales = apart_ ? to_.scales : a_.row_scale;
    Place<int32_t>({scales, a_.col_scale, bias}, to_.numbers, TilesOfCodes(vector / 2));
    Place<float>({nullptr, nullptr, bias}, NumbersOfFloats(), TilesOfFloats(vector / 2));
  }

 private:
  __aicore__ inline Deal TilesOfCodes(int32_t core) const {
    Deal tiles;
    tiles.Start(t_.codes, paths_.codes, core, blocks_);
    return tiles;
  }
  // From the last core on: those that got a tile of codes less come first.
  __aicore__ inline Deal TilesOfFloats(int32_t core) const {
    Deal tiles;
    tiles.Start(t_.floats, paths_.floats, blocks_ - 1 - core, blocks_);
    return tiles;
  }

  template <typename In, typename Acc>
  __aicore__ inline void Product(const TwGemmTiling& t, GM_ADDR a, GM_ADDR b, const Deal& tiles) {
    tw_gemm::Ring<Acc> ring(to_.rings, t);
    tw_gemm::Cube<In, Acc, Deal, tw_gemm::Ring<Acc>> cube(t, ring);
    cube.Init(a, b, nullptr);
    cube.Process(tiles);
  }

  template <typename Acc>
  __aicore__ inline void Place(const tw_gemm::Factors& factors, GM_ADDR numbers, const Deal& tiles) {
    if (!tiles.Valid()) return;
    Room room;
    PlacedRows rows(a_.c, t_.codes.ldc, apart_ ? numbers : nullptr, t_.piece_rows, room);
    tw_gemm::Finish<Acc, bfloat16_t, Deal, PlacedRows> finish(t_.codes, t_.piece_rows, rows, room);
    finish.Init(to_.rings, factors);
    finish.Process(tiles);
  }

  // On one vector core: what is in which path, and the counts.
  __aicore__ inline void Sort() {
    int32_t selected = selection_.layer ? t_.codes.m : 0;
    Room room;
    if (selection_.Mixed()) {
      Sorter sorter(t_, room);
      selected = sorter.Sort(selection_, a_.owner, a_.row_scale, to_);
    }
    report_.Write(room, selected);
    AscendC::PipeBarrier<PIPE_ALL>();
  }
  // What was sorted; rows that lie gathered if both paths have some.
  __aicore__ inline void Part() {
    paths_ = report_.Read();
    apart_ = paths_.codes > 0 && paths_.floats > 0;
    if (!apart_) return;
    t_.codes.lda = t_.pitch_codes;
    t_.floats.lda = t_.pitch_floats / kFloatBytes;
  }
  __aicore__ inline void Meet(int32_t vector) {
    const int64_t codes = t_.codes.lda, floats = static_cast<int64_t>(t_.floats.lda) * kFloatBytes;
    AscendC::SyncAll();
    Part();
    if (apart_) {
      Room room;
      Gatherer gatherer(room);
      const int32_t k = t_.codes.k, parts = 2 * blocks_;
      gatherer.Gather(a_.a8, k, codes, to_.numbers, paths_.codes, to_.codes, t_.pitch_codes, parts, vector);
      gatherer.Gather(a_.a, k * kFloatBytes, floats, NumbersOfFloats(), paths_.floats, to_.floats,
                      t_.pitch_floats, parts, parts - 1 - vector);
      AscendC::PipeBarrier<PIPE_ALL>();
      AscendC::SyncAll();
    }
    AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kSorted);
  }
  __aicore__ inline GM_ADDR NumbersOfFloats() const {
    return to_.numbers + to_.apart * static_cast<int32_t>(sizeof(int32_t));
  }

  static constexpr int32_t kFloatBytes = sizeof(bfloat16_t);

  const Arguments& a_;
  TwMaskGemmTiling& t_;
  const int32_t blocks_;
  const Workspace to_;
  const Selection selection_;
  const Report report_;
  const bool mixed_;    // rows may differ
  bool apart_ = false;  // and do
  Paths paths_{};
};

}  // namespace

extern "C" __global__ __aicore__ void mask_gemm_bf16(GM_ADDR a8, GM_ADDR row_scale, GM_ADDR b8,
                                                     GM_ADDR col_scale, GM_ADDR selection, GM_ADDR owner,
                                                     GM_ADDR a, GM_ADDR b16, GM_ADDR bias, GM_ADDR c,
                                                     GM_ADDR counts, GM_ADDR workspace, GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  TwMaskGemmTiling t;
  tw_gemm::ReadTiling(tiling, t);
  if (t.codes.m <= 0 || t.codes.n <= 0 || t.codes.k <= 0) return;
  const Arguments arguments{a8, row_scale, b8,   col_scale, selection, owner,
                            a,  b16,       bias, c,         counts,    workspace};
  MaskGemm op(arguments, t);
  if ASCEND_IS_AIC
    op.Multiply();
  if ASCEND_IS_AIV
    op.Finish();
}
