// What the documentation of elementwise instructions forbids: types, memories, strides, overlaps, scalars.
#include <string>
#include <vector>

#include "api/enums.h"
#include "vector/elementwise.h"

namespace tilewright::twin {

namespace {

constexpr uint32_t Types(std::initializer_list<DType> types) {
  uint32_t set = 0;
  for (DType t : types) set |= 1u << static_cast<int>(t);
  return set;
}
constexpr bool Has(uint32_t set, DType t) { return (set >> static_cast<int>(t) & 1) != 0; }

constexpr uint32_t kFloats = Types({DType::F16, DType::F32});
constexpr uint32_t kNumbers = Types({DType::F16, DType::F32, DType::S16, DType::S32});
constexpr uint32_t kWords = Types({DType::S16, DType::U16});

// Types of instructions whose operands share one; 0: see Pairs and Cast.
uint32_t SharedTypes(VecOp op) {
  switch (op) {
    case VecOp::Add:
    case VecOp::Sub:
    case VecOp::Mul:
    case VecOp::Max:
    case VecOp::Min:
    case VecOp::Adds:
    case VecOp::Muls:
    case VecOp::Maxs:
    case VecOp::Mins:
    case VecOp::CreateVecIndex:
      return kNumbers;
    case VecOp::Div:
    case VecOp::FusedMulAdd:
    case VecOp::FusedMulAddRelu:
    case VecOp::LeakyRelu:
    case VecOp::Abs:
    case VecOp::Exp:
    case VecOp::Ln:
    case VecOp::Sqrt:
    case VecOp::Rsqrt:
    case VecOp::Reciprocal:
    case VecOp::Select:
    case VecOp::CompareToMask:
      return kFloats;
    case VecOp::AddRelu:
    case VecOp::SubRelu:
      return kFloats | Types({DType::S16});
    case VecOp::Relu:
      return kFloats | Types({DType::S32});
    case VecOp::And:
    case VecOp::Or:
    case VecOp::Not:
      return kWords;
    case VecOp::ShiftLeft:
    case VecOp::ShiftRight:
      return kWords | Types({DType::S32, DType::U32});
    case VecOp::Duplicate:
      return kNumbers | Types({DType::U16, DType::BF16, DType::U32});
    case VecOp::Compare:
    case VecOp::Compares:
      return kFloats | Types({DType::S32});
    default:
      return 0;
  }
}

struct Pair {
  VecOp op;
  DType src, dst;
};
constexpr Pair kPairs[] = {
    {VecOp::MulAddDst, DType::F16, DType::F16},   {VecOp::MulAddDst, DType::F32, DType::F32},
    {VecOp::MulAddDst, DType::F16, DType::F32},   {VecOp::Axpy, DType::F16, DType::F16},
    {VecOp::Axpy, DType::F32, DType::F32},        {VecOp::Axpy, DType::F16, DType::F32},
    {VecOp::AddReluCast, DType::F16, DType::S8},  {VecOp::AddReluCast, DType::S16, DType::S8},
    {VecOp::AddReluCast, DType::F32, DType::F16}, {VecOp::SubReluCast, DType::F16, DType::S8},
    {VecOp::SubReluCast, DType::S16, DType::S8},  {VecOp::SubReluCast, DType::F32, DType::F16},
    {VecOp::MulCast, DType::F16, DType::S8},      {VecOp::MulCast, DType::F16, DType::U8},
    {VecOp::AddDeqRelu, DType::S32, DType::F16},  {VecOp::CastDeq, DType::S32, DType::F16},
    {VecOp::CastDeq, DType::S16, DType::S8},      {VecOp::CastDeq, DType::S16, DType::U8},
};

// Cast: the round modes of each pair, as bits. (类型转换/Cast.md, A2 column.)
struct CastRow {
  DType src, dst;
  uint8_t modes;
};
constexpr uint8_t kNone = 1, kRounding = 0b111110, kOdd = 0b1000000, kAny = 0xff;
constexpr CastRow kCasts[] = {
    {DType::S4, DType::F16, kNone},
    {DType::S8, DType::F16, kNone},
    {DType::U8, DType::F16, kNone},
    {DType::S16, DType::F16, kNone | kRounding},
    {DType::S16, DType::F32, kNone},
    {DType::F16, DType::S4, kNone | kRounding},
    {DType::F16, DType::S8, kNone | kRounding},
    {DType::F16, DType::U8, kNone | kRounding},
    {DType::F16, DType::S16, kRounding},
    {DType::F16, DType::S32, kRounding},
    {DType::F16, DType::F32, kNone},
    {DType::BF16, DType::S32, kRounding},
    {DType::BF16, DType::F32, kNone},
    {DType::S32, DType::S16, kNone},
    {DType::S32, DType::F16, kAny},
    {DType::S32, DType::F32, kNone | kRounding},
    {DType::S32, DType::S64, kNone},
    {DType::F32, DType::S16, kRounding},
    {DType::F32, DType::F16, kNone | kRounding | kOdd},
    {DType::F32, DType::BF16, kRounding},
    {DType::F32, DType::S32, kRounding},
    {DType::F32, DType::F32, kRounding},
    {DType::F32, DType::S64, kRounding},
    {DType::S64, DType::S32, kNone},
    {DType::S64, DType::F32, kRounding},
};
constexpr const char* kModes[] = {"CAST_NONE",  "CAST_RINT",  "CAST_FLOOR", "CAST_CEIL",
                                  "CAST_ROUND", "CAST_TRUNC", "CAST_ODD"};

class ElementwiseChecker {
 public:
  ElementwiseChecker(Core& core, const Record& record) : core_(core), r_(record), v_(record.vec) {}

