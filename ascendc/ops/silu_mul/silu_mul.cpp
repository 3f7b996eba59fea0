// y = silu(gate) * up of the two halves of each row, one source for CANN and for the twin.
//
// A core takes tiles of rows and columns; gates and ups come in as tiles of their own, the next ones on their
// way meanwhile. silu(g) = g / (1 + exp(-g)), in fp32: exp overflows to infinity where the result is 0.
#include "../_rows/rows.h"
#include "kernel_operator.h"
#include "silu_mul_tiling.h"

namespace {

using namespace tw_rows;

template <typename T>
class SiluMul {
 public:
  __aicore__ inline SiluMul() {}

  __aicore__ inline void Init(GM_ADDR gate_up, GM_ADDR y, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    x_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(gate_up));
    y_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(y));
    const int32_t count = t_.tile_rows * t_.pitch;
    Room room;
    for (int32_t i = 0; i < 2; ++i) {
      gate_[i] = room.Take<T>(count);
      up_[i] = room.Take<T>(count);
      out_[i] = room.Take<T>(count);
      Clear(gate_[i], count);
      Clear(up_[i], count);
    }
    work_ = room.Take<float>(count);
    if (kNarrow) {
      wide_gate_ = room.Take<float>(count);
      wide_up_ = room.Take<float>(count);
    }
  }

  __aicore__ inline void Process() {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    const Share rows = ShareOf(CeilDiv(t_.rows, t_.tile_rows), t_.row_parts, block / t_.col_parts);
    const Share cols = ShareOf(CeilDiv(t_.cols, t_.tile_cols), t_.col_parts, block % t_.col_parts);
    OpenSlots();
    for (int32_t i = rows.begin; i < rows.end; ++i)
      for (int32_t j = cols.begin; j < cols.end; ++j) {
        const int32_t row = i * t_.tile_rows, col = j * t_.tile_cols;
        One(row, col, {Min(t_.tile_rows, t_.rows - row), Min(t_.tile_cols, t_.cols - col), t_.pitch});
        slot_ ^= 1;
      }
    CloseSlots();
  }

 private:
  static constexpr bool kNarrow = sizeof(T) != sizeof(float);

  __aicore__ inline void One(int32_t row, int32_t col, const Tile& s) {
    const uint64_t from = static_cast<uint64_t>(row) * t_.x_row + static_cast<uint64_t>(col);
    WaitFlag<HardEvent::V_MTE2>(slot_);
    Load(gate_[slot_], x_[from], s, t_.x_row);
    Load(up_[slot_], x_[from + static_cast<uint64_t>(t_.cols)], s, t_.x_row);
    SetFlag<HardEvent::MTE2_V>(slot_);
    WaitFlag<HardEvent::MTE2_V>(slot_);
    WaitFlag<HardEvent::MTE3_V>(slot_);
    Compute(s.count());
    SetFlag<HardEvent::V_MTE2>(slot_);
    SetFlag<HardEvent::V_MTE3>(slot_);
    WaitFlag<HardEvent::V_MTE3>(slot_);
    Store(y_[static_cast<uint64_t>(row) * t_.y_row + static_cast<uint64_t>(col)], out_[slot_], s, t_.y_row);
    SetFlag<HardEvent::MTE3_V>(slot_);
  }

  __aicore__ inline void Compute(int32_t count) {
    const LocalTensor<float> gate = Wide(wide_gate_, gate_[slot_], count);
    const LocalTensor<float> up = Wide(wide_up_, up_[slot_], count);
    Fence();
    AscendC::Muls(work_, gate, -1.0f, count);
    Fence();
    AscendC::Exp(work_, work_, count);
    Fence();
    AscendC::Adds(work_, work_, 1.0f, count);
    Fence();
    AscendC::Div(work_, gate, work_, count);
    Fence();
    if constexpr (kNarrow) {
      AscendC::Mul(work_, work_, up, count);
      Fence();
      AscendC::Cast(out_[slot_], work_, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(count));
    } else {
      AscendC::Mul(out_[slot_], work_, up, count);
    }
    Fence();
  }

  __aicore__ inline LocalTensor<float> Wide(const LocalTensor<float>& wide, const LocalTensor<T>& x,
                                            int32_t count) {
    if constexpr (kNarrow) {
      Widen(wide, x, count);
      return wide;
    } else {
      return x;
    }
  }

  TwSiluMulTiling t_;
  GlobalTensor<T> x_, y_;
  LocalTensor<T> gate_[2], up_[2], out_[2];
  LocalTensor<float> work_, wide_gate_, wide_up_;
  int32_t slot_ = 0;
};

}  // namespace

#define TW_SILU_MUL(name, T)                                                               \
  extern "C" __global__ __aicore__ void name(GM_ADDR gate_up, GM_ADDR y, GM_ADDR tiling) { \
    SiluMul<T> op;                                                                         \
    op.Init(gate_up, y, tiling);                                                           \
    op.Process();                                                                          \
  }

TW_SILU_MUL(silu_mul_fp32, float)
TW_SILU_MUL(silu_mul_fp16, half)
TW_SILU_MUL(silu_mul_bf16, bfloat16_t)
