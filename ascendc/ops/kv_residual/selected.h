// The selected vectors of a tile: gathered a batch at a time, worked on together, put into the pools. A
// unit's kept runs follow each other in a pool, in the order of the gathering.
#pragma once

#include "../_kv/encode.h"
#include "residual.h"

namespace tw_kv {

template <typename In>
class Selected {
 public:
  __aicore__ inline Selected() {}

  // `whole` takes a tile of int16, and four planes of one.
  __aicore__ inline void Init(Room& room, const ResidualArguments& a, const TwKvResidualTiling& tiling,
                              const LocalTensor<int16_t>& whole, const Shape& s) {
    t_ = tiling;
    a_ = a;
    four_ = t_.kv >= kTwKv4Value;
    whole_ = whole;
    batch_codes_ = room.Take<int8_t>(t_.batch * s.row());
    lanes_ = room.Take<int16_t>(t_.batch * Quarters(s).padded);
    floats_ = room.Take<In>(t_.batch * s.row());
    error_ = room.Take<float>(kMaxRows);
    safe_ = room.Take<float>(kMaxRows);
    AscendC::Duplicate(error_, 0.0f, kMaxRows);
  }
  __aicore__ inline void Begin() { AscendC::SetFlag<HardEvent::MTE3_V>(kBatch); }
  __aicore__ inline void End() { AscendC::WaitFlag<HardEvent::MTE3_V>(kBatch); }

  // Of a new unit: what Place says of its heads, kind by kind (0 residuals, 1 floats).
  __aicore__ inline void Clear(int32_t heads) {
    heads_ = heads;
    kept_[0] = kept_[1] = 0;
  }
  __aicore__ inline void Keep(int32_t kind, int32_t head, const Placed& placed) {
    bits_[kind][head] = placed.mask;
    if (placed.mask != 0 && kept_[kind] == 0) start_[kind] = placed.rank;
    kept_[kind] += Places::Bits(placed.mask);
  }
  __aicore__ inline bool any(int32_t kind) const { return kept_[kind] > 0; }

  // y are rows of products (nested) or errors (e3m0); base codes in `rows` are replaced where a nested one
  // says so.
  __aicore__ inline void Residuals(Encoder<In>& encoder, const LocalTensor<float>& y,
                                   const LocalTensor<int8_t>& rows, int32_t pitch, const Shape& s) {
    Walk walk;
    const Quarters q(s);
    const LocalTensor<float> chosen = encoder.work;
    for (int32_t done = 0; done < kept_[0];) {
      const int32_t many = NextRows(walk, 0);
      const Shape b{many, 1, s.segments, s.valid, s.padded};
      for (int32_t i = 0; i < many; ++i)
        AscendC::DataCopy(chosen[static_cast<uint32_t>(i * s.row())],
                          y[static_cast<uint32_t>(rows_[i] * s.row())], static_cast<uint32_t>(s.row()));
      Fence();
      AscendC::WaitFlag<HardEvent::MTE3_V>(kBatch);
      if (t_.e3m0 != 0)
        PowersOfTwo(encoder, chosen, b);
      else
        Nested(chosen, rows, pitch, b);
      AscendC::SetFlag<HardEvent::V_MTE3>(kBatch);
      AscendC::WaitFlag<HardEvent::V_MTE3>(kBatch);
      const uint64_t row = static_cast<uint64_t>(start_[0] + done);
      StoreRows(Global<int16_t>(a_.pool)[row * q.lanes], lanes_, {many, 1, 1, q.lanes, q.padded},
                {q.lanes, q.lanes}, q.padded);
      if (t_.e3m0 != 0) {
        AscendC::DataCopyExtParams p;
        p.blockLen = static_cast<uint32_t>(many) * sizeof(float);
        AscendC::DataCopyPad(Global<float>(a_.pool_scale)[row], error_, p);
      }
      AscendC::SetFlag<HardEvent::MTE3_V>(kBatch);
      done += many;
    }
  }

  // Vectors that stay in float, as they came.
  __aicore__ inline void Floats(const LocalTensor<In>& in, const Shape& s) {
    Walk walk;
    for (int32_t done = 0; done < kept_[1];) {
      const int32_t many = NextRows(walk, 1);
      AscendC::WaitFlag<HardEvent::MTE3_V>(kBatch);
      for (int32_t i = 0; i < many; ++i)
        AscendC::DataCopy(floats_[static_cast<uint32_t>(i * s.row())],
                          in[static_cast<uint32_t>(rows_[i] * s.row())], static_cast<uint32_t>(s.row()));
      AscendC::SetFlag<HardEvent::V_MTE3>(kBatch);
      AscendC::WaitFlag<HardEvent::V_MTE3>(kBatch);
      StoreRows(Global<In>(a_.fpool)[static_cast<uint64_t>(start_[1] + done) * t_.dim], floats_,
                {many, 1, s.segments, s.valid, s.padded}, {t_.dim, t_.dim}, s.row());
      AscendC::SetFlag<HardEvent::MTE3_V>(kBatch);
      done += many;
    }
  }

 private:
  using HardEvent = AscendC::HardEvent;
  static constexpr int32_t kBatch = 2;  // event id of what a batch stores

  // Walks through the set bits of one kind, in the order of pools.
  struct Walk {
    int32_t head = 0, left = 0;
    bool fresh = true;
  };
  // Up to a batch of the tile's rows that come next; how many.
  __aicore__ inline int32_t NextRows(Walk& walk, int32_t kind) {
    int32_t found = 0;
    while (found < t_.batch && walk.head < heads_) {
      if (walk.fresh) walk.left = bits_[kind][walk.head];
      walk.fresh = walk.left == 0;
      if (walk.fresh) {
        ++walk.head;
        continue;
      }
      rows_[found++] =
          static_cast<int32_t>(AscendC::ScalarGetSFFValue<1>(static_cast<uint64_t>(walk.left))) * heads_ +
          walk.head;
      walk.left &= walk.left - 1;
    }
    return found;
  }

