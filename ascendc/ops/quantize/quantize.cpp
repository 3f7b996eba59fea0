// Rows to int8 codes under scales of tokens or of channels, one source for CANN and for the twin, bit for bit
// what the spec says.
//
// Of tokens, a core takes tiles of rows, which stay in UB between their largest magnitude and their codes: x
// is read once. Of channels, it takes tiles of columns and reads them twice where scales are found. Division
// rounds correctly on the twin; silicon is within a unit in the last place.
#include "quantize.h"

#include "kernel_operator.h"

namespace {

using namespace tw_quantize;

constexpr int32_t kScales = 4;  // event of scales on their way, beside the slots of tiles

template <typename T>
class Tokens {
 public:
  __aicore__ inline Tokens() {}

  __aicore__ inline void Init(GM_ADDR x, GM_ADDR scale, GM_ADDR q, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    scale_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(scale));
    Room room;
    coder_.Init(room, x, q, t_);
    const int32_t count = t_.tile_rows * t_.piece, groups = RoundUp(t_.tile_rows, kFloats);
    row_ = room.Take<float>(count * t_.pieces);
    largest_ = room.Take<float>(count);
    work_ = room.Take<float>(count);
    blocks_ = room.Take<float>(groups * kBlockFloats);
    factors_ = room.Take<float>(groups * kBlockFloats);
    scales_ = room.Take<float>(groups);
    inverse_ = room.Take<float>(groups);
    bits_ = room.Take<uint8_t>(groups / 8);
    AscendC::Duplicate(blocks_, 0.0f, groups * kBlockFloats);
    AscendC::Duplicate(scales_, 1.0f, groups);
    Fence();
  }

  __aicore__ inline void Process() {
    const Share tiles =
        ShareOf(CeilDiv(t_.rows, t_.tile_rows), t_.row_parts, static_cast<int32_t>(AscendC::GetBlockIdx()));
    OpenSlots();
    SetFlag<HardEvent::V_MTE2>(kScales);
    SetFlag<HardEvent::MTE3_V>(kScales);
    for (int32_t i = tiles.begin; i < tiles.end; ++i) {
      const int32_t row = i * t_.tile_rows, rows = Min(t_.tile_rows, t_.rows - row);
      if (t_.found != 0)
        Find(row, rows);
      else
        Given(row, rows);
      Invert(inverse_, scales_, RoundUp(rows, 8));
      Fence();
      Spread(factors_, inverse_, rows);
      Fence();
      for (int32_t p = 0; p < t_.pieces; ++p) {
        const Tile s = PieceOf(rows, p);
        const LocalTensor<float> wide = row_[static_cast<uint32_t>(p * t_.piece)];
        if (t_.found == 0) coder_.Fetch(wide, row, p * t_.piece, s);
        TimesRow(wide, wide, factors_, s);
        Fence();
        coder_.Emit(wide, row, p * t_.piece, s);
      }
    }
    WaitFlag<HardEvent::V_MTE2>(kScales);
    WaitFlag<HardEvent::MTE3_V>(kScales);
    CloseSlots();
  }

 private:
  __aicore__ inline Tile PieceOf(int32_t rows, int32_t p) const {
    return {rows, Min(t_.piece, t_.cols - p * t_.piece), t_.piece};
  }

  __aicore__ inline void Given(int32_t row, int32_t rows) {
    WaitFlag<HardEvent::V_MTE2>(kScales);
    LoadRun(largest_, scale_[static_cast<uint64_t>(row)], rows);
    SetFlag<HardEvent::MTE2_V>(kScales);
    WaitFlag<HardEvent::MTE2_V>(kScales);
    AscendC::Muls(scales_, largest_, 1.0f, rows);
    Fence();
    SetFlag<HardEvent::V_MTE2>(kScales);
  }

  __aicore__ inline void Find(int32_t row, int32_t rows) {
    for (int32_t p = 0; p < t_.pieces; ++p) {
      const Tile s = PieceOf(rows, p);
      const LocalTensor<float> wide = row_[static_cast<uint32_t>(p * t_.piece)];
      coder_.Fetch(wide, row, p * t_.piece, s);
      AscendC::Abs(p == 0 ? largest_ : work_, wide, s.count());
      Fence();
      if (p == 0) continue;
      AscendC::Max(largest_, largest_, work_, s.cols);
      Fence();
    }
    const int32_t each = Min(t_.cols, t_.piece);
    for (int32_t r = 0; r < rows; ++r) {
      AscendC::ReduceMax(blocks_[static_cast<uint32_t>(r * kBlockFloats)],
                         largest_[static_cast<uint32_t>(r * t_.piece)], work_, each);
      Fence();
    }
    WaitFlag<HardEvent::MTE3_V>(kScales);
    AscendC::BlockReduceMax(scales_, blocks_, CeilDiv(rows, 8), static_cast<uint64_t>(kFloats), 1, 1, 8);
    Fence();
    AscendC::Muls(scales_, scales_, 1.0f / 127.0f, RoundUp(rows, 8));
    Fence();
    NotTiny(scales_, bits_, RoundUp(rows, kFloats));
    SetFlag<HardEvent::V_MTE3>(kScales);
    WaitFlag<HardEvent::V_MTE3>(kScales);
    StoreRun(scale_[static_cast<uint64_t>(row)], scales_, rows);
    SetFlag<HardEvent::MTE3_V>(kScales);
  }

