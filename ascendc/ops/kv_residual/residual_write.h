// Pages of floats to codes, masks and pools. A tile is all 16 tokens of some heads of a page: every vector
// gets its plain code at once, then the selected ones are gathered, a batch at a time, and worked on
// together. Their pool rows lie in a row in memory, in the order of the gathering.
#pragma once

#include "selected.h"

namespace tw_kv {

template <typename In>
class ResidualWriter {
 public:
  __aicore__ inline ResidualWriter() {}

  __aicore__ inline void Init(const ResidualArguments& a, const TwKvResidualTiling& tiling) {
    t_ = tiling;
    a_ = a;
    four_ = t_.kv >= kTwKv4Value;
    block_ = static_cast<int32_t>(AscendC::GetBlockIdx());
    tiles_ = CeilDiv(t_.heads, t_.tile_heads);
    units_ = ShareOf(t_.pages * tiles_, t_.blocks, block_);
    x_ = Global<In>(a.x);
    cache_.Init(a.codes, t_.page_stride, t_.within_stride, t_.nz != 0);
    split_ = !four_ && t_.dim % kBlock != 0;
    staged_ = Global<int8_t>(a.workspace)[StagedAt(t_, block_)];
    places_.Init(a.select, a.used_before, a.workspace, t_);
  }

