// New keys and values into a paged cache, quantised on the way, one source for CANN and for the twin.
//
// Each core takes runs of tokens that lie in a row in one page. A run's floats come into UB once; scales are
// searched there (a token's amax, a value's range, a channel's range over a page's 16 keys), codes made and
// laid as the page wants them, while the next run's floats are on their way. Division rounds correctly on the
// twin; silicon is within a unit in the last place.
#include "../_kv/cache.h"
#include "../_kv/encode.h"
#include "../_kv/move.h"
#include "kernel_operator.h"
#include "kv_write_tiling.h"

namespace {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::WaitFlag;
using namespace tw_kv;

// The tensors of one side; what a format does not have is null.
struct SideArguments {
  GM_ADDR x;
  GM_ADDR channel_scale;
  GM_ADDR cache;
  GM_ADDR token_scale;
  GM_ADDR token_zero;
  GM_ADDR page_scale;
  GM_ADDR page_zero;
  GM_ADDR open;
};

template <typename In>
class Side {
 public:
  __aicore__ inline Side() {}

  __aicore__ inline void Init(const SideArguments& a, GM_ADDR slots, GM_ADDR open_row,
                              const TwKvWriteTiling& tiling, bool key) {
    t_ = tiling;
    side_ = key ? tiling.key : tiling.value;
    by_page_ = key && t_.kv == kTwKv4;
    slots_ = slots;
    x_.SetGlobalBuffer(reinterpret_cast<__gm__ In*>(a.x));
    open_.SetGlobalBuffer(reinterpret_cast<__gm__ In*>(a.open));
    open_row_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(open_row));
    channel_scale_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.channel_scale));
    token_scale32_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.token_scale));
    token_scale16_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(a.token_scale));
    token_zero_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(a.token_zero));
    page_scale_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(a.page_scale));
    page_zero_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(a.page_zero));
    cache_.Init(a.cache, side_.page_stride, side_.within_stride, t_.nz != 0);
    Room room;
    encoder_.Init(room, t_.tile_count, t_.tile_width, kMaxRows, 2);
    const int32_t bytes = t_.tile_count + kPage * kBlock;
    if (t_.nz != 0) codes_ = room.Take<int8_t>(bytes);
    for (int32_t i = 0; i < 2; ++i) {
      out_[i] = room.Take<int8_t>(bytes);
      spread_[i] = room.Take<float>(kMaxRows * kBlockFloats);
      spread_more_[i] = room.Take<float>(kMaxRows * kBlockFloats);
    }
  }

  __aicore__ inline void Process() {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    const Share tiles = ShareOf(CeilDiv(t_.heads, side_.tile_heads), t_.tile_parts, block % t_.tile_parts);
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::V_MTE2>(i);
      SetFlag<HardEvent::MTE3_V>(i);
    }
    for (int32_t i = tiles.begin; i < tiles.end; ++i) {
      head_ = i * side_.tile_heads;
      heads_ = Min(side_.tile_heads, t_.heads - head_);
      if (t_.kv == kTwC8s) LoadChannels();
      Runs runs;
      runs.Init(slots_, t_.tokens, t_.token_parts, block / t_.tile_parts);
      Run run;
      while (runs.Next(run)) {
        if (run.slot < 0) continue;
        if (by_page_)
          Keys(run);
        else
          Tokens(run);
        slot_ ^= 1;
      }
    }
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::V_MTE2>(i);
      WaitFlag<HardEvent::MTE3_V>(i);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  __aicore__ inline bool four() const { return t_.kv == kTwKv4; }
  __aicore__ inline Shape ShapeFor(int32_t tokens) const {
    return ShapeOf(tokens, heads_, side_.dim, four());
  }
  __aicore__ inline Strides Apart() const { return {side_.token_stride, side_.head_stride}; }
  __aicore__ inline GlobalTensor<In> XAt(int32_t token) const {
    return x_[static_cast<uint64_t>(token) * side_.token_stride +
              static_cast<uint64_t>(head_) * side_.head_stride];
  }

  // c8s: reciprocals of the tile's scales. Padding is 1, so that it becomes nothing odd.
  __aicore__ inline void LoadChannels() {
    const Shape s = ShapeFor(1);
    WaitFlag<HardEvent::V_MTE2>(0);
    WaitFlag<HardEvent::V_MTE2>(1);
    AscendC::PipeBarrier<PIPE_ALL>();
    AscendC::Duplicate(encoder_.work, 1.0f, s.width());
    SetFlag<HardEvent::V_MTE2>(0);
    SetFlag<HardEvent::V_MTE2>(1);
    WaitFlag<HardEvent::V_MTE2>(0);
    LoadRows(encoder_.work, channel_scale_[static_cast<uint64_t>(head_) * side_.dim], s,
             {t_.heads * side_.dim, side_.dim}, s.width(), 1.0f);
    SetFlag<HardEvent::MTE2_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
    Invert(encoder_.channel, encoder_.work, s.width());
    Fence();
    SetFlag<HardEvent::V_MTE2>(0);
  }

  // A run of tokens, each quantised by itself.
  __aicore__ inline void Tokens(const Run& run) {
    const Shape s = ShapeFor(run.count);
    WaitFlag<HardEvent::V_MTE2>(slot_);
    LoadRows(encoder_.in[slot_], XAt(run.token), s, Apart(), s.width());
    const LocalTensor<float> x = Floats(s);
    Fence();
    if (t_.kv == kTwC8s) {
      ByChannel<Mul2>(x, x, encoder_.channel, s);
    } else {
      if (t_.kv == kTwC8d) {
        encoder_.DynamicScale(x, s, slot_);
        Spread(spread_[slot_], encoder_.scale32[slot_], s.rows());
      } else {
        encoder_.RangeByRow(x, s, slot_);
        Spread(Halves(spread_), encoder_.scale16[slot_], s.rows());
        Spread(Halves(spread_more_), encoder_.zero16[slot_], s.rows());
        ByRow<Sub2>(x, x, encoder_.by_zero, s);
        Fence();
      }
      ByRow<Mul2>(x, x, encoder_.by_scale, s);
    }
    Fence();
    Encode(x, s);
    cache_.Store(run.slot, run.count, head_, heads_, Bytes(), out_[slot_]);
    StoreScales(static_cast<uint64_t>(run.slot) * t_.heads + head_, s);
    SetFlag<HardEvent::MTE3_V>(slot_);
  }
  __aicore__ inline void StoreScales(uint64_t at, const Shape& s) {
    if (t_.kv == kTwC8d)
      StoreNumbers(token_scale32_[at], encoder_.scale32[slot_], spread_[slot_], s, t_.heads);
    if (!four()) return;
    StoreNumbers(token_scale16_[at], encoder_.scale16[slot_], Halves(spread_), s, t_.heads);
    StoreNumbers(token_zero_[at], encoder_.zero16[slot_], Halves(spread_more_), s, t_.heads);
  }

  // A run of keys of 4 bits: quantised if it ends its page, with what is open of it, else kept open.
  __aicore__ inline void Keys(const Run& run) {
    const int32_t place = run.slot % kPage, row = open_row_.GetValue(static_cast<uint64_t>(run.token));
    const int32_t width = t_.heads * side_.dim;
    const Strides open{width, side_.dim};
    const GlobalTensor<In> kept =
        open_[static_cast<uint64_t>(row) * kPage * width + static_cast<uint64_t>(head_) * side_.dim];
    const LocalTensor<In> in = encoder_.in[slot_];
    WaitFlag<HardEvent::V_MTE2>(slot_);
    if (place + run.count < kPage) {
      const Shape s = ShapeFor(run.count);
      LoadRows(in, XAt(run.token), s, Apart(), s.width());
      SetFlag<HardEvent::MTE2_V>(slot_);
      SetFlag<HardEvent::MTE2_MTE3>(slot_);
      WaitFlag<HardEvent::MTE2_MTE3>(slot_);
      StoreRows(kept[static_cast<uint64_t>(place) * width], in, s, open, s.width());
      SetFlag<HardEvent::MTE3_MTE2>(slot_);
      WaitFlag<HardEvent::MTE3_MTE2>(slot_);
      // The vector unit has no part in this; it hands the slot on once the wait for it above is over.
      WaitFlag<HardEvent::MTE2_V>(slot_);
      SetFlag<HardEvent::V_MTE2>(slot_);
      return;
    }
    const Shape s = ShapeFor(kPage);
    if (place > 0) LoadRows(in, kept, ShapeFor(place), open, s.width());
    LoadRows(in[static_cast<uint32_t>(place * s.width())], XAt(run.token), ShapeFor(run.count), Apart(),
             s.width());
    const LocalTensor<float> x = Floats(s);
    Fence();
    encoder_.RangeByChannel(x, s, slot_);
    ByChannel<Sub2>(x, x, encoder_.zeros(), s);
    Fence();
    ByChannel<Mul2>(x, x, encoder_.reciprocals(), s);
    Fence();
    Encode(x, s);
    const int32_t page = run.slot / kPage;
    cache_.Store(page * kPage, kPage, head_, heads_, Bytes(), out_[slot_]);
    const uint64_t at = static_cast<uint64_t>(page) * width + static_cast<uint64_t>(head_) * side_.dim;
    const Shape one = ShapeFor(1);
    StoreRows(page_scale_[at], encoder_.scale16[slot_], one, open, one.width());
    StoreRows(page_zero_[at], encoder_.zero16[slot_], one, open, one.width());
    SetFlag<HardEvent::MTE3_V>(slot_);
  }

  // What was loaded, as fp32; from here on the vector unit may write what is stored from this slot.
  __aicore__ inline LocalTensor<float> Floats(const Shape& s) {
    SetFlag<HardEvent::MTE2_V>(slot_);
    WaitFlag<HardEvent::MTE2_V>(slot_);
    const LocalTensor<float> x = encoder_.Floats(slot_, s);
    if (sizeof(In) != sizeof(float)) SetFlag<HardEvent::V_MTE2>(slot_);
    WaitFlag<HardEvent::MTE3_V>(slot_);
    return x;
  }
  // Codes as the page wants them, in out_[slot_]; the copies out may begin.
  __aicore__ inline void Encode(const LocalTensor<float>& x, const Shape& s) {
    const LocalTensor<int8_t> rows = cache_.nz() ? codes_ : out_[slot_];
    const int32_t pitch = cache_.Pitch(heads_, Bytes());
    if (four())
      encoder_.Codes4(rows, pitch, x, encoder_.words(), s);
    else
      encoder_.Codes8(rows, pitch, x, encoder_.words(), s, t_.kv == kTwC8d);
    if (sizeof(In) == sizeof(float)) SetFlag<HardEvent::V_MTE2>(slot_);
    if (cache_.nz())
      TurnBlocks<true>(rows, out_[slot_], s.tokens, heads_ * Bytes().padded / kBlock, pitch / kBlock);
    SetFlag<HardEvent::V_MTE3>(slot_);
    WaitFlag<HardEvent::V_MTE3>(slot_);
  }
  __aicore__ inline CodeBytes Bytes() const { return CodeBytes(side_.dim, four()); }
  __aicore__ inline LocalTensor<half> Halves(const LocalTensor<float> (&of)[2]) const {
    return of[slot_].template ReinterpretCast<half>();
  }

  TwKvWriteTiling t_;
  TwKvSide side_;
  bool by_page_;
  GM_ADDR slots_;
  GlobalTensor<In> x_, open_;
  GlobalTensor<int32_t> open_row_;
  GlobalTensor<float> channel_scale_, token_scale32_;
  GlobalTensor<half> token_scale16_, token_zero_, page_scale_, page_zero_;
  Cache cache_;
  Encoder<In> encoder_;
  LocalTensor<int8_t> codes_, out_[2];
  LocalTensor<float> spread_[2], spread_more_[2];
  int32_t head_ = 0, heads_ = 0, slot_ = 0;
};