  // One rounding at 16 times the resolution: base codes over the plain ones, and the low 4 bits in lanes_.
  __aicore__ inline void Nested(const LocalTensor<float>& y, const LocalTensor<int8_t>& rows, int32_t pitch,
                                const Shape& b) {
    const int32_t lane_bytes = Quarters(b).padded * static_cast<int32_t>(sizeof(int16_t));
    const LocalTensor<int16_t> low = whole_;
    const LocalTensor<int8_t> lanes = lanes_.template ReinterpretCast<int8_t>();
    AscendC::Muls(y, y, 16.0f, b.count());
    Fence();
    if (four_) {
      const LocalTensor<int16_t> base = whole_[static_cast<uint32_t>(4 * PlaneSize(b))];
      Bound(y, y, 0.0f, 247.0f, b.count());
      ToPlanes(low, y, b);
      AscendC::Adds(base, low, static_cast<int16_t>(8), 4 * PlaneSize(b));
      Fence();
      AscendC::ShiftRight(base, base, static_cast<int16_t>(4), 4 * PlaneSize(b));
      Fence();
      PackLow(lanes, lane_bytes, low, b);
      Pack(batch_codes_, lane_bytes, base, b);
      Scatter(rows, pitch, b, lane_bytes);
      return;
    }
    const LocalTensor<int16_t> whole =
        y[static_cast<uint32_t>(t_.batch * b.row())].template ReinterpretCast<int16_t>();
    Bound(y, y, -2040.0f, 2039.0f, b.count());
    AscendC::Cast(whole, y, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(b.count()));
    ToPlanes(low, y, b);
    PackLow(lanes, lane_bytes, low, b);
    AscendC::Adds(whole, whole, static_cast<int16_t>(8), b.count());
    Fence();
    AscendC::ShiftRight(whole, whole, static_cast<int16_t>(4), b.count());
    Fence();
    Narrow(batch_codes_, b.row(), whole, b);
    Scatter(rows, pitch, b, b.row());
  }
  __aicore__ inline void Scatter(const LocalTensor<int8_t>& rows, int32_t pitch, const Shape& b,
                                 int32_t bytes) {
    for (int32_t i = 0; i < b.tokens; ++i)
      AscendC::DataCopy(rows[static_cast<uint32_t>(rows_[i] / heads_ * pitch + rows_[i] % heads_ * bytes)],
                        batch_codes_[static_cast<uint32_t>(i * bytes)], static_cast<uint32_t>(bytes));
    Fence();
  }

  // Sign and the nearest power of two of errors, by the bits of fp32, in lanes_; their largest ones in
  // error_.
  __aicore__ inline void PowersOfTwo(Encoder<In>& encoder, const LocalTensor<float>& e, const Shape& b) {
    const LocalTensor<float> t = e[static_cast<uint32_t>(t_.batch * b.row())];
    if (b.segments == 1)
      encoder.LargestOfRows(error_, e, t, b);
    else
      encoder.LargestOfValid(error_, e, t, whole_.template ReinterpretCast<float>(), b);
    encoder.NotTiny(safe_, error_);
    Invert(encoder.reciprocals(), safe_, kMaxRows);
    Fence();
    // The reciprocals of channels are not needed any more, nor those of rows.
    SpreadRows(encoder.by_scale, encoder.reciprocals(), b);
    AscendC::Abs(t, e, b.count());
    Fence();
    ByRow<Mul2>(t, t, encoder.by_scale, b);
    Fence();
    const LocalTensor<int32_t> bits = t.template ReinterpretCast<int32_t>();
    const LocalTensor<uint32_t> sign = e.template ReinterpretCast<uint32_t>();
    AscendC::Adds(bits, bits, static_cast<int32_t>(0x400000), b.count());
    AscendC::ShiftRight(sign, sign, static_cast<uint32_t>(31), b.count());
    Fence();
    AscendC::ShiftRight(bits, bits, static_cast<int32_t>(23), b.count());
    AscendC::ShiftLeft(sign, sign, static_cast<uint32_t>(3), b.count());
    Fence();
    AscendC::Adds(bits, bits, static_cast<int32_t>(-120), b.count());
    Fence();
    AscendC::Maxs(bits, bits, static_cast<int32_t>(0), b.count());
    Fence();
    AscendC::Mins(bits, bits, static_cast<int32_t>(7), b.count());
    Fence();
    AscendC::Add(bits, bits, e.template ReinterpretCast<int32_t>(), b.count());
    Fence();
    AscendC::Cast(e, bits, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(b.count()));
    Fence();
    ToPlanes(whole_, e, b);
    Pack(lanes_.template ReinterpretCast<int8_t>(),
         Quarters(b).padded * static_cast<int32_t>(sizeof(int16_t)), whole_, b);
  }

  TwKvResidualTiling t_;
  ResidualArguments a_;
  bool four_;
  LocalTensor<int16_t> whole_, lanes_;
  LocalTensor<int8_t> batch_codes_;
  LocalTensor<In> floats_;
  LocalTensor<float> error_, safe_;
  int32_t heads_;
  int32_t bits_[2][kMaskHeads];  // kept masks of the unit's heads: residuals, floats
  int32_t kept_[2], start_[2];   // vectors of the unit, and their first pool row
  int32_t rows_[kMaxRows];       // the tile's rows of a batch
};

}  // namespace tw_kv