  bool Run() {
    Memories();
    if (!ok_) return false;
    OperandTypes();
    Strides();
    Scalars();
    if (ok_) Overlaps();
    return ok_;
  }

 private:
  void Bad(FindingKind kind, const std::string& message) {
    core_.Report(kind, std::string(Name(v_.op)) + ": " + message, r_.pipe, r_.at);
    ok_ = false;
  }
  void Bad(const std::string& message) { Bad(FindingKind::IllegalParameter, message); }

  void Memories() {
    for (int i = 0; i < r_.operands; ++i)
      if (r_.operand[i].mem != Mem::UB)
        return Bad(FindingKind::IllegalMemory,
                   std::string(r_.operand[i].write ? "the destination" : "a source") + " lies in " +
                       Name(r_.operand[i].mem) + ", pipe V works on UB");
  }

  // The first source that is laid out by repeats.
  const Operand& Source() const {
    return v_.op == VecOp::CompareToMask || r_.operands == 1 ? r_.operand[0] : r_.operand[1];
  }

  void OperandTypes() {
    const DType dst = r_.operand[0].type, src = Source().type;
    if (v_.op == VecOp::Cast) return CastTypes(src, dst);
    if (const uint32_t allowed = SharedTypes(v_.op); allowed != 0) {
      if (!Has(allowed, src)) return Bad(std::string("type ") + Name(src) + " is not documented for 2201");
      return ComparisonTypes(dst, src);
    }
    bool any = false;
    for (const Pair& p : kPairs) {
      if (p.op != v_.op) continue;
      if (p.src == src && p.dst == dst) return DeqTypes(dst);
      any = true;
    }
    if (any) Bad(std::string(Name(src)) + " to " + Name(dst) + " is not documented for 2201");
  }

  void ComparisonTypes(DType dst, DType src) {
    if (v_.op != VecOp::Compare && v_.op != VecOp::Compares) return;
    if (dst != DType::U8 && !(dst == DType::S8 && v_.op == VecOp::Compare))
      Bad(std::string("the bits go to a tensor of uint8_t") + (v_.op == VecOp::Compare ? " or int8_t" : "") +
          ", not of " + Name(dst));
    if (src == DType::S32 && v_.mode != 2) Bad("int32_t is compared by CMPMODE::EQ alone");
    if (v_.counter && v_.mask[0] % v_.lanes != 0)
      Bad("count is " + std::to_string(v_.mask[0]) +
          ", the elements must fill a multiple of 256 bytes, that is " + std::to_string(v_.lanes) +
          " of them");
  }