  TwQuantizeTiling t_;
  Coder<T> coder_;
  GlobalTensor<float> scale_;
  LocalTensor<float> row_, largest_, work_, blocks_, factors_, scales_, inverse_;
  LocalTensor<uint8_t> bits_;
};

template <typename T>
class Channels {
 public:
  __aicore__ inline Channels() {}

  __aicore__ inline void Init(GM_ADDR x, GM_ADDR scale, GM_ADDR q, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    scale_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(scale));
    Room room;
    coder_.Init(room, x, q, t_);
    const int32_t count = t_.tile_rows * t_.piece;
    wide_ = room.Take<float>(count);
    largest_ = room.Take<float>(count);
    scales_ = room.Take<float>(Wide());
    inverse_ = room.Take<float>(Wide());
    bits_ = room.Take<uint8_t>(Wide() / 8);
    AscendC::Duplicate(scales_, 1.0f, Wide());
    Fence();
  }

  __aicore__ inline void Process() {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    const Share rows = ShareOf(CeilDiv(t_.rows, t_.tile_rows), t_.row_parts, block / t_.col_parts);
    const Share cols = ShareOf(t_.pieces, t_.col_parts, block % t_.col_parts);
    OpenSlots();
    SetFlag<HardEvent::V_MTE2>(kScales);
    SetFlag<HardEvent::MTE3_V>(kScales);
    for (int32_t j = cols.begin; j < cols.end; ++j) {
      const int32_t col = j * t_.piece, count = Min(t_.piece, t_.cols - col);
      if (t_.found != 0)
        Find(rows, col, count);
      else
        Given(col, count);
      Invert(inverse_, scales_, t_.piece);
      Fence();
      for (int32_t i = rows.begin; i < rows.end; ++i) {
        const Tile s = TileOf(i, count);
        coder_.Fetch(wide_, i * t_.tile_rows, col, s);
        TimesColumn(wide_, wide_, inverse_, s);
        Fence();
        coder_.Emit(wide_, i * t_.tile_rows, col, s);
      }
    }
    WaitFlag<HardEvent::V_MTE2>(kScales);
    WaitFlag<HardEvent::MTE3_V>(kScales);
    CloseSlots();
  }

 private:
  __aicore__ inline int32_t Wide() const { return RoundUp(t_.piece, kFloats); }
  __aicore__ inline Tile TileOf(int32_t i, int32_t cols) const {
    return {Min(t_.tile_rows, t_.rows - i * t_.tile_rows), cols, t_.piece};
  }

  __aicore__ inline void Given(int32_t col, int32_t count) {
    WaitFlag<HardEvent::V_MTE2>(kScales);
    LoadRun(largest_, scale_[static_cast<uint64_t>(col)], count);
    SetFlag<HardEvent::MTE2_V>(kScales);
    WaitFlag<HardEvent::MTE2_V>(kScales);
    AscendC::Muls(scales_, largest_, 1.0f, count);
    Fence();
    SetFlag<HardEvent::V_MTE2>(kScales);
  }

  __aicore__ inline void Find(const Share& rows, int32_t col, int32_t count) {
    AscendC::Duplicate(largest_, 0.0f, t_.tile_rows * t_.piece);
    Fence();
    for (int32_t i = rows.begin; i < rows.end; ++i) {
      const Tile s = TileOf(i, count);
      coder_.Fetch(wide_, i * t_.tile_rows, col, s);
      AscendC::Abs(wide_, wide_, s.count());
      Fence();
      AscendC::Max(largest_, largest_, wide_, s.count());
      Fence();
    }
    for (int32_t left = t_.tile_rows; left > 1;) {
      const int32_t kept = CeilDiv(left, 2);
      AscendC::Max(largest_, largest_, largest_[static_cast<uint32_t>(kept * t_.piece)],
                   (left - kept) * t_.piece);
      Fence();
      left = kept;
    }
    WaitFlag<HardEvent::MTE3_V>(kScales);
    AscendC::Muls(scales_, largest_, 1.0f / 127.0f, t_.piece);
    Fence();
    NotTiny(scales_, bits_, Wide());
    SetFlag<HardEvent::V_MTE3>(kScales);
    WaitFlag<HardEvent::V_MTE3>(kScales);
    StoreRun(scale_[static_cast<uint64_t>(col)], scales_, count);
    SetFlag<HardEvent::MTE3_V>(kScales);
  }

  TwQuantizeTiling t_;
  Coder<T> coder_;
  GlobalTensor<float> scale_;
  LocalTensor<float> wide_, largest_, scales_, inverse_;
  LocalTensor<uint8_t> bits_;
};

}  // namespace

#define TW_QUANTIZE(name, Axis, T)                                                                  \
  extern "C" __global__ __aicore__ void name(GM_ADDR x, GM_ADDR scale, GM_ADDR q, GM_ADDR tiling) { \
    Axis<T> op;                                                                                     \
    op.Init(x, scale, q, tiling);                                                                   \
    op.Process();                                                                                   \
  }

TW_QUANTIZE(quantize_token_fp32, Tokens, float)
TW_QUANTIZE(quantize_token_fp16, Tokens, half)
TW_QUANTIZE(quantize_token_bf16, Tokens, bfloat16_t)
TW_QUANTIZE(quantize_channel_fp32, Channels, float)
TW_QUANTIZE(quantize_channel_fp16, Channels, half)
TW_QUANTIZE(quantize_channel_bf16, Channels, bfloat16_t)
