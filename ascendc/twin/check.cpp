// What the documentation forbids: addresses, alignments, memories, parameters and types. One sentence a
// finding.
#include <string>

#include "machine.h"

namespace tilewright::twin {

namespace {

std::string Str(uint64_t v) { return std::to_string(v); }

// The sentence is only built where it is needed: checks run on every instruction.
#define TW_REQUIRE(good, message)                             \
  do {                                                        \
    if (!(good)) Bad(FindingKind::IllegalParameter, message); \
  } while (false)

class Checker {
 public:
  Checker(Core& core, const Record& record) : core_(core), r_(record) {}

  bool Run() {
    Parameters();
    if (!ok_) return false;                                      // ranges of illegal parameters mean nothing
    if (r_.op == Op::DataCache && r_.cache.entire) return true;  // wherever the tensor lies
    for (int i = 0; i < r_.operands; ++i) Address(i);
    return ok_;
  }

 private:
  void Bad(FindingKind kind, const std::string& message) {
    core_.Report(kind, std::string(SlotName(SlotOf(r_))) + ": " + message, r_.pipe, r_.at);
    ok_ = false;
  }
  void Range(const char* name, uint64_t value, uint64_t low, uint64_t high) {
    if (value < low || value > high)
      Bad(FindingKind::IllegalParameter,
          std::string(name) + " is " + Str(value) + ", allowed are " + Str(low) + ".." + Str(high));
  }
  void In(const Operand& o, const char* role, std::initializer_list<Mem> allowed) {
    std::string names;
    for (Mem m : allowed) {
      if (m == o.mem) return;
      names += (names.empty() ? "" : " or ") + std::string(Name(m));
    }
    Bad(FindingKind::IllegalMemory,
        std::string(role) + " lies in " + Name(o.mem) + ", it must lie in " + names);
  }

  void Address(int index) {
    const Operand& o = r_.operand[index];
    const Extent e = ExtentOf(r_, o);
    if (o.mem == Mem::GM) return Gm(o, e);
    const uint64_t capacity = core_.Capacity(o.mem);
    const bool scalar = r_.op == Op::ScalarGet || r_.op == Op::ScalarSet;
    const uint32_t align = scalar                                   ? r_.scalar.size
                           : r_.op == Op::Vector                    ? VectorAlignment(r_, index)
                           : r_.op == Op::Mmad && o.mem == Mem::L0C ? 1024
                                                                    : Alignment(o.mem);
    if (o.base % align != 0) {
      Access(FindingKind::Misaligned,
             std::string(Name(o.mem)) + " address " + Str(o.base) + " is not a multiple of " + Str(align),
             o.mem, e, 0, capacity);
    }
    if (core_.Overfull(o.mem, e.begin)) {
      ok_ = false;
      return;
    }
    const uint64_t low = o.hi != 0 ? o.lo : 0, high = o.hi != 0 && o.hi < capacity ? o.hi : capacity;
    if (e.begin < low || e.end > high) {
      Access(FindingKind::OutOfBounds,
             std::string(o.write ? "writes " : "reads ") + Name(o.mem) + " bytes " + Str(e.begin) + ".." +
                 Str(e.end) + ", the buffer is " + Str(low) + ".." + Str(high),
             o.mem, e, low, high);
    }
  }

  // A buffer's own address counts as aligned, as a device allocation is; host memory may not be.
  void Gm(const Operand& o, const Extent& e) {
    const uint64_t align = r_.op == Op::Fixpipe && !r_.fix.to_nd ? 32 : 1;
    // What lies behind the end of an argument may be another one; that does not make it right.
    const GmBuffer *nearest = nullptr, *home = nullptr;
    const auto within = [&](const GmBuffer& b) { return o.lo - b.base < b.bytes; };
    for (const GmBuffer& b : core_.machine().buffers)
      if (within(b)) home = &b;
    for (const GmBuffer& b : core_.machine().buffers) {
      if (home != nullptr && !within(b)) continue;  // several arguments may be views of one
      if (e.begin >= b.base && e.end <= b.base + b.bytes) {
        const uint64_t offset = o.base - b.base;
        if (offset % align != 0)
          Access(FindingKind::Misaligned,
                 "NZ output to byte " + Str(offset) + " of '" + b.name + "', not a multiple of 32", Mem::GM,
                 {offset, offset + o.unit}, 0, b.bytes);
        return;
      }
      if (e.begin >= b.base && (nearest == nullptr || b.base > nearest->base)) nearest = &b;
    }
    if (home != nullptr && nearest == nullptr)
      return Access(FindingKind::OutOfBounds,
                    "GM access begins " + Str(home->base - e.begin) + " bytes before '" + home->name + "'",
                    Mem::GM, {0, 0}, 0, home->bytes);
    if (nearest == nullptr)
      return Access(FindingKind::OutOfBounds, "GM address belongs to no argument of the launch", Mem::GM, e,
                    0, 0);
    Access(FindingKind::OutOfBounds,
           "GM bytes " + Str(e.begin - nearest->base) + ".." + Str(e.end - nearest->base) +
               " counted from '" + nearest->name + "', which has " + Str(nearest->bytes),
           Mem::GM, {e.begin - nearest->base, e.end - nearest->base}, 0, nearest->bytes);
  }

