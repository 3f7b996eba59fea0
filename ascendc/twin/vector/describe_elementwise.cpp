// Masks, repeats and strides of elementwise instructions -> byte ranges.
#include "vector/elementwise.h"

namespace tilewright::twin {

namespace {

uint32_t LastLane(const VecArgs& v) {  // one past the last active lane of a repeat
  return v.mask[1] != 0   ? 128 - static_cast<uint32_t>(__builtin_clzll(v.mask[1]))
         : v.mask[0] != 0 ? 64 - static_cast<uint32_t>(__builtin_clzll(v.mask[0]))
                          : 0;
}

// Whether the active lanes are the first `n`.
bool Leading(const VecArgs& v, uint32_t n) {
  const uint32_t low = std::min(n, 64u);
  return static_cast<uint32_t>(__builtin_popcountll(v.mask[0])) == low &&
         static_cast<uint32_t>(__builtin_popcountll(v.mask[1])) == n - low;
}

void AddDim(Operand& o, uint32_t count, int64_t stride) {
  if (count <= 1) return;
  if (o.dims == 0 && stride == static_cast<int64_t>(o.unit))
    o.unit *= count;
  else
    o.dim[o.dims++] = {count, stride};
}

// The elements of one operand. A mask with holes, and a partly filled block beside others that do not touch
// it, keep whole blocks and name the lanes.
void Elements(const Record& r, Operand& o, int stride, uint32_t bits, uint32_t per_block) {
  const VecArgs& v = r.vec;
  const int64_t block = int64_t{v.block_stride[stride]} * 32, repeat = int64_t{v.repeat_stride[stride]} * 32;
  const uint32_t block_bytes = per_block * bits / 8;
  const bool flat = block == block_bytes;
  const uint32_t repeats = v.repeat;
  uint32_t first = v.counter && repeats == 1 ? static_cast<uint32_t>(v.mask[0]) : LastLane(v);
  bool leading = v.counter ? repeats == 1 : Leading(v, first);
  if (v.counter && repeats > 1) {
    if (flat && repeat == int64_t{v.lanes} * bits / 8) {
      o.unit = static_cast<uint32_t>((v.mask[0] * bits + 7) / 8);
      return;
    }
    first = v.lanes;
    leading = v.mask[0] % v.lanes == 0;
  }
  if (leading && (flat || first <= per_block)) {
    o.unit = (first * bits + 7) / 8;
    return AddDim(o, repeats, repeat);
  }
  o.unit = block_bytes;
  const uint32_t blocks = CeilDiv(first, per_block);
  if (leading && first % per_block == 0) {
    AddDim(o, blocks, block);
    return AddDim(o, repeats, repeat);
  }
  o.lane = static_cast<uint8_t>(bits < 8 ? 1 : bits / 8);
  o.dims = 2;
  o.dim[0] = {blocks, block};
  o.dim[1] = {repeats, repeat};
}

uint32_t BitBytes(const VecArgs& v) {  // of one bit for every element
  if (v.counter) return static_cast<uint32_t>((v.mask[0] + 7) / 8);
  return (v.repeat - 1) * v.lanes / 8 + CeilDiv(LastLane(v), 8);
}

}  // namespace

void DescribeElementwise(Record& r) {
  const VecArgs& v = r.vec;
  for (int i = 0; i < r.operands; ++i) {
    Operand& o = r.operand[i];
    const int stride = StrideOf(r, i);
    if (stride >= 0) {
      const bool half = i == 0 && HalfBlocks(r);
      const uint32_t bits = BitsOf(o.type);
      if (half && v.arg[0] != 0) o.base += 16;
      Elements(r, o, stride, bits, half ? 16 : 256 / std::max(bits, 4u));
    } else if (v.op == VecOp::SetCmpMask || v.op == VecOp::GetCmpMask) {
      o.unit = 16;
    } else if (v.op == VecOp::CastDeq) {
      o.unit = 128;
    } else if (v.op == VecOp::Select && v.mode == 0) {
      o.unit =
          CeilDiv(v.counter ? static_cast<uint32_t>(std::min<uint64_t>(v.mask[0], v.lanes)) : LastLane(v), 8);
    } else {
      o.unit = BitBytes(v);
    }
  }
}

uint32_t AlignmentElementwise(const Record& r, int operand) {
  if (r.vec.op == VecOp::SetCmpMask || r.vec.op == VecOp::GetCmpMask) return 16;
  return operand == 0 && HalfBlocks(r) ? 16 : 32;
}

}  // namespace tilewright::twin
