// GM -> UB or GM -> L1 (rows to fractals), tile by tile, with nothing else: what reading costs by the shape
// of a copy, by how often and in which order cores read.
#include "bench.h"

namespace {

using AscendC::GlobalTensor;
using AscendC::LocalTensor;
using AscendC::TPosition;
using namespace tw_bench;

enum Order : int32_t {
  kOwnRows = 0,    // each core its share of the rows
  kSame = 1,       // each core all rows, all in the same order
  kStaggered = 2,  // each core all rows, each starting at its own share
};

struct CopyTiling {
  int32_t rows, columns;  // of the matrix of half
  int32_t tile_rows, tile_columns;
  int32_t passes;  // over what a core reads
  int32_t parts;   // of the columns, each passed over before the next
  int32_t order;
  int32_t bypass;  // L2 keeps nothing
};

class Copies {
 public:
  __aicore__ inline Copies() {}
  __aicore__ inline void Init(GM_ADDR src, GM_ADDR tiling, bool to_l1) {
    ReadTiling(tiling, t_);
    src_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(src));
    if (t_.bypass != 0) src_.SetL2CacheHint(AscendC::CacheMode::CACHE_MODE_DISABLE);
    to_l1_ = to_l1;
    const int32_t rows = to_l1 ? CeilDiv(t_.tile_rows, 16) * 16 : t_.tile_rows;
    const uint32_t size = static_cast<uint32_t>(rows * CeilDiv(t_.tile_columns, 16) * 16);
    dst_ = LocalTensor<half>(to_l1 ? TPosition::A1 : TPosition::VECIN, 0, size);
  }
  __aicore__ inline void Process() {
    const int32_t blocks = static_cast<int32_t>(AscendC::GetBlockNum());
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    const int32_t part = t_.columns / t_.parts;
    for (int32_t i = 0; i < t_.parts; ++i) {
      const int32_t first = i * part, end = i + 1 == t_.parts ? t_.columns : first + part;
      for (int32_t pass = 0; pass < t_.passes; ++pass) {
        if (t_.order == kOwnRows) {
          Rows(ShareOf(t_.rows, blocks, block), first, end);
          continue;
        }
        for (int32_t turn = 0; turn < blocks; ++turn)
          Rows(ShareOf(t_.rows, blocks, t_.order == kSame ? turn : (turn + block) % blocks), first, end);
      }
    }
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  __aicore__ inline void Rows(const Share& share, int32_t first, int32_t end) {
    for (int32_t row = 0; row < share.count; row += t_.tile_rows)
      for (int32_t column = first; column < end; column += t_.tile_columns)
        Tile(share.begin + row, column, Min(t_.tile_rows, share.count - row),
             Min(t_.tile_columns, end - column));
  }
  __aicore__ inline void Tile(int32_t row, int32_t column, int32_t rows, int32_t columns) {
    const GlobalTensor<half> src = src_[static_cast<uint64_t>(row) * t_.columns + column];
    if (to_l1_) {
      AscendC::Nd2NzParams p;
      p.ndNum = 1;
      p.nValue = static_cast<uint16_t>(rows);
      p.dValue = static_cast<uint16_t>(columns);
      p.srcNdMatrixStride = 0;
      p.srcDValue = static_cast<uint16_t>(t_.columns);
      p.dstNzC0Stride = static_cast<uint16_t>(CeilDiv(t_.tile_rows, 16) * 16);
      p.dstNzNStride = 1;
      p.dstNzMatrixStride = 0;
      AscendC::DataCopy(dst_, src, p);
      return;
    }
    const uint32_t bytes = static_cast<uint32_t>(columns) * sizeof(half);
    AscendC::DataCopyExtParams p{
        static_cast<uint16_t>(rows), bytes,
        static_cast<uint32_t>(t_.columns - columns) * static_cast<uint32_t>(sizeof(half)), 0, 0};
    AscendC::DataCopyPad(dst_, src, p, AscendC::DataCopyPadExtParams<half>{false, 0, 0, half(0.0f)});
  }

  CopyTiling t_;
  GlobalTensor<half> src_;
  LocalTensor<half> dst_;
  bool to_l1_ = false;
};

}  // namespace

extern "C" __global__ __aicore__ void bench_copy_gm_ub(GM_ADDR src, GM_ADDR tiling) {
  Copies copies;
  copies.Init(src, tiling, false);
  copies.Process();
}
extern "C" __global__ __aicore__ void bench_copy_gm_l1(GM_ADDR src, GM_ADDR tiling) {
  Copies copies;
  copies.Init(src, tiling, true);
  copies.Process();
}
