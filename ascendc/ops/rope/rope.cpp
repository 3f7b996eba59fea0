// Pairs (i, i + ROT/2) of each head turned by the row of the table at the token's position, one source for
// CANN and for the twin.
//
// A core takes tokens; of each, tiles of heads. Both sides of the pairs come in as rows of their own, so the
// turn is four products and two sums of whole rows with the token's cosines and sines, which repeat for every
// head by a stride of 0. The next tile is on its way meanwhile.
#include "../_kv/lanes.h"
#include "kernel_operator.h"
#include "rope_tiling.h"

namespace {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::WaitFlag;
using namespace tw_kv;

// Heads' rows of `channels` elements each, dense in UB but for the padding of each to whole blocks.
template <typename T>
__aicore__ inline void LoadHeads(const LocalTensor<T>& dst, const GlobalTensor<T>& src, int32_t heads,
                                 int32_t channels, int32_t apart) {
  constexpr int32_t kSize = static_cast<int32_t>(sizeof(T));
  const int32_t bytes = channels * kSize, rest = RoundUp(bytes, kBlock) - bytes;
  AscendC::DataCopyExtParams p;
  p.blockCount = static_cast<uint16_t>(heads);
  p.blockLen = static_cast<uint32_t>(bytes);
  p.srcStride = static_cast<uint32_t>((apart - channels) * kSize);
  p.dstStride = 0;
  AscendC::DataCopyPad(dst, src, p,
                       AscendC::DataCopyPadExtParams<T>(true, 0, static_cast<uint8_t>(rest / kSize), T(0)));
}

template <typename T>
__aicore__ inline void StoreHeads(const GlobalTensor<T>& dst, const LocalTensor<T>& src, int32_t heads,
                                  int32_t channels, int32_t apart) {
  constexpr int32_t kSize = static_cast<int32_t>(sizeof(T));
  AscendC::DataCopyExtParams p;
  p.blockCount = static_cast<uint16_t>(heads);
  p.blockLen = static_cast<uint32_t>(channels * kSize);
  p.srcStride = 0;
  p.dstStride = static_cast<uint32_t>((apart - channels) * kSize);
  AscendC::DataCopyPad(dst, src, p);
}

template <typename T>
class Rope {
 public:
  __aicore__ inline Rope() {}

