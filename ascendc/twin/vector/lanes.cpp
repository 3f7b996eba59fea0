#include "vector/lanes.h"

namespace tilewright::twin {

bool Reaches(Core& core, const Record& r, uint64_t offset, uint32_t bytes, uint32_t align) {
  const Operand& src = r.operand[1];
  const uint64_t begin = r.vec.scalar + offset;
  const bool aligned = begin % align == 0, inside = begin + bytes <= src.hi;
  if (aligned && inside) return true;
  const std::string where = std::string(Name(r.vec.op)) + ": offset " + std::to_string(offset) +
                            " leads to ub address " + std::to_string(begin);
  core.ReportAccess(aligned ? FindingKind::OutOfBounds : FindingKind::Misaligned,
                    aligned ? where + ", beyond the end of the source's buffer at " + std::to_string(src.hi)
                            : where + ", not a multiple of " + std::to_string(align),
                    r, src.mem, begin, begin + bytes, r.vec.scalar, src.hi);
  return false;
}

void DescribeRest(Record& r) {
  Operand& src = r.operand[1];
  r.vec.scalar = src.base;
  src.unit = static_cast<uint32_t>(src.hi > src.base ? src.hi - src.base : 0);
}

void VecChecker::Type(const Operand& o, std::initializer_list<DType> allowed) {
  std::string names;
  for (const DType t : allowed) {
    if (t == o.type) return;
    names += (names.empty() ? "" : ", ") + std::string(Name(t));
  }
  Bad(FindingKind::IllegalParameter,
      std::string("type ") + Name(o.type) + " is not supported, allowed are " + names);
}

void VecChecker::Apart(int a, int b, const char* what) {
  const Extent x = ExtentOf(r_.operand[a]), y = ExtentOf(r_.operand[b]);
  if (r_.operand[a].mem == r_.operand[b].mem && x.begin < y.end && y.begin < x.end)
    Bad(FindingKind::IllegalParameter, std::string(what) + " overlap, which this instruction does not allow");
}

}  // namespace tilewright::twin
