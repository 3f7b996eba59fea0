// Rows of half to fractals by way of UB: tiles are copied in, spread by Copy so that each 16 columns lie
// together, and copied out. `pitch` blocks of 32 B lie between two such columns of blocks in UB.
#include "bench.h"

namespace {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::TPosition;
using AscendC::WaitFlag;
using namespace tw_bench;

constexpr int32_t kC0 = 16;

struct Nd2NzTiling {
  int32_t rows, columns;
  int32_t tile_rows, tile_columns;  // 128 columns: 8 blocks, one repeat
  int32_t pitch;
  int32_t row_parts, column_parts;  // cores
};

class Spread {
 public:
  __aicore__ inline Spread() {}
  __aicore__ inline void Init(GM_ADDR src, GM_ADDR dst, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    src_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(src));
    dst_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(dst));
  }
  __aicore__ inline void Process() {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    const Share down = ShareOf(CeilDiv(t_.rows, t_.tile_rows), t_.row_parts, block / t_.column_parts);
    const Share across = ShareOf(t_.columns / t_.tile_columns, t_.column_parts, block % t_.column_parts);
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::V_MTE2>(i);
      SetFlag<HardEvent::MTE3_V>(i);
    }
    int32_t slot = 0;
    for (int32_t r = 0; r < down.count; ++r) {
      for (int32_t c = 0; c < across.count; ++c) {
        Tile((down.begin + r) * t_.tile_rows, (across.begin + c) * t_.tile_columns, slot);
        slot ^= 1;
      }
    }
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::V_MTE2>(i);
      WaitFlag<HardEvent::MTE3_V>(i);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  __aicore__ inline void Tile(int32_t row, int32_t column, int32_t slot) {
    const int32_t rows = Min(t_.tile_rows, t_.rows - row), blocks = t_.tile_columns / kC0;
    const uint32_t in_bytes = static_cast<uint32_t>(t_.tile_rows * t_.tile_columns) * sizeof(half);
    const uint32_t out_bytes = static_cast<uint32_t>(blocks * t_.pitch) * 32;
    const LocalTensor<half> in(TPosition::VECIN, static_cast<uint32_t>(slot) * in_bytes, in_bytes / 2);
    const LocalTensor<half> out(TPosition::VECOUT, 2 * in_bytes + static_cast<uint32_t>(slot) * out_bytes,
                                out_bytes / 2);
    WaitFlag<HardEvent::V_MTE2>(slot);
    AscendC::DataCopyParams load;
    load.blockCount = static_cast<uint16_t>(rows);
    load.blockLen = static_cast<uint16_t>(blocks);
    load.srcStride = static_cast<uint16_t>((t_.columns - t_.tile_columns) / kC0);
    AscendC::DataCopy(in, src_[static_cast<uint64_t>(row) * t_.columns + column], load);
    SetFlag<HardEvent::MTE2_V>(slot);
    WaitFlag<HardEvent::MTE2_V>(slot);
    WaitFlag<HardEvent::MTE3_V>(slot);
    const AscendC::CopyRepeatParams spread(static_cast<uint16_t>(t_.pitch), 1, 1,
                                           static_cast<uint16_t>(blocks));
    AscendC::Copy(out, in, static_cast<uint64_t>(t_.tile_columns), static_cast<uint8_t>(rows), spread);
    SetFlag<HardEvent::V_MTE2>(slot);
    SetFlag<HardEvent::V_MTE3>(slot);
    WaitFlag<HardEvent::V_MTE3>(slot);
    AscendC::DataCopyParams store;
    store.blockCount = static_cast<uint16_t>(blocks);
    store.blockLen = static_cast<uint16_t>(rows);
    store.srcStride = static_cast<uint16_t>(t_.pitch - rows);
    store.dstStride = static_cast<uint16_t>(t_.rows - rows);
    AscendC::DataCopy(dst_[(static_cast<uint64_t>(column) / kC0 * t_.rows + row) * kC0], out, store);
    SetFlag<HardEvent::MTE3_V>(slot);
  }

  Nd2NzTiling t_;
  GlobalTensor<half> src_, dst_;
};

}  // namespace

extern "C" __global__ __aicore__ void bench_nd2nz_in_ub(GM_ADDR src, GM_ADDR dst, GM_ADDR tiling) {
  Spread spread;
  spread.Init(src, dst, tiling);
  spread.Process();
}