  void CastTypes(DType src, DType dst) {
    for (const CastRow& row : kCasts) {
      if (row.src != src || row.dst != dst) continue;
      if (v_.mode > 6 || (row.modes >> v_.mode & 1) == 0)
        Bad(std::string(Name(src)) + " to " + Name(dst) + " does not take " +
            (v_.mode > 6 ? "this round mode" : kModes[v_.mode]));
      if (src == DType::S4 || dst == DType::S4) WholeBytes();
      return;
    }
    Bad(std::string(Name(src)) + " to " + Name(dst) + " is not documented for 2201");
  }

  void WholeBytes() {
    const uint64_t even = 0x5555555555555555;
    const bool bytes = v_.counter ? v_.mask[0] % 2 == 0
                                  : (v_.mask[0] & even) == (v_.mask[0] >> 1 & even) &&
                                        (v_.mask[1] & even) == (v_.mask[1] >> 1 & even);
    if (!bytes) Bad("two int4b_t share a byte: the count must be even, and mask bits equal in pairs");
  }

  void DeqTypes(DType dst) {
    if (v_.op != VecOp::CastDeq || SizeOf(dst) != 1) return;
    if (v_.arg[1] == 0 && (v_.scalar >> 46 & 1) != (dst == DType::S8 ? 1u : 0u))
      Bad(std::string("signMode of SetDeqScale is ") + (dst == DType::S8 ? "false" : "true") +
          ", which does not go with results in " + Name(dst));
    if ((r_.operand[0].base - (v_.arg[0] != 0 ? 16 : 0)) % 32 != 0)
      Bad(FindingKind::Misaligned, "the destination is not aligned to 32 bytes");
  }

  void Strides() {
    const int stride = StrideOf(r_, 0);
    const Operand& dst = r_.operand[0];
    if (stride != 0 || !dst.write || v_.block_stride[0] != 0) return;
    const bool many =
        dst.lane != 0 ? dst.dim[0].count > 1 : dst.unit == 32 && dst.dims > 0 && dst.dim[0].stride == 0;
    if (many) Bad("dstBlkStride is 0: the blocks of a repeat would fall on one");
  }

  void Scalars() {
    if (v_.op == VecOp::ShiftLeft || v_.op == VecOp::ShiftRight) {
      const DType t = r_.operand[1].type;
      const uint32_t bits = BitsOf(t);
      const int64_t amount = t == DType::S16   ? static_cast<int16_t>(v_.scalar)
                             : t == DType::S32 ? static_cast<int32_t>(v_.scalar)
                                               : static_cast<int64_t>(v_.scalar);
      if (amount < 0 || amount > bits)
        Bad("scalarValue is " + std::to_string(amount) + ", allowed are 0.." + std::to_string(bits));
    }
    const Operand& o = r_.operand[0];
    if (v_.op == VecOp::GetCmpMask && o.hi != 0 && o.hi < o.base + 128)
      Bad("the destination has " + std::to_string(o.hi > o.base ? o.hi - o.base : 0) +
          " bytes, GetCmpMask wants 128");
  }

  // Documented: within a repeat source and destination are the same bytes or none, and no repeat reads what
  // an earlier one wrote, except src1 where it stands still.
  void Overlaps() {
    if (!r_.operand[0].write) return;
    const Extent dst = ExtentOf(r_, r_.operand[0]);
    for (int i = 1; i < r_.operands; ++i) {
      const Extent src = ExtentOf(r_, r_.operand[i]);
      if (src.begin >= dst.end || dst.begin >= src.end) continue;
      if (ReadsDestination(v_.op) && i == r_.operands - 1) continue;
      if (StrideOf(r_, 0) != 0 || StrideOf(r_, i) < 0) {
        Bad("the destination overlaps operand " + std::to_string(i));
        continue;
      }
      Overlap(i);
    }
  }

  bool MayAccumulate(int i) const {
    switch (v_.op) {
      case VecOp::Add:
      case VecOp::Sub:
      case VecOp::Mul:
      case VecOp::Max:
      case VecOp::Min:
      case VecOp::AddRelu:
      case VecOp::SubRelu:
        break;
      default:
        return false;
    }
    const DType t = r_.operand[0].type;
    return i == 2 && (t == DType::F16 || t == DType::S32 || t == DType::F32) &&
           (v_.repeat_stride[0] == 0 || v_.repeat_stride[2] == 0);
  }