  __aicore__ inline void Process() {
    places_.Find(units_, block_);
    Allocate();
    for (int32_t i = 0; i < t_.slots; ++i) {
      AscendC::SetFlag<HardEvent::V_MTE2>(i);
      AscendC::SetFlag<HardEvent::MTE3_V>(i);
      AscendC::SetFlag<HardEvent::MTE3_S>(i);
    }
    selected_.Begin();
    for (int32_t u = units_.begin; u < units_.end; ++u) {
      slot_ = (u - units_.begin) % t_.slots;
      head_ = u % tiles_ * t_.tile_heads;
      heads_ = Min(t_.tile_heads, t_.heads - head_);
      page_ = Global<int32_t>(a_.page_ids).GetValue(static_cast<uint64_t>(u / tiles_));
      Place(u);
      if (t_.dim > 0) Unit(u);
    }
    for (int32_t i = 0; i < t_.slots; ++i) {
      AscendC::WaitFlag<HardEvent::V_MTE2>(i);
      AscendC::WaitFlag<HardEvent::MTE3_V>(i);
      AscendC::WaitFlag<HardEvent::MTE3_S>(i);
    }
    selected_.End();
    AscendC::PipeBarrier<PIPE_ALL>();
    StoreUsed();
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  using HardEvent = AscendC::HardEvent;
  static constexpr int32_t kStaged = 3;  // event id of codes on their way through global memory

  __aicore__ inline void Allocate() {
    const Shape s = ResidualShape(kPage, t_.tile_heads, t_.dim, four_);
    const int32_t count = s.count(), bytes = count + kPage * kBlock;
    Room room;
    encoder_.Init(room, count, s.width(), s.rows(), t_.slots);
    if (sizeof(In) == sizeof(float)) products_ = room.Take<float>(count);
    whole_ = room.Take<int16_t>(Max(count, 4 * PlaneSize(s)));
    if (t_.nz != 0) codes_ = room.Take<int8_t>(bytes);
    for (int32_t i = 0; i < t_.slots; ++i) {
      out_[i] = room.Take<int8_t>(bytes);
      spread_[i] = room.Take<float>(s.rows() * kBlockFloats);
      spread_more_[i] = room.Take<float>(s.rows() * kBlockFloats);
      channels_[i] = room.Take<float>(s.width());
      masks_[i] = room.Take<int16_t>(2 * kMaskHeads);
      ranks_[i] = room.Take<int32_t>(2 * kMaskHeads);
    }
    selected_.Init(room, a_, t_, whole_, s);
    for (int32_t i = 0; i < t_.slots; ++i) AscendC::Duplicate(channels_[i], 1.0f, s.width());
    Fence();
  }

  // Masks and ranks of the unit's heads, and how many vectors are kept. A unit's kept runs follow each other.
  __aicore__ inline void Place(int32_t unit) {
    AscendC::WaitFlag<HardEvent::MTE3_S>(slot_);
    selected_.Clear(heads_);
    for (int32_t k = 0; k < 2; ++k) {
      for (int32_t h = 0; h < heads_; ++h) {
        const Placed placed = places_.Next(unit, h, k);
        selected_.Keep(k, h, placed);
        const uint32_t at = static_cast<uint32_t>(k * kMaskHeads + h);
        masks_[slot_].SetValue(at, static_cast<int16_t>(placed.mask));
        ranks_[slot_].SetValue(at, placed.rank);
      }
    }
    AscendC::SetFlag<HardEvent::S_MTE3>(slot_);
    AscendC::WaitFlag<HardEvent::S_MTE3>(slot_);
    const uint64_t at = static_cast<uint64_t>(page_) * t_.heads + head_;
    StoreHeads(Global<int16_t>(a_.mask)[at], masks_[slot_]);
    StoreHeads(Global<int32_t>(a_.rank)[at], ranks_[slot_]);
    StoreHeads(Global<int16_t>(a_.fmask)[at], masks_[slot_][kMaskHeads]);
    StoreHeads(Global<int32_t>(a_.frank)[at], ranks_[slot_][kMaskHeads]);
    AscendC::SetFlag<HardEvent::MTE3_S>(slot_);
  }
  template <typename T>
  __aicore__ inline void StoreHeads(const AscendC::GlobalTensor<T>& dst, const LocalTensor<T>& src) {
    AscendC::DataCopyExtParams p;
    p.blockLen = static_cast<uint32_t>(heads_) * sizeof(T);
    AscendC::DataCopyPad(dst, src, p);
  }

  __aicore__ inline void Unit(int32_t unit) {
    const Shape s = ResidualShape(kPage, heads_, t_.dim, four_);
    AscendC::WaitFlag<HardEvent::V_MTE2>(slot_);
    LoadRows(encoder_.in[slot_],
             x_[static_cast<uint64_t>(unit / tiles_) * t_.x_page + static_cast<uint64_t>(head_) * t_.x_head],
             s, {t_.x_token, t_.x_head}, s.width());
    if (t_.kv == kTwC8s)
      LoadRows(channels_[slot_], Global<float>(a_.channel_scale)[static_cast<uint64_t>(head_) * t_.dim],
               ResidualShape(1, heads_, t_.dim, four_), {t_.heads * t_.dim, t_.dim}, s.width(), 1.0f);
    AscendC::SetFlag<HardEvent::MTE2_V>(slot_);
    AscendC::WaitFlag<HardEvent::MTE2_V>(slot_);
    AscendC::WaitFlag<HardEvent::MTE3_V>(slot_);
    Fence();
    const LocalTensor<float> x = encoder_.Floats(slot_, s);
    const LocalTensor<float> y = sizeof(In) == sizeof(float) ? products_ : x;
    Products(y, x, s);
    const LocalTensor<int8_t> rows = t_.nz != 0 ? codes_ : out_[slot_];
    const int32_t pitch = split_ ? heads_ * Bytes().row() : cache_.Pitch(heads_, Bytes());
    if (four_)
      encoder_.Codes4(rows, pitch, y, whole_, s);
    else
      encoder_.Codes8(rows, pitch, y, whole_, s, t_.kv == kTwC8d);
    if (selected_.any(0)) {
      if (t_.e3m0 != 0) Errors(y, s);
      selected_.Residuals(encoder_, y, rows, pitch, s);
    }
    if (selected_.any(1)) selected_.Floats(encoder_.in[slot_], s);
    AscendC::SetFlag<HardEvent::V_MTE2>(slot_);
    StoreCodes(rows, pitch);
    StoreScales(s);
    AscendC::SetFlag<HardEvent::MTE3_V>(slot_);
  }

  // y = x / scale, or (x - zero) / scale, by the reciprocal; scales as they are stored.
  __aicore__ inline void Products(const LocalTensor<float>& y, const LocalTensor<float>& x, const Shape& s) {
    if (t_.kv == kTwC8s) {
      Invert(encoder_.channel, channels_[slot_], s.width());
      Fence();
      ByChannel<Mul2>(y, x, encoder_.channel, s);
    } else if (t_.kv == kTwC8d) {
      encoder_.DynamicScale(x, s, slot_);
      Spread(spread_[slot_], encoder_.scale32[slot_], s.rows());
      ByRow<Mul2>(y, x, encoder_.by_scale, s);
    } else if (t_.kv == kTwKv4Value) {
      encoder_.RangeByRow(x, s, slot_);
      Spread(Halves(spread_), encoder_.scale16[slot_], s.rows());
      Spread(Halves(spread_more_), encoder_.zero16[slot_], s.rows());
      ByRow<Sub2>(y, x, encoder_.by_zero, s);
      Fence();
      ByRow<Mul2>(y, y, encoder_.by_scale, s);
    } else {
      encoder_.RangeByChannel(x, s, slot_);
      ByChannel<Sub2>(y, x, encoder_.zeros(), s);
      Fence();
      ByChannel<Mul2>(y, y, encoder_.reciprocals(), s);
    }
    Fence();
  }

  // y = x - what the plain codes stand for.
  __aicore__ inline void Errors(const LocalTensor<float>& y, const Shape& s) {
    const LocalTensor<float> q = encoder_.work;
    if (four_)
      Bound(q, y, 0.0f, 15.0f, s.count());
    else
      Bound(q, y, -127.0f, 127.0f, s.count());
    AscendC::Cast(q, q, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(s.count()));
    Fence();
    if (t_.kv == kTwC8s) {
      ByChannel<Mul2>(q, q, channels_[slot_], s);
    } else if (t_.kv == kTwC8d) {
      SpreadRows(encoder_.by_zero, encoder_.scale32[slot_], s);
      Fence();
      ByRow<Mul2>(q, q, encoder_.by_zero, s);
    } else if (t_.kv == kTwKv4Value) {
      AscendC::Cast(encoder_.reciprocals(), encoder_.scale16[slot_], AscendC::RoundMode::CAST_NONE,
                    static_cast<uint32_t>(kMaxRows));
      Fence();
      SpreadRows(encoder_.by_scale, encoder_.reciprocals(), s);
      Fence();
      ByRow<Mul2>(q, q, encoder_.by_scale, s);
      Fence();
      ByRow<Add2>(q, q, encoder_.by_zero, s);
    } else {
      AscendC::Cast(encoder_.reciprocals(), encoder_.scale16[slot_], AscendC::RoundMode::CAST_NONE,
                    static_cast<uint32_t>(s.width()));
      Fence();
      ByChannel<Mul2>(q, q, encoder_.reciprocals(), s);
      Fence();
      ByChannel<Add2>(q, q, encoder_.zeros(), s);
    }
    if (sizeof(In) == sizeof(float)) {
      Fence();
      AscendC::Sub(y, encoder_.Floats(slot_, s), q, s.count());
    } else {
      const LocalTensor<float> x = encoder_.Floats(slot_, s);  // y itself, anew
      AscendC::Sub(y, x, q, s.count());
    }
    Fence();
  }

  __aicore__ inline void StoreCodes(const LocalTensor<int8_t>& rows, int32_t pitch) {
    const int32_t at = page_ * kPage;
    if (t_.nz == 0) {
      AscendC::SetFlag<HardEvent::V_MTE3>(slot_);
      AscendC::WaitFlag<HardEvent::V_MTE3>(slot_);
      cache_.Store(at, kPage, head_, heads_, Bytes(), out_[slot_]);
      return;
    }
    const CodeBytes whole(t_.dim, four_);
    int32_t apart = pitch;
    if (split_) {
      apart = cache_.Pitch(heads_, whole);
      Restage(rows, pitch, apart);
    }
    TurnBlocks<true>(rows, out_[slot_], kPage, heads_ * whole.row() / kBlock, apart / kBlock);
    AscendC::SetFlag<HardEvent::V_MTE3>(slot_);
    AscendC::WaitFlag<HardEvent::V_MTE3>(slot_);
    cache_.Store(at, kPage, head_, heads_, whole, out_[slot_]);
  }
  // Quarters padded each to heads padded as a whole, through global memory: only copies move single bytes.
  __aicore__ inline void Restage(const LocalTensor<int8_t>& rows, int32_t pitch, int32_t apart) {
    const CodeBytes whole(t_.dim, four_);
    const Strides dense{heads_ * t_.dim, t_.dim};
    AscendC::SetFlag<HardEvent::V_MTE3>(kStaged);
    AscendC::WaitFlag<HardEvent::V_MTE3>(kStaged);
    StoreRows(staged_, rows, Bytes().shape(kPage, heads_), dense, pitch);
    AscendC::SetFlag<HardEvent::MTE3_MTE2>(0);
    AscendC::WaitFlag<HardEvent::MTE3_MTE2>(0);
    LoadRows(rows, staged_, whole.shape(kPage, heads_), dense, apart);
    AscendC::SetFlag<HardEvent::MTE2_V>(kStaged);
    AscendC::WaitFlag<HardEvent::MTE2_V>(kStaged);
  }

  __aicore__ inline void StoreScales(const Shape& s) {
    if (t_.kv == kTwKv4Key) {
      const uint64_t at = (static_cast<uint64_t>(page_) * t_.heads + head_) * t_.dim;
      const Shape one = ResidualShape(1, heads_, t_.dim, four_);
      const Strides apart{t_.heads * t_.dim, t_.dim};
      StoreRows(Global<half>(a_.page_scale)[at], encoder_.scale16[slot_], one, apart, one.width());
      StoreRows(Global<half>(a_.page_zero)[at], encoder_.zero16[slot_], one, apart, one.width());
      return;
    }
    const uint64_t at = static_cast<uint64_t>(page_) * kPage * t_.heads + head_;
    if (t_.kv == kTwC8d)
      StoreNumbers(Global<float>(a_.token_scale)[at], encoder_.scale32[slot_], spread_[slot_], s, t_.heads);
    if (t_.kv != kTwKv4Value) return;
    StoreNumbers(Global<half>(a_.token_scale)[at], encoder_.scale16[slot_], Halves(spread_), s, t_.heads);
    StoreNumbers(Global<half>(a_.token_zero)[at], encoder_.zero16[slot_], Halves(spread_more_), s, t_.heads);
  }

  __aicore__ inline void StoreUsed() {
    for (int32_t k = 0; k < 2; ++k) {
      if (!places_.Knows(k, block_)) continue;
      masks_[0].template ReinterpretCast<int32_t>().SetValue(static_cast<uint32_t>(8 * k), places_.kept(k));
      AscendC::SetFlag<HardEvent::S_MTE3>(0);
      AscendC::WaitFlag<HardEvent::S_MTE3>(0);
      AscendC::DataCopyExtParams p;
      p.blockLen = sizeof(int32_t);
      AscendC::DataCopyPad(Global<int32_t>(a_.used_after)[static_cast<uint64_t>(k)],
                           masks_[0].template ReinterpretCast<int32_t>()[static_cast<uint32_t>(8 * k)], p);
    }
  }

  __aicore__ inline CodeBytes Bytes() const { return CodeBytes(t_.dim, four_, split_); }
  __aicore__ inline LocalTensor<half> Halves(const LocalTensor<float> (&of)[2]) const {
    return of[slot_].template ReinterpretCast<half>();
  }

  TwKvResidualTiling t_;
  ResidualArguments a_;
  bool four_, split_;
  AscendC::GlobalTensor<In> x_;
  AscendC::GlobalTensor<int8_t> staged_;
  Cache cache_;
  Places places_;
  Encoder<In> encoder_;
  Selected<In> selected_;
  LocalTensor<float> products_, spread_[2], spread_more_[2], channels_[2];
  LocalTensor<int16_t> whole_, masks_[2];
  LocalTensor<int32_t> ranks_[2];
  LocalTensor<int8_t> codes_, out_[2];
  Share units_;
  int32_t block_, tiles_, slot_ = 0, head_ = 0, heads_ = 0, page_ = 0;
};

}  // namespace tw_kv