  __aicore__ inline void Init(GM_ADDR x, GM_ADDR positions, GM_ADDR table, GM_ADDR y, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    x_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(x));
    positions_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(positions));
    table_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(table));
    y_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(y));
    constexpr int32_t kUnit = kBlock / static_cast<int32_t>(sizeof(T));
    pitch_ = RoundUp(t_.half, kUnit);
    const int32_t tile = t_.tile_heads * pitch_;
    Room room;
    for (int32_t i = 0; i < 2; ++i) {
      for (int32_t side = 0; side < 2; ++side) {
        in_[i][side] = room.Take<T>(tile);
        out_[i][side] = room.Take<T>(tile);
      }
      rest_[i] = room.Take<T>(t_.tile_heads * RoundUp(t_.rest, kUnit));
      cos_[i] = room.Take<float>(pitch_);
      sin_[i] = room.Take<float>(pitch_);
    }
    if (kNarrow) {
      wide_[0] = room.Take<float>(tile);
      wide_[1] = room.Take<float>(tile);
    }
    work_ = room.Take<float>(tile);
    more_ = room.Take<float>(tile);
  }

  __aicore__ inline void Process() {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    const Share tokens = ShareOf(t_.tokens, t_.token_parts, block / t_.tile_parts);
    const Share tiles = ShareOf(t_.tiles, t_.tile_parts, block % t_.tile_parts);
    // A row of the table may be shorter than a row of pairs is in UB: what is behind it stays 0.
    for (int32_t i = 0; i < 2 && t_.half > 0; ++i) {
      AscendC::Duplicate(cos_[i], 0.0f, pitch_);
      AscendC::Duplicate(sin_[i], 0.0f, pitch_);
    }
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::V_MTE2>(i);
      SetFlag<HardEvent::MTE3_V>(i);
      SetFlag<HardEvent::MTE3_MTE2>(i);
    }
    for (int32_t token = tokens.begin; token < tokens.end; ++token) {
      const int32_t position = positions_.GetValue(static_cast<uint64_t>(token));
      for (int32_t tile = tiles.begin; tile < tiles.end; ++tile) {
        const int32_t first = tile * t_.tile_heads;
        Tile(token, position, first, Min(t_.tile_heads, t_.heads - first));
        slot_ ^= 1;
      }
    }
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::V_MTE2>(i);
      WaitFlag<HardEvent::MTE3_V>(i);
      WaitFlag<HardEvent::MTE3_MTE2>(i);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  static constexpr bool kNarrow = sizeof(T) != sizeof(float);

  __aicore__ inline void Tile(int32_t token, int32_t position, int32_t first, int32_t heads) {
    const uint64_t from =
        static_cast<uint64_t>(token) * t_.x_token + static_cast<uint64_t>(first) * t_.x_head;
    const uint64_t to = static_cast<uint64_t>(token) * t_.y_token + static_cast<uint64_t>(first) * t_.y_head;
    if (t_.rest > 0) {
      WaitFlag<HardEvent::MTE3_MTE2>(slot_);
      LoadHeads(rest_[slot_], x_[from + static_cast<uint64_t>(2 * t_.half)], heads, t_.rest, t_.x_head);
      SetFlag<HardEvent::MTE2_MTE3>(slot_);
      WaitFlag<HardEvent::MTE2_MTE3>(slot_);
      StoreHeads(y_[to + static_cast<uint64_t>(2 * t_.half)], rest_[slot_], heads, t_.rest, t_.y_head);
      SetFlag<HardEvent::MTE3_MTE2>(slot_);
    }
    if (t_.half == 0) return;
    WaitFlag<HardEvent::V_MTE2>(slot_);
    const uint64_t row = static_cast<uint64_t>(position) * t_.row;
    LoadHeads(cos_[slot_], table_[row], 1, t_.half, t_.half);
    LoadHeads(sin_[slot_], table_[row + static_cast<uint64_t>(t_.half)], 1, t_.half, t_.half);
    for (int32_t side = 0; side < 2; ++side)
      LoadHeads(in_[slot_][side], x_[from + static_cast<uint64_t>(side * t_.half)], heads, t_.half,
                t_.x_head);
    SetFlag<HardEvent::MTE2_V>(slot_);
    WaitFlag<HardEvent::MTE2_V>(slot_);
    WaitFlag<HardEvent::MTE3_V>(slot_);
    Turn(heads);
    SetFlag<HardEvent::V_MTE2>(slot_);
    SetFlag<HardEvent::V_MTE3>(slot_);
    WaitFlag<HardEvent::V_MTE3>(slot_);
    for (int32_t side = 0; side < 2; ++side)
      StoreHeads(y_[to + static_cast<uint64_t>(side * t_.half)], out_[slot_][side], heads, t_.half,
                 t_.y_head);
    SetFlag<HardEvent::MTE3_V>(slot_);
  }

  // out = (a cos - b sin, b cos + a sin).
  __aicore__ inline void Turn(int32_t heads) {
    const Shape s{heads, 1, 1, t_.half, pitch_};
    const LocalTensor<float> a = Wide(0, s.count()), b = Wide(1, s.count());
    Fence();
    ByChannel<Mul2>(work_, a, cos_[slot_], s);
    ByChannel<Mul2>(more_, b, sin_[slot_], s);
    Fence();
    Finish<Sub2>(0, s.count());
    ByChannel<Mul2>(work_, b, cos_[slot_], s);
    ByChannel<Mul2>(more_, a, sin_[slot_], s);
    Fence();
    Finish<Add2>(1, s.count());
  }

  __aicore__ inline LocalTensor<float> Wide(int32_t side, int32_t count) {
    if (!kNarrow) return in_[slot_][side].template ReinterpretCast<float>();
    AscendC::Cast(wide_[side], in_[slot_][side], AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(count));
    return wide_[side];
  }

  template <typename Op>
  __aicore__ inline void Finish(int32_t side, int32_t count) {
    const LocalTensor<float> sum = kNarrow ? work_ : out_[slot_][side].template ReinterpretCast<float>();
    Op::Do(sum, work_, more_, count);
    Fence();
    if (!kNarrow) return;
    AscendC::Cast(out_[slot_][side], work_, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(count));
    Fence();
  }

  TwRopeTiling t_;
  GlobalTensor<T> x_, y_;
  GlobalTensor<int32_t> positions_;
  GlobalTensor<float> table_;
  LocalTensor<T> in_[2][2], out_[2][2], rest_[2];
  LocalTensor<float> cos_[2], sin_[2], wide_[2], work_, more_;
  int32_t pitch_ = 0, slot_ = 0;
};

}  // namespace

#define TW_ROPE(name, T)                                                                               \
  extern "C" __global__ __aicore__ void name(GM_ADDR x, GM_ADDR positions, GM_ADDR cos_sin, GM_ADDR y, \
                                             GM_ADDR tiling) {                                         \
    Rope<T> rope;                                                                                      \
    rope.Init(x, positions, cos_sin, y, tiling);                                                       \
    rope.Process();                                                                                    \
  }

TW_ROPE(rope_fp32, float)
TW_ROPE(rope_fp16, half)
TW_ROPE(rope_bf16, bfloat16_t)
