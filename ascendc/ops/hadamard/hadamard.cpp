// y = (H_outer kron H_inner) x / sqrt(D) of each row, one source for CANN and for the twin.
//
// A row is `outer` segments of `inner` = 2^n elements. Segment j of y is the inner transform of the sum of
// all segments of x, each under the sign of row j of the outer matrix. A step of the inner transform takes
// sums of neighbours to the front half of a segment and their differences to the back, so that n steps end in
// natural order. Rows stay in UB as fp32, so that x is read once. Where rows fit three times over, the inner
// transform of all segments comes first, and one instruction adds a segment to all sums, each under its own
// sign; of longer rows, a segment of y is made after the other.
#include "../_rows/rows.h"
#include "hadamard_tiling.h"
#include "kernel_operator.h"

namespace {

using namespace tw_rows;

constexpr int32_t kMostPairs = 128;  // repeats of an instruction along a segment

template <typename T>
class Hadamard {
 public:
  __aicore__ inline Hadamard() {}

  __aicore__ inline void Init(GM_ADDR x, GM_ADDR signs, GM_ADDR blocks, GM_ADDR y, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    x_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(x));
    signs_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(signs));
    y_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(y));
    const int32_t whole = t_.tile_rows * t_.cols;
    const int32_t part = t_.inner_first != 0 ? whole : t_.tile_rows * t_.inner;
    Room room;
    for (int32_t i = 0; i < 2; ++i) {
      in_[i] = room.Take<T>(t_.load);
      out_[i] = room.Take<T>(part);
      if (i == 1 || t_.inner_first == 0) steps_[i] = room.Take<float>(part);
    }
    rows_ = room.Take<float>(whole);
    if (t_.inner_first != 0) steps_[0] = rows_;  // step 0 goes to steps_[1]
    work_ = room.Take<float>(part);
    alternating_ = room.Take<float>(kFloats);
    AscendC::Duplicate(alternating_, 1.0f, kFloats);
    Fence();
    const uint64_t odd[1] = {0xAAAAAAAAAAAAAAAAu};
    AscendC::Duplicate(alternating_, -1.0f, odd, 1, 1, 8);
    Fence();
    if (t_.inner_first == 0 || t_.outer == 1) return;
    const int32_t count = t_.outer * t_.outer * kBlockFloats;
    blocks_ = room.Take<float>(count);
    GlobalTensor<float> from;
    from.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(blocks));
    LoadRun(blocks_, from, count);
    SetFlag<HardEvent::MTE2_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
  }

  __aicore__ inline void Process() {
    const Share tiles = ShareOf(CeilDiv(t_.rows, t_.tile_rows), static_cast<int32_t>(AscendC::GetBlockNum()),
                                static_cast<int32_t>(AscendC::GetBlockIdx()));
    OpenSlots();
    for (int32_t i = tiles.begin; i < tiles.end; ++i) {
      const int32_t row = i * t_.tile_rows, rows = Min(t_.tile_rows, t_.rows - row);
      Fetch(row, rows);
      if (t_.inner_first != 0) {
        const int32_t segments = rows * t_.outer;
        LocalTensor<float> sums = Transform(rows_, segments);
        if (t_.outer > 1) sums = Mix(sums, rows);
        Emit(sums, row, 0, {rows, t_.cols, t_.cols});
        continue;
      }
      for (int32_t j = 0; j < t_.outer; ++j) {
        Combine(j, rows);
        Emit(Transform(steps_[0], rows), row, j * t_.inner, {rows, t_.inner, t_.inner});
      }
    }
    CloseSlots();
  }

 private:
  static constexpr bool kNarrow = sizeof(T) != sizeof(float);

  // Rows into rows_: all at once, or one in pieces.
  __aicore__ inline void Fetch(int32_t row, int32_t rows) {
    const int32_t piece = Min(t_.load, t_.cols);
    for (int32_t at = 0; at < t_.cols; at += piece) {
      const int32_t cols = Min(piece, t_.cols - at);
      const Tile s{rows, cols, cols};
      WaitFlag<HardEvent::V_MTE2>(in_slot_);
      Load(in_[in_slot_], x_[static_cast<uint64_t>(row) * t_.x_row + static_cast<uint64_t>(at)], s, t_.x_row);
      SetFlag<HardEvent::MTE2_V>(in_slot_);
      WaitFlag<HardEvent::MTE2_V>(in_slot_);
      Widen(rows_[static_cast<uint32_t>(at)], in_[in_slot_], s.count());
      SetFlag<HardEvent::V_MTE2>(in_slot_);
      in_slot_ ^= 1;
    }
    Fence();
  }

  // steps_[0]: what the inner transform of segment j starts from.
  __aicore__ inline void Combine(int32_t j, int32_t rows) {
    const LocalTensor<float> sum = steps_[0];
    int32_t bits = 0;
    for (int32_t r = 0; r < t_.outer; ++r) {
      if (r % 32 == 0) bits = signs_.GetValue(static_cast<uint64_t>(j * kTwHadamardWords + r / 32));
      const bool minus = ((static_cast<uint32_t>(bits) >> (r % 32)) & 1u) != 0;
      const LocalTensor<float> segment = rows_[static_cast<uint32_t>(r * t_.inner)];
      if (r == 0)
        Start(sum, segment, minus ? -1.0f : 1.0f, rows);
      else if (minus)
        Onto<Sub2>(sum, segment, rows);
      else
        Onto<Add2>(sum, segment, rows);
      Fence();
    }
  }
  __aicore__ inline void Start(const LocalTensor<float>& sum, const LocalTensor<float>& segment, float sign,
                               int32_t rows) {
    if (rows == 1) {
      AscendC::Muls(sum, segment, sign, t_.inner);
      return;
    }
    const AscendC::UnaryRepeatParams p(1, 1, static_cast<uint8_t>(t_.inner / kBlockFloats),
                                       static_cast<uint8_t>(t_.cols / kBlockFloats));
    for (int32_t c = 0; c < t_.inner; c += kFloats)
      AscendC::Muls(sum[static_cast<uint32_t>(c)], segment[static_cast<uint32_t>(c)], sign,
                    static_cast<uint64_t>(Min(kFloats, t_.inner - c)), rows, p);
  }
  template <typename Op>
  __aicore__ inline void Onto(const LocalTensor<float>& sum, const LocalTensor<float>& segment,
                              int32_t rows) {
    if (rows == 1) {
      Op::Do(sum, sum, segment, t_.inner);
      return;
    }
    const uint8_t near = static_cast<uint8_t>(t_.inner / kBlockFloats);
    const AscendC::BinaryRepeatParams p(1, 1, 1, near, near, static_cast<uint8_t>(t_.cols / kBlockFloats));
    for (int32_t c = 0; c < t_.inner; c += kFloats)
      Op::Do(sum[static_cast<uint32_t>(c)], sum[static_cast<uint32_t>(c)], segment[static_cast<uint32_t>(c)],
             static_cast<uint64_t>(Min(kFloats, t_.inner - c)), rows, p);
  }

  // Each row's segments, under all signs at once, to sums in the buffer that the last step has left; where.
  __aicore__ inline LocalTensor<float> Mix(const LocalTensor<float>& from, int32_t rows) {
    const LocalTensor<float> sums = steps_[1 - t_.steps % 2];
    const uint8_t step = static_cast<uint8_t>(t_.inner / kBlockFloats);
    const AscendC::BinaryRepeatParams p(1, 1, 0, step, 0, 1);
    for (int32_t r = 0; r < t_.outer; ++r) {
      const LocalTensor<float> signs = blocks_[static_cast<uint32_t>(r * t_.outer * kBlockFloats)];
      for (int32_t row = 0; row < rows; ++row)
        for (int32_t c = 0; c < t_.inner; c += kFloats) {
          const LocalTensor<float> sum = sums[static_cast<uint32_t>(row * t_.cols + c)];
          const LocalTensor<float> x = from[static_cast<uint32_t>(row * t_.cols + r * t_.inner + c)];
          const uint64_t mask = static_cast<uint64_t>(Min(kFloats, t_.inner));
          if (r == 0)
            AscendC::Mul(sum, x, signs, mask, t_.outer, p);
          else
            AscendC::MulAddDst(sum, x, signs, mask, t_.outer, p);
        }
      Fence();
    }
    return sums;
  }

  // All steps of rows of `inner` elements, one after the other; where the result is.
  __aicore__ inline LocalTensor<float> Transform(LocalTensor<float> from, int32_t rows) {
    const int32_t count = rows * t_.inner, full = count / kFloats, rest = count % kFloats;
    const AscendC::BinaryRepeatParams p(1, 1, 1, 8, 8, 0);
    for (int32_t step = 0; step < t_.steps; ++step) {
      const LocalTensor<float> to = steps_[1 - step % 2];
      for (int32_t c = 0; c < full; c += kMostPairs)
        AscendC::Mul(work_[static_cast<uint32_t>(c * kFloats)], from[static_cast<uint32_t>(c * kFloats)],
                     alternating_, static_cast<uint64_t>(kFloats), Min(kMostPairs, full - c), p);
      if (rest > 0)
        AscendC::Mul(work_[static_cast<uint32_t>(full * kFloats)],
                     from[static_cast<uint32_t>(full * kFloats)], alternating_, static_cast<uint64_t>(rest),
                     1, p);
      Pairs(to, from, rows);
      Fence();
      Pairs(to[static_cast<uint32_t>(t_.inner / 2)], work_, rows);
      Fence();
      from = to;
    }
    return from;
  }
  // Sums of neighbours of each row's elements to the front half of rows of `to`.
  __aicore__ inline void Pairs(const LocalTensor<float>& to, const LocalTensor<float>& from, int32_t rows) {
    const int32_t repeats = t_.inner / kFloats;
    if (t_.inner >= kFloats / 2 && rows > repeats) {
      for (int32_t c = 0; c < t_.inner; c += kFloats)
        AscendC::PairReduceSum(to[static_cast<uint32_t>(c / 2)], from[static_cast<uint32_t>(c)], rows,
                               static_cast<uint64_t>(Min(kFloats, t_.inner)), t_.inner / 32, 1,
                               t_.inner / kBlockFloats);
      return;
    }
    for (int32_t r = 0; r < rows; ++r) {
      const int32_t at = r * t_.inner;
      if (repeats == 0)
        AscendC::PairReduceSum(to[static_cast<uint32_t>(at)], from[static_cast<uint32_t>(at)], 1,
                               static_cast<uint64_t>(t_.inner), 1, 1, 8);
      for (int32_t c = 0; c < repeats; c += kMostPairs)
        AscendC::PairReduceSum(to[static_cast<uint32_t>(at + c * kFloats / 2)],
                               from[static_cast<uint32_t>(at + c * kFloats)], Min(kMostPairs, repeats - c),
                               static_cast<uint64_t>(kFloats), 1, 1, 8);
    }
  }

  __aicore__ inline void Emit(const LocalTensor<float>& sums, int32_t row, int32_t col, const Tile& s) {
    WaitFlag<HardEvent::MTE3_V>(out_slot_);
    if constexpr (kNarrow) {
      AscendC::Muls(work_, sums, t_.factor, s.count());
      Fence();
      AscendC::Cast(out_[out_slot_], work_, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(s.count()));
    } else {
      AscendC::Muls(out_[out_slot_], sums, t_.factor, s.count());
    }
    Fence();
    SetFlag<HardEvent::V_MTE3>(out_slot_);
    WaitFlag<HardEvent::V_MTE3>(out_slot_);
    Store(y_[static_cast<uint64_t>(row) * t_.y_row + static_cast<uint64_t>(col)], out_[out_slot_], s,
          t_.y_row);
    SetFlag<HardEvent::MTE3_V>(out_slot_);
    out_slot_ ^= 1;
  }

  TwHadamardTiling t_;
  GlobalTensor<T> x_, y_;
  GlobalTensor<int32_t> signs_;
  LocalTensor<T> in_[2], out_[2];
  LocalTensor<float> steps_[2], rows_, work_, alternating_, blocks_;
  int32_t in_slot_ = 0, out_slot_ = 0;
};

}  // namespace

#define TW_HADAMARD(name, T)                                                                      \
  extern "C" __global__ __aicore__ void name(GM_ADDR x, GM_ADDR signs, GM_ADDR blocks, GM_ADDR y, \
                                             GM_ADDR tiling) {                                    \
    Hadamard<T> op;                                                                               \
    op.Init(x, signs, blocks, y, tiling);                                                         \
    op.Process();                                                                                 \
  }

TW_HADAMARD(hadamard_fp32, float)
TW_HADAMARD(hadamard_fp16, half)
TW_HADAMARD(hadamard_bf16, bfloat16_t)