  void Access(FindingKind kind, const std::string& message, Mem mem, Extent e, uint64_t low, uint64_t high) {
    core_.ReportAccess(kind, std::string(SlotName(SlotOf(r_))) + ": " + message, r_, mem, e.begin, e.end, low,
                       high);
    ok_ = false;
  }

  void Parameters() {
    switch (r_.op) {
      case Op::Copy:
        return Copy();
      case Op::CopyPad:
        Range("blockCount", r_.pad.count, 1, 4095);
        TW_REQUIRE(r_.operand[0].mem == Mem::GM || r_.operand[1].mem == Mem::GM, "one side must be GM");
        return;
      case Op::Nd2Nz:
        return Nd2Nz();
      case Op::Nz2Nd:
        return Nz2Nd();
      case Op::Fill:
        return Fill();
      case Op::Load2d:
      case Op::LoadTranspose:
        return Load2d();
      case Op::Load3d:
        return Load3d();
      case Op::Mmad:
        return Mmad();
      case Op::Fixpipe:
        return Fixpipe();
      case Op::Vector:
        ok_ = CheckVector(core_, r_) && ok_;
        return;
      case Op::ScalarGet:
      case Op::ScalarSet:
        return In(r_.operand[0], "a scalar's element", {Mem::GM, Mem::UB});
      default:
        return;
    }
  }

  void Copy() {
    const Operand &dst = r_.operand[0], &src = r_.operand[1];
    Range("blockCount", r_.copy.count, 1, 4095);
    if (r_.copy.requested != r_.copy.bytes)
      Bad(FindingKind::IllegalParameter,
          Str(r_.copy.requested) + " bytes asked for, but only whole 32 B blocks move: " +
              Str(r_.copy.requested - r_.copy.bytes) + " would silently not be copied");
    const bool route =
        (src.mem == Mem::GM && (dst.mem == Mem::L1 || dst.mem == Mem::UB)) ||
        (src.mem == Mem::UB && (dst.mem == Mem::GM || dst.mem == Mem::UB || dst.mem == Mem::L1)) ||
        (src.mem == Mem::L1 && (dst.mem == Mem::GM || dst.mem == Mem::BT || dst.mem == Mem::FB));
    if (!route)
      Bad(FindingKind::IllegalMemory,
          std::string("there is no path from ") + Name(src.mem) + " to " + Name(dst.mem));
    TW_REQUIRE(
        dst.type == src.type || (dst.mem == Mem::BT && dst.type == DType::F32 && src.type == DType::F16),
        std::string("types differ: ") + Name(src.type) + " to " + Name(dst.type));
    if (dst.mem == Mem::BT)
      TW_REQUIRE(dst.type == DType::F32 || dst.type == DType::S32, "the bias table holds float or int32");
  }

  void Nd2Nz() {
    const Nd2NzArgs& p = r_.nd2nz;
    In(r_.operand[0], "the destination", {Mem::L1});
    In(r_.operand[1], "the source", {Mem::GM});
    Range("ndNum", p.nd, 1, 4095);
    Range("nValue", p.n, 1, 16384);
    Range("srcDValue", p.src_d, 1, 65535);
    Range("dstNzC0Stride", p.dst_c0, 1, 16384);
    Range("dstNzNStride", p.dst_n, 1, 16384);
    Range("dstNzMatrixStride", p.dst_nd, 0, 16384);
    TW_REQUIRE(ColumnsOf(r_.operand[1].type) != 0,
               std::string("type ") + Name(r_.operand[1].type) + " is not supported");
  }

