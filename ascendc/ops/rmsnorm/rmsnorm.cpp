// y = h * rsqrt(mean(h^2) + eps) * weight, h = x or x + residual, one source for CANN and for the twin.
//
// A core takes tiles of rows. A tile stays in UB as fp32 between the sum of its squares and its scaling, so
// that x is read once; rows that are long come and go in pieces. The order of a row's sum depends on the
// row's length alone. Square root and division round correctly on the twin; silicon is within a unit in the
// last place.
#include "../_rows/rows.h"
#include "kernel_operator.h"
#include "rmsnorm_tiling.h"

namespace {

using namespace tw_rows;

template <typename T>
class Rmsnorm {
 public:
  __aicore__ inline Rmsnorm() {}

  __aicore__ inline void Init(GM_ADDR x, GM_ADDR weight, GM_ADDR residual, GM_ADDR y, GM_ADDR h,
                              GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    x_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(x));
    weight_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(weight));
    residual_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(residual));
    y_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(y));
    h_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(h));
    const int32_t count = t_.tile_rows * t_.piece, groups = RoundUp(t_.tile_rows, 8);
    Room room;
    for (int32_t i = 0; i < 2; ++i) {
      in_[i] = room.Take<T>(count);
      out_[i] = room.Take<T>(count);
      Clear(in_[i], count);
      if (t_.residual == 0) continue;
      more_[i] = room.Take<T>(count);
      sum_[i] = room.Take<T>(count);
      Clear(more_[i], count);
    }
    row_ = room.Take<float>(count * t_.pieces);
    scale_ = room.Take<float>(t_.piece * t_.pieces);
    squares_ = room.Take<float>(count);
    work_ = room.Take<float>(count);
    blocks_ = room.Take<float>(groups * kBlockFloats);
    factors_ = room.Take<float>(groups * kBlockFloats);
    roots_ = room.Take<float>(RoundUp(groups, kFloats));
    ones_ = room.Take<float>(RoundUp(groups, kFloats));
    AscendC::Duplicate(blocks_, 0.0f, groups * kBlockFloats);
    AscendC::Duplicate(scale_, 0.0f, t_.piece * t_.pieces);
    AscendC::Duplicate(ones_, 1.0f, RoundUp(groups, kFloats));
    Fence();
  }

  __aicore__ inline void Process() {
    const Share tiles = ShareOf(CeilDiv(t_.rows, t_.tile_rows), static_cast<int32_t>(AscendC::GetBlockNum()),
                                static_cast<int32_t>(AscendC::GetBlockIdx()));
    OpenSlots();
    LoadWeight();
    for (int32_t i = tiles.begin; i < tiles.end; ++i) {
      const int32_t row = i * t_.tile_rows, rows = Min(t_.tile_rows, t_.rows - row);
      for (int32_t p = 0; p < t_.pieces; ++p) Gather(row, PieceOf(rows, p), p);
      Roots(rows);
      for (int32_t p = 0; p < t_.pieces; ++p) Scatter(row, PieceOf(rows, p), p);
    }
    CloseSlots();
  }

 private:
  static constexpr bool kNarrow = sizeof(T) != sizeof(float);

  __aicore__ inline Tile PieceOf(int32_t rows, int32_t p) const {
    return {rows, Min(t_.piece, t_.cols - p * t_.piece), t_.piece};
  }
  __aicore__ inline uint64_t At(int32_t row, int32_t apart, int32_t p) const {
    return static_cast<uint64_t>(row) * apart + static_cast<uint64_t>(p * t_.piece);
  }
  __aicore__ inline LocalTensor<float> RowAt(int32_t p) const {
    return row_[static_cast<uint32_t>(p * t_.piece)];
  }

  __aicore__ inline void LoadWeight() {
    for (int32_t p = 0; p < t_.pieces; ++p) {
      const Tile s = PieceOf(1, p);
      WaitFlag<HardEvent::V_MTE2>(slot_);
      Load(in_[slot_], weight_[static_cast<uint64_t>(p * t_.piece)], s, 0);
      SetFlag<HardEvent::MTE2_V>(slot_);
      WaitFlag<HardEvent::MTE2_V>(slot_);
      Widen(scale_[static_cast<uint32_t>(p * t_.piece)], in_[slot_], s.cols);
      SetFlag<HardEvent::V_MTE2>(slot_);
      slot_ ^= 1;
    }
    Fence();
  }

  // A piece of the rows into row_, its squares onto those of the pieces before it.
  __aicore__ inline void Gather(int32_t row, const Tile& s, int32_t p) {
    WaitFlag<HardEvent::V_MTE2>(slot_);
    Load(in_[slot_], x_[At(row, t_.x_row, p)], s, t_.x_row);
    if (t_.residual != 0) Load(more_[slot_], residual_[At(row, t_.residual_row, p)], s, t_.residual_row);
    SetFlag<HardEvent::MTE2_V>(slot_);
    WaitFlag<HardEvent::MTE2_V>(slot_);
    const LocalTensor<float> wide = RowAt(p);
    Widen(wide, in_[slot_], s.count());
    if (t_.residual != 0) {
      WaitFlag<HardEvent::MTE3_V>(slot_);
      AddResidual(wide, s.count());
    }
    SetFlag<HardEvent::V_MTE2>(slot_);
    if (t_.residual != 0) {
      SetFlag<HardEvent::V_MTE3>(slot_);
      WaitFlag<HardEvent::V_MTE3>(slot_);
      Store(h_[At(row, t_.h_row, p)], sum_[slot_], s, t_.h_row);
      SetFlag<HardEvent::MTE3_V>(slot_);
    }
    Fence();
    AscendC::Mul(p == 0 ? squares_ : work_, wide, wide, s.count());
    Fence();
    if (p > 0) {
      AscendC::Add(squares_, squares_, work_, s.cols);
      Fence();
    }
    slot_ ^= 1;
  }
  // wide + residual, rounded to the type.
  __aicore__ inline void AddResidual(const LocalTensor<float>& wide, int32_t count) {
    if constexpr (kNarrow) {
      Widen(work_, more_[slot_], count);
      Fence();
      AscendC::Add(wide, wide, work_, count);
      Fence();
      AscendC::Cast(sum_[slot_], wide, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(count));
      Fence();
      Widen(wide, sum_[slot_], count);
    } else {
      Fence();
      AscendC::Add(wide, wide, more_[slot_], count);
      AscendC::Add(sum_[slot_], in_[slot_], more_[slot_], count);
    }
    Fence();
  }

  // 1 / sqrt(mean + eps) of each row, in a block of its own.
  __aicore__ inline void Roots(int32_t rows) {
    const int32_t each = Min(t_.cols, t_.piece), groups = CeilDiv(rows, 8);
    for (int32_t r = 0; r < rows; ++r)
      AscendC::ReduceSum(blocks_[static_cast<uint32_t>(r * kBlockFloats)],
                         squares_[static_cast<uint32_t>(r * t_.piece)], work_, each);
    Fence();
    AscendC::BlockReduceSum(roots_, blocks_, groups, static_cast<uint64_t>(kFloats), 1, 1, 8);
    Fence();
    AscendC::Muls(roots_, roots_, t_.mean, groups * 8);
    Fence();
    AscendC::Adds(roots_, roots_, t_.eps, groups * 8);
    Fence();
    AscendC::Sqrt(roots_, roots_, groups * 8);
    Fence();
    AscendC::Div(roots_, ones_, roots_, groups * 8);
    Fence();
    Spread(factors_, roots_, rows);
    Fence();
  }

  __aicore__ inline void Scatter(int32_t row, const Tile& s, int32_t p) {
    const LocalTensor<float> wide = RowAt(p), scale = scale_[static_cast<uint32_t>(p * t_.piece)];
    TimesRow(wide, wide, factors_, s);
    Fence();
    if constexpr (kNarrow) {
      TimesColumn(wide, wide, scale, s);
      Fence();
      WaitFlag<HardEvent::MTE3_V>(slot_);
      AscendC::Cast(out_[slot_], wide, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(s.count()));
    } else {
      WaitFlag<HardEvent::MTE3_V>(slot_);
      TimesColumn(out_[slot_], wide, scale, s);
    }
    Fence();
    SetFlag<HardEvent::V_MTE3>(slot_);
    WaitFlag<HardEvent::V_MTE3>(slot_);
    Store(y_[At(row, t_.y_row, p)], out_[slot_], s, t_.y_row);
    SetFlag<HardEvent::MTE3_V>(slot_);
    slot_ ^= 1;
  }

  TwRmsnormTiling t_;
  GlobalTensor<T> x_, weight_, residual_, y_, h_;
  LocalTensor<T> in_[2], more_[2], sum_[2], out_[2];
  LocalTensor<float> row_, scale_, squares_, work_, blocks_, factors_, roots_, ones_;
  int32_t slot_ = 0;
};

}  // namespace

#define TW_RMSNORM(name, T)                                                                          \
  extern "C" __global__ __aicore__ void name(GM_ADDR x, GM_ADDR weight, GM_ADDR residual, GM_ADDR y, \
                                             GM_ADDR h, GM_ADDR tiling) {                            \
    Rmsnorm<T> op;                                                                                   \
    op.Init(x, weight, residual, y, h, tiling);                                                      \
    op.Process();                                                                                    \
  }

TW_RMSNORM(rmsnorm_fp32, float)
TW_RMSNORM(rmsnorm_fp16, half)
TW_RMSNORM(rmsnorm_bf16, bfloat16_t)
