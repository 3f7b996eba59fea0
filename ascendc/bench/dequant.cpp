// int32 [rows, columns] -> half: times a scale a column and a scale a row (float), then the fast form of gelu
// if asked. What vector cores do behind an int8 gemm. Columns come in multiples of 16.
#include "bench.h"

namespace {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::TPosition;
using AscendC::WaitFlag;
using namespace tw_bench;

struct DequantTiling {
  int32_t rows, columns;
  int32_t tile_rows, tile_columns;
  int32_t gelu;
};

class Dequant {
 public:
  __aicore__ inline Dequant() {}
  __aicore__ inline void Init(GM_ADDR src, GM_ADDR column_scale, GM_ADDR row_scale, GM_ADDR dst,
                              GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    src_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(src));
    column_scale_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(column_scale));
    row_scale_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(row_scale));
    dst_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(dst));
    const uint32_t tile = static_cast<uint32_t>(t_.tile_rows * t_.tile_columns);
    uint32_t at = 0;
    const auto take = [&at](uint32_t bytes) {
      const uint32_t begin = at;
      at += bytes;
      return begin;
    };
    for (int32_t i = 0; i < 2; ++i) in_[i] = LocalTensor<int32_t>(TPosition::VECIN, take(tile * 4), tile);
    for (int32_t i = 0; i < 2; ++i) out_[i] = LocalTensor<half>(TPosition::VECOUT, take(tile * 2), tile);
    // Operands of one instruction start 256 bytes apart, modulo 512: in different groups of banks.
    work_ = LocalTensor<float>(TPosition::VECCALC, take(tile * 4 + 256), tile);
    if (t_.gelu != 0) more_ = LocalTensor<float>(TPosition::VECCALC, take(tile * 4), tile);
    const uint32_t columns = static_cast<uint32_t>(t_.tile_columns),
                   rows = static_cast<uint32_t>(t_.tile_rows);
    scale_ = LocalTensor<float>(TPosition::VECCALC, take(columns * 4), columns);
    const uint32_t whole = (rows + 7) / 8 * 8;
    rows_ = LocalTensor<float>(TPosition::VECIN, take(whole * 4), whole);
    spread_ = LocalTensor<float>(TPosition::VECCALC, take(whole * 32), whole * 8);
  }
  // Tiles are dealt out in turn; a core keeps to columns where it can.
  __aicore__ inline void Process() {
    const int32_t across = CeilDiv(t_.columns, t_.tile_columns), down = CeilDiv(t_.rows, t_.tile_rows);
    const Share own = ShareOf(across * down, static_cast<int32_t>(AscendC::GetBlockNum()),
                              static_cast<int32_t>(AscendC::GetBlockIdx()));
    if (own.count == 0) return;
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::V_MTE2>(i);
      SetFlag<HardEvent::MTE3_V>(i);
    }
    int32_t column = -1;
    for (int32_t i = 0; i < own.count; ++i) {
      const int32_t tile = own.begin + i;
      const bool fresh = tile / down != column;
      column = tile / down;
      Tile(tile % down * t_.tile_rows, column * t_.tile_columns, i & 1, fresh);
    }
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::V_MTE2>(i);
      WaitFlag<HardEvent::MTE3_V>(i);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  __aicore__ inline void Tile(int32_t row, int32_t column, int32_t slot, bool fresh) {
    const int32_t rows = Min(t_.tile_rows, t_.rows - row),
                  columns = Min(t_.tile_columns, t_.columns - column);
    WaitFlag<HardEvent::V_MTE2>(slot);
    // The other slot's arithmetic may still read the scales.
    WaitFlag<HardEvent::V_MTE2>(slot ^ 1);
    if (fresh) CopyIn(scale_, column_scale_[column], columns);
    CopyIn(rows_, row_scale_[row], rows);
    SetFlag<HardEvent::V_MTE2>(slot ^ 1);
    const uint32_t gap = static_cast<uint32_t>(t_.columns - columns);
    const AscendC::DataCopyExtParams load{static_cast<uint16_t>(rows), static_cast<uint32_t>(columns) * 4,
                                          gap * 4, 0, 0};
    AscendC::DataCopyPad(in_[slot], src_[static_cast<uint64_t>(row) * t_.columns + column], load,
                         AscendC::DataCopyPadExtParams<int32_t>{false, 0, 0, 0});
    SetFlag<HardEvent::MTE2_V>(slot);
    WaitFlag<HardEvent::MTE2_V>(slot);
    WaitFlag<HardEvent::MTE3_V>(slot);
    const int32_t count = rows * columns;
    AscendC::Cast(work_, in_[slot], AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(count));
    AscendC::Brcb(spread_, rows_, static_cast<uint8_t>(CeilDiv(rows, 8)), AscendC::BrcbRepeatParams(1, 8));
    AscendC::PipeBarrier<PIPE_V>();
    Scale(scale_, 64, {1, 1, 1, Step(columns), Step(columns), 0}, rows, columns);
    AscendC::PipeBarrier<PIPE_V>();
    Scale(spread_, 0, {1, 1, 0, Step(columns), Step(columns), 1}, rows, columns);
    SetFlag<HardEvent::V_MTE2>(slot);
    AscendC::PipeBarrier<PIPE_V>();
    if (t_.gelu != 0) Gelu(count);
    AscendC::Cast(out_[slot], work_, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(count));
    SetFlag<HardEvent::V_MTE3>(slot);
    WaitFlag<HardEvent::V_MTE3>(slot);
    const AscendC::DataCopyExtParams store{static_cast<uint16_t>(rows), static_cast<uint32_t>(columns) * 2, 0,
                                           gap * 2, 0};
    AscendC::DataCopyPad(dst_[static_cast<uint64_t>(row) * t_.columns + column], out_[slot], store);
    SetFlag<HardEvent::MTE3_V>(slot);
  }
  __aicore__ inline static uint8_t Step(int32_t columns) { return static_cast<uint8_t>(columns / 8); }
  // Padded to whole blocks of 8.
  __aicore__ inline void CopyIn(const LocalTensor<float>& dst, const GlobalTensor<float>& src,
                                int32_t count) {
    const uint8_t more = static_cast<uint8_t>(CeilDiv(count, 8) * 8 - count);
    AscendC::DataCopyPad(dst, src, AscendC::DataCopyExtParams{1, static_cast<uint32_t>(count) * 4, 0, 0, 0},
                         AscendC::DataCopyPadExtParams<float>{true, 0, more, 0.0f});
  }
  // work *= factors, 64 columns of all rows at a time; `step` factors further for the next 64.
  __aicore__ inline void Scale(const LocalTensor<float>& factors, uint32_t step,
                               const AscendC::BinaryRepeatParams& p, int32_t rows, int32_t columns) {
    for (int32_t column = 0; column < columns; column += 64) {
      const LocalTensor<float> part = work_[static_cast<uint32_t>(column)];
      AscendC::Mul(part, part, factors[static_cast<uint32_t>(column) / 64 * step],
                   static_cast<uint64_t>(Min(64, columns - column)), static_cast<uint8_t>(rows), p);
    }
  }
  // x * sigmoid(1.702 x) = x / (1 + exp(-1.702 x))
  __aicore__ inline void Gelu(int32_t count) {
    AscendC::Muls(more_, work_, -1.702f, count);
    AscendC::PipeBarrier<PIPE_V>();
    AscendC::Exp(more_, more_, count);
    AscendC::PipeBarrier<PIPE_V>();
    AscendC::Adds(more_, more_, 1.0f, count);
    AscendC::PipeBarrier<PIPE_V>();
    AscendC::Div(work_, work_, more_, count);
    AscendC::PipeBarrier<PIPE_V>();
  }

  DequantTiling t_;
  GlobalTensor<int32_t> src_;
  GlobalTensor<float> column_scale_, row_scale_;
  GlobalTensor<half> dst_;
  LocalTensor<int32_t> in_[2];
  LocalTensor<half> out_[2];
  LocalTensor<float> work_, more_, scale_, rows_, spread_;
};

}  // namespace

extern "C" __global__ __aicore__ void bench_dequant(GM_ADDR src, GM_ADDR column_scale, GM_ADDR row_scale,
                                                    GM_ADDR dst, GM_ADDR tiling) {
  Dequant dequant;
  dequant.Init(src, column_scale, row_scale, dst, tiling);
  dequant.Process();
}