  void Nz2Nd() {
    const Nz2NdArgs& p = r_.nz2nd;
    In(r_.operand[0], "the destination", {Mem::GM});
    In(r_.operand[1], "the source", {Mem::UB});
    Range("ndNum", p.nd, 0, 4095);
    Range("nValue", p.n, 1, 8192);
    Range("dValue", p.d, 1, 8192);
    Range("srcNdMatrixStride", p.src_nd, 1, 512);
    Range("srcNStride", p.src_n, 0, 4096);
    Range("dstDStride", p.dst_d, 1, 65535);
    Range("dstNdMatrixStride", p.dst_nd, 1, 65535);
    TW_REQUIRE(p.d % 16 == 0, "dValue " + Str(p.d) + " is not a multiple of 16");
    const uint32_t size = SizeOf(r_.operand[1].type);
    TW_REQUIRE(size == 2 || size == 4, std::string("type ") + Name(r_.operand[1].type) + " is not supported");
  }

  void Fill() {
    const Operand& dst = r_.operand[0];
    In(dst, "the destination", {Mem::L1, Mem::L0A, Mem::L0B});
    const uint32_t block = dst.mem == Mem::L1 ? 32 : 512;
    Range("repeatTimes", r_.fill.count, 0, 32767);
    Range("blockNum", r_.fill.bytes / block, 0, 32767);
    Range("dstGap", (static_cast<uint64_t>(r_.fill.step) - r_.fill.bytes) / block, 0, 32767);
    const uint32_t size = SizeOf(dst.type);
    TW_REQUIRE(size == 2 || size == 4, std::string("type ") + Name(dst.type) + " is not supported");
  }

  void Load2d() {
    const Operand &dst = r_.operand[0], &src = r_.operand[1];
    const uint32_t size = SizeOf(src.type);
    if (r_.op == Op::LoadTranspose) {
      In(dst, "the destination", {Mem::L0A, Mem::L0B});
      In(src, "the source", {Mem::L1});
      TW_REQUIRE(ColumnsOf(src.type) != 0, std::string("type ") + Name(src.type) + " is not supported");
      TW_REQUIRE(src.type != DType::S4 || dst.mem == Mem::L0B, "4-bit types go to l0b only");
      return;
    }
    In(dst, "the destination", {Mem::L0A, Mem::L0B, Mem::L1});
    In(src, "the source", {Mem::L1, Mem::GM});
    TW_REQUIRE(src.type != DType::S4 || (src.mem == Mem::L1 && dst.mem != Mem::L1),
               "4-bit types go from l1 to l0a or l0b only");
    if (r_.load2d.transpose) {
      TW_REQUIRE(src.mem == Mem::L1, "ifTranspose needs the source in l1");
      TW_REQUIRE(size == 2, std::string("ifTranspose works on 16-bit types, not on ") + Name(src.type));
    }
  }

  void Load3d() {
    const Load3dParams& p = r_.load3d;
    const Operand &dst = r_.operand[0], &src = r_.operand[1];
    In(dst, "the destination", {Mem::L0A, Mem::L0B});
    In(src, "the source", {Mem::L1});
    const uint32_t c0 = ColumnsOf(src.type);
    TW_REQUIRE(c0 != 0, std::string("type ") + Name(src.type) + " is not supported");
    if (!ok_) return;
    if (c0 >= 32)
      TW_REQUIRE(dst.mem == Mem::L0A && !p.transpose, "types of 4 and 8 bits go to l0a untransposed only");
    Range("l1H", p.h, 1, 32767);
    Range("l1W", p.w, 1, 32767);
    Range("strideW", p.stride_w, 1, 63);
    Range("strideH", p.stride_h, 1, 63);
    Range("repeatMode", p.repeat_mode, 0, 1);
    TW_REQUIRE(p.boundary == 0 || p.boundary >= 1024,
               "the boundary is " + Str(p.boundary) + ", allowed are 0 and 1024 or more");
    TW_REQUIRE(p.boundary == 0 || p.map < p.boundary, "the source starts beyond the boundary");
    TW_REQUIRE(p.k_start % c0 == 0, "kStartPt " + Str(p.k_start) + " is not a multiple of " + Str(c0));
    const uint32_t rest = p.c % c0;
    TW_REQUIRE(rest == 0 || (rest == 4 && c0 < 64) || (rest == 8 && c0 >= 16) || (rest == 16 && c0 >= 32) ||
                   (rest == 32 && c0 == 64),
               "channelSize " + Str(p.c) + " is not allowed for " + Name(src.type));
    TW_REQUIRE(uint32_t{p.k_start} + p.k_ext <= AlignUp(p.c, c0) * p.filter_w * p.filter_h,
               "kStartPt + kExtension reach beyond the channels");
  }