template <typename In>
__aicore__ inline void Write(const SideArguments& key, const SideArguments& value, GM_ADDR slots,
                             GM_ADDR open_row, GM_ADDR tiling) {
  TwKvWriteTiling t;
  ReadTiling(tiling, t);
  for (int32_t i = 0; i < 2; ++i) {
    if ((i == 0 ? t.key.dim : t.value.dim) == 0) continue;
    Side<In> side;
    side.Init(i == 0 ? key : value, slots, open_row, t, i == 0);
    side.Process();
  }
}

}  // namespace

#define TW_KV_WRITE(name, In)                                                                               \
  extern "C" __global__ __aicore__ void name(                                                               \
      GM_ADDR k, GM_ADDR v, GM_ADDR slots, GM_ADDR k_channel_scale, GM_ADDR v_channel_scale,                \
      GM_ADDR open_row, GM_ADDR k_cache, GM_ADDR v_cache, GM_ADDR k_token_scale, GM_ADDR v_token_scale,     \
      GM_ADDR v_token_zero, GM_ADDR k_page_scale, GM_ADDR k_page_zero, GM_ADDR k_open, GM_ADDR tiling) {    \
    Write<In>({k, k_channel_scale, k_cache, k_token_scale, nullptr, k_page_scale, k_page_zero, k_open},     \
              {v, v_channel_scale, v_cache, v_token_scale, v_token_zero, nullptr, nullptr, nullptr}, slots, \
              open_row, tiling);                                                                            \
  }

TW_KV_WRITE(kv_write_fp32, float)
TW_KV_WRITE(kv_write_fp16, half)
TW_KV_WRITE(kv_write_bf16, bfloat16_t)

// Floats as they are.
extern "C" __global__ __aicore__ void kv_write_float(GM_ADDR k, GM_ADDR v, GM_ADDR slots, GM_ADDR k_cache,
                                                     GM_ADDR v_cache, GM_ADDR tiling) {
  TwKvMoveTiling t;
  ReadTiling(tiling, t);
  for (int32_t i = 0; i < 2; ++i) {
    const TwMoveTiling& of = i == 0 ? t.key : t.value;
    if (of.head_bytes == 0) continue;
    Mover mover;
    mover.Init(i == 0 ? k : v, slots, i == 0 ? k_cache : v_cache, of);
    mover.Write();
  }
}
