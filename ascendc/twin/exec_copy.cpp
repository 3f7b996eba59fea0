// Copies between GM and the on-chip memories.
#include <algorithm>
#include <cstring>

#include "api/types.h"
#include "atomic.h"
#include "machine.h"

namespace tilewright::twin {

void ExecuteCopy(Core& core, const Record& r) {
  const CopyParams& p = r.copy;
  uint8_t* dst = core.At(r.operand[0]);
  const uint8_t* src = core.At(r.operand[1]);
  const bool widen = r.operand[0].type == DType::F32 && r.operand[1].type == DType::F16;
  for (uint32_t i = 0; i < p.count; ++i) {
    uint8_t* to = dst + i * p.dst_step;
    const uint8_t* from = src + i * p.src_step;
    if (r.atomic != Atomic::None) {
      Combine(r.atomic, r.operand[0].type, to, from, p.bytes);
      continue;
    }
    if (!widen) {
      std::memmove(to, from, p.bytes);
      continue;
    }
    for (uint32_t e = 0; e < p.bytes / 2; ++e) {
      uint16_t h;
      std::memcpy(&h, from + 2 * e, 2);
      const float f = HalfToFloat(h);
      std::memcpy(to + 4 * e, &f, 4);
    }
  }
}

void ExecuteCopyPad(Core& core, const Record& r) {
  const CopyPadParams& p = r.pad;
  const Operand& dst = r.operand[0];
  const bool to_gm = dst.mem == Mem::GM;
  const uint32_t size = SizeOf(dst.type);
  const uint32_t row = AlignUp(p.bytes + (p.left + p.right) * size, 32);
  uint8_t* to = core.At(dst);
  const uint8_t* from = core.At(r.operand[1]);
  for (uint32_t i = 0; i < p.count; ++i, to += p.dst_step, from += p.src_step) {
    if (to_gm) {
      if (r.atomic != Atomic::None)
        Combine(r.atomic, dst.type, to, from, p.bytes);
      else
        std::memcpy(to, from, p.bytes);
      continue;
    }
    // Without isPad the filler up to 32 B is documented as the row's first element.
    uint8_t filler[8];
    std::memcpy(filler, p.pad ? reinterpret_cast<const uint8_t*>(&p.value) : from, size);
    for (uint32_t b = 0; b < row; b += size) std::memcpy(to + b, filler, size);
    std::memcpy(to + p.left * size, from, p.bytes);
  }
}

void ExecuteNd2Nz(Core& core, const Record& r) {
  const Nd2NzArgs& p = r.nd2nz;
  const uint64_t size = r.operand[1].type == DType::S4 ? 1 : SizeOf(r.operand[1].type);
  uint8_t* dst = core.At(r.operand[0]);
  const uint8_t* src = core.At(r.operand[1]);
  const uint64_t row = p.d * size, whole = row / 32, rest = row % 32;
  for (uint32_t nd = 0; nd < p.nd; ++nd) {
    for (uint32_t n = 0; n < p.n; ++n) {
      const uint8_t* from = src + (uint64_t{nd} * p.src_nd + uint64_t{n} * p.src_d) * size;
      uint8_t* to = dst + uint64_t{nd} * p.dst_nd * size + uint64_t{n} * p.dst_n * 32;
      const uint64_t step = uint64_t{p.dst_c0} * 32;
      for (uint64_t b = 0; b < whole; ++b, from += 32, to += step) std::memcpy(to, from, 32);
      if (rest != 0) {
        std::memcpy(to, from, rest);
        std::memset(to + rest, 0, 32 - rest);
      }
    }
  }
}

void ExecuteNz2Nd(Core& core, const Record& r) {
  const Nz2NdArgs& p = r.nz2nd;
  const uint64_t size = SizeOf(r.operand[1].type);
  uint8_t* dst = core.At(r.operand[0]);
  const uint8_t* src = core.At(r.operand[1]);
  for (uint32_t nd = 0; nd < p.nd; ++nd)
    for (uint32_t n = 0; n < p.n; ++n)
      for (uint32_t column = 0; column < p.d; column += 16) {
        uint8_t* to = dst + (uint64_t{nd} * p.dst_nd + uint64_t{n} * p.dst_d + column) * size;
        const uint8_t* from =
            src + (uint64_t{nd} * p.src_nd * 256 + uint64_t{column} * p.src_n + uint64_t{n} * 16) * size;
        if (r.atomic != Atomic::None)
          Combine(r.atomic, r.operand[0].type, to, from, 16 * size);
        else
          std::memcpy(to, from, 16 * size);
      }
}

void ExecuteFill(Core& core, const Record& r) {
  const FillParams& p = r.fill;
  const uint32_t size = SizeOf(r.operand[0].type);
  uint8_t* dst = core.At(r.operand[0]);
  for (uint32_t i = 0; i < p.count; ++i, dst += p.step)
    for (uint32_t b = 0; b < p.bytes; b += size) std::memcpy(dst + b, &p.value, size);
}

}  // namespace tilewright::twin
