// What both axes of quantize share: tiles in, codes out, and scales to their reciprocals.
#pragma once

#include "../_kv/encode.h"
#include "../_rows/rows.h"
#include "quantize_tiling.h"

namespace tw_quantize {

using namespace tw_rows;

// 1 where the reciprocal would overflow; `bits` takes count / 8 bytes, `count` is a multiple of 64.
__aicore__ inline void NotTiny(const LocalTensor<float>& x, const LocalTensor<uint8_t>& bits, int32_t count) {
  AscendC::CompareScalar(bits, x, kTiny, AscendC::CMPMODE::GE, static_cast<uint32_t>(count));
  Fence();
  AscendC::Select(x, bits, x, 1.0f, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE, static_cast<uint32_t>(count));
  Fence();
}

template <typename T>
class Coder {
 public:
  __aicore__ inline Coder() {}

  __aicore__ inline void Init(Room& room, GM_ADDR x, GM_ADDR q, const TwQuantizeTiling& tiling) {
    t_ = tiling;
    x_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(x));
    q_.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(q));
    const int32_t count = t_.tile_rows * t_.piece;
    for (int32_t i = 0; i < 2; ++i) {
      in_[i] = room.Take<T>(count);
      codes_[i] = room.Take<int8_t>(count);
      Clear(in_[i], count);
    }
    whole_ = room.Take<int16_t>(count);
  }

  // A tile at (row, col) as fp32 in `wide`.
  __aicore__ inline void Fetch(const LocalTensor<float>& wide, int32_t row, int32_t col, const Tile& s) {
    WaitFlag<HardEvent::V_MTE2>(slot_);
    Load(in_[slot_], x_[static_cast<uint64_t>(row) * t_.x_row + static_cast<uint64_t>(col)], s, t_.x_row);
    SetFlag<HardEvent::MTE2_V>(slot_);
    WaitFlag<HardEvent::MTE2_V>(slot_);
    Widen(wide, in_[slot_], s.count());
    Fence();
    SetFlag<HardEvent::V_MTE2>(slot_);
    slot_ ^= 1;
  }

  // Codes of products, stored at (row, col). Casts to integers saturate.
  __aicore__ inline void Emit(const LocalTensor<float>& products, int32_t row, int32_t col, const Tile& s) {
    AscendC::Cast(whole_, products, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(s.count()));
    Fence();
    Bound(whole_, -127, 127, s.count());
    const LocalTensor<half> halves = whole_.template ReinterpretCast<half>();
    AscendC::Cast(halves, whole_, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.count()));
    Fence();
    WaitFlag<HardEvent::MTE3_V>(out_);
    AscendC::Cast(codes_[out_], halves, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(s.count()));
    Fence();
    SetFlag<HardEvent::V_MTE3>(out_);
    WaitFlag<HardEvent::V_MTE3>(out_);
    Store(q_[static_cast<uint64_t>(row) * t_.q_row + static_cast<uint64_t>(col)], codes_[out_], s, t_.q_row);
    SetFlag<HardEvent::MTE3_V>(out_);
    out_ ^= 1;
  }

 private:
  TwQuantizeTiling t_;
  GlobalTensor<T> x_;
  GlobalTensor<int8_t> q_;
  LocalTensor<T> in_[2];
  LocalTensor<int8_t> codes_[2];
  LocalTensor<int16_t> whole_;
  int32_t slot_ = 0, out_ = 0;
};

}  // namespace tw_quantize