  void Overlap(int i) {
    const Operand &dst = r_.operand[0], &src = r_.operand[i];
    const int s = StrideOf(r_, i);
    const bool same = dst.base == src.base && BitsOf(dst.type) == BitsOf(src.type) && !HalfBlocks(r_) &&
                      v_.block_stride[0] == v_.block_stride[s] &&
                      (v_.repeat == 1 || v_.repeat_stride[0] == v_.repeat_stride[s]);
    const uint32_t blocks = v_.lanes * BitsOf(dst.type) / 256;
    if (same && (v_.repeat == 1 || v_.repeat_stride[0] >= blocks * v_.block_stride[0])) return;
    // The repeat that first writes each block of 32 bytes, then what the repeats read.
    std::vector<uint32_t> writer(core_.machine().soc->capacity[static_cast<int>(Mem::UB)] / 32 + 1,
                                 UINT32_MAX);
    Blocks(0, dst, [&](uint32_t repeat, uint64_t block, uint32_t) {
      if (block < writer.size() && writer[block] > repeat) writer[block] = repeat;
    });
    bool partly = false, earlier = false;
    Blocks(s, src, [&](uint32_t repeat, uint64_t block, uint32_t index) {
      if (block >= writer.size() || writer[block] == UINT32_MAX) return;
      if (writer[block] < repeat) earlier = true;
      if (writer[block] == repeat) partly = partly || !SameBlock(dst, src, s, repeat, block, index);
    });
    if (earlier && !MayAccumulate(i))
      Bad("operand " + std::to_string(i) + " reads in a later repeat what an earlier one wrote to dst");
    // Calls by count are not held to this rule: the documentation states it for those with repeats.
    if (partly && !v_.counter)
      Bad("within a repeat dst and operand " + std::to_string(i) +
          " overlap in part, they must be the same bytes or none");
  }

  bool SameBlock(const Operand& dst, const Operand& src, int s, uint32_t repeat, uint64_t block,
                 uint32_t index) const {
    if (BitsOf(dst.type) != BitsOf(src.type)) return false;
    const uint64_t to =
        dst.base + (uint64_t{repeat} * v_.repeat_stride[0] + uint64_t{index} * v_.block_stride[0]) * 32;
    const uint64_t from =
        src.base + (uint64_t{repeat} * v_.repeat_stride[s] + uint64_t{index} * v_.block_stride[s]) * 32;
    return to == from && to / 32 == block;
  }

  template <class Visit>
  void Blocks(int s, const Operand& o, Visit&& visit) const {
    const uint32_t per_block = s == 0 && HalfBlocks(r_) ? 16 : 256 / BitsOf(o.type);
    for (uint32_t i = 0; i < v_.repeat; ++i) {
      for (uint32_t l = 0; l < v_.lanes; ++l) {
        if (!Active(v_, i, l, v_.lanes)) continue;
        const uint32_t b = l / per_block;
        visit(i, o.base / 32 + uint64_t{i} * v_.repeat_stride[s] + uint64_t{b} * v_.block_stride[s], b);
        l = (b + 1) * per_block - 1;
      }
    }
  }

  Core& core_;
  const Record& r_;
  const VecArgs& v_;
  bool ok_ = true;
};

}  // namespace

bool CheckElementwise(Core& core, const Record& record) { return ElementwiseChecker(core, record).Run(); }

bool OverlapsPartly(const Record& r) {
  const Operand& dst = r.operand[0];
  const Extent d = ExtentOf(dst);
  for (int i = 1; i < r.operands; ++i) {
    const int s = StrideOf(r, i);
    const Operand& src = r.operand[i];
    const Extent e = ExtentOf(src);
    if (e.begin >= d.end || d.begin >= e.end) continue;
    const VecArgs& v = r.vec;
    const bool same = s >= 0 && dst.base == src.base && BitsOf(dst.type) == BitsOf(src.type) &&
                      v.block_stride[0] == v.block_stride[s] && v.repeat_stride[0] == v.repeat_stride[s];
    if (!same) return true;
  }
  return false;
}

}  // namespace tilewright::twin