  void Mmad() {
    const MmadArgs& p = r_.mmad;
    const Operand &c = r_.operand[0], &a = r_.operand[1], &b = r_.operand[2];
    In(c, "C", {Mem::L0C});
    In(a, "A", {Mem::L0A});
    In(b, "B", {Mem::L0B});
    Range("m", p.m, 1, 4095);
    Range("n", p.n, 1, 4095);
    Range("k", p.k, 1, 4095);
    TW_REQUIRE(p.unit_flag == 0 || p.unit_flag == 2 || p.unit_flag == 3,
               "unitFlag is " + Str(p.unit_flag) + ", allowed are 0, 2, 3");
    const bool floats =
        (a.type == DType::F16 || a.type == DType::BF16 || a.type == DType::F32) && c.type == DType::F32;
    const bool ints = (a.type == DType::S8 || a.type == DType::S4) && c.type == DType::S32;
    TW_REQUIRE(a.type == b.type && (floats || ints), std::string(Name(a.type)) + " x " + Name(b.type) +
                                                         " -> " + Name(c.type) + " does not exist on 2201");
    if (r_.operands > 3) {
      In(r_.operand[3], "the bias", {Mem::BT, Mem::L0C});
      TW_REQUIRE(r_.operand[3].type == c.type,
                 std::string("the bias is ") + Name(r_.operand[3].type) + ", it must be " + Name(c.type));
    }
  }

  void Fixpipe() {
    const FixpipeArgs& p = r_.fix;
    const Operand &dst = r_.operand[0], &src = r_.operand[1];
    In(dst, "the destination", {Mem::GM, Mem::L1});
    In(src, "the source", {Mem::L0C});
    Range("nSize", p.n, 1, 4095);
    Range("mSize", p.m, 1, p.to_nd ? 8192 : 65535);
    Range("srcNdStride", p.src_nd, 0, 512);
    TW_REQUIRE(p.unit_flag == 0 || p.unit_flag == 2 || p.unit_flag == 3,
               "unitFlag is " + Str(p.unit_flag) + ", allowed are 0, 2, 3");
    TW_REQUIRE(p.dst_stride != 0, "dstStride must not be 0");
    if (p.to_nd) {
      TW_REQUIRE(p.m == 1 || p.dst_stride >= p.n, "dstStride " + Str(p.dst_stride) + " is less than nSize " +
                                                      Str(p.n) + ": rows of the destination overlap");
      TW_REQUIRE(dst.mem == Mem::GM, "NZ2ND writes to GM only");
    } else {
      const uint32_t step = p.channel_split ? 8 : 16;
      TW_REQUIRE(p.n % step == 0,
                 "nSize " + Str(p.n) + " is not a multiple of " + Str(step) + ", as NZ output needs");
    }
    if (p.channel_split)
      TW_REQUIRE(!p.to_nd && src.type == DType::F32 && dst.type == DType::F32,
                 "isChannelSplit is for float NZ output");
    const auto is = [&](DType from, DType to) { return src.type == from && dst.type == to; };
    bool good = false, vector = false;
    switch (p.quant) {
      case Quant::None:
        good = is(DType::F32, DType::F32) || is(DType::S32, DType::S32);
        break;
      case Quant::F32ToF16:
        good = is(DType::F32, DType::F16);
        break;
      case Quant::F32ToBF16:
        good = is(DType::F32, DType::BF16);
        break;
      case Quant::S32ToF16Vector:
        vector = true;
        [[fallthrough]];
      case Quant::S32ToF16:
        good = is(DType::S32, DType::F16);
        break;
      case Quant::F32ToB8Vector:
        vector = true;
        [[fallthrough]];
      case Quant::F32ToB8:
        good = is(DType::F32, DType::S8) || is(DType::F32, DType::U8);
        break;
      case Quant::S32ToB8Vector:
        vector = true;
        [[fallthrough]];
      case Quant::S32ToB8:
        good = is(DType::S32, DType::S8) || is(DType::S32, DType::U8);
        break;
    }
    TW_REQUIRE(good,
               std::string(Name(src.type)) + " -> " + Name(dst.type) + " does not go with this quantPre");
    TW_REQUIRE(vector == (r_.operands > 2),
               vector ? "this quantPre needs a vector of scales" : "this quantPre takes no vector of scales");
  }

  Core& core_;
  const Record& r_;
  bool ok_ = true;
};

}  // namespace

#undef TW_REQUIRE

bool Check(Core& core, const Record& record) { return Checker(core, record).Run(); }

}  // namespace tilewright::twin
