// Fixpipe: L0C to GM or L1, with conversion, scaling, relu and layout change.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "api/types.h"
#include "atomic.h"
#include "machine.h"

namespace tilewright::twin {

namespace {

// The 64-bit quantisation parameter: bits 0..31 the factor, of which the hardware keeps sign, 8 exponent and
// 10 mantissa bits; 32..35 and 36 a right shift for int32 input; 37..45 a signed offset and 46 the signedness
// of 8-bit output.
struct QuantParam {
  float factor;
  int shift, offset;
  bool is_signed;
};

QuantParam Decode(uint64_t bits) {
  QuantParam q;
  q.factor = BitCast<float>(static_cast<uint32_t>(bits) & ~0x1fffu);
  q.shift = (bits >> 36 & 1) != 0 ? static_cast<int>(bits >> 32 & 15) + 1 : 0;
  const int raw = static_cast<int>(bits >> 37 & 0x1ff);
  q.offset = raw >= 256 ? raw - 512 : raw;
  q.is_signed = (bits >> 46 & 1) != 0;
  return q;
}

float FromInt(int32_t value, const QuantParam& q) {
  if (q.shift == 0) return static_cast<float>(value);
  return static_cast<float>(std::clamp(value >> q.shift, -32768, 32767));
}

uint8_t To8(float value, const QuantParam& q) {
  const float rounded = std::nearbyint(value) + static_cast<float>(q.offset);
  if (q.is_signed) return static_cast<uint8_t>(static_cast<int8_t>(std::clamp(rounded, -128.f, 127.f)));
  return static_cast<uint8_t>(std::clamp(rounded, 0.f, 255.f));
}

class Writer {
 public:
  Writer(Core& core, const Record& r)
      : p_(r.fix),
        size_(SizeOf(r.operand[0].type)),
        scalar_(Decode(r.fix.scalar)),
        atomic_(r.atomic),
        type_(r.operand[0].type),
        is_float_(r.operand[1].type == DType::F32),
        vector_(r.operands > 2 ? reinterpret_cast<const uint64_t*>(core.At(r.operand[2])) : nullptr) {}

  // `count` neighbouring elements of column `n` onwards.
  void Put(uint8_t* to, const uint8_t* from, uint32_t n, uint32_t count) const {
    if (atomic_ == Atomic::None) return Write(to, from, n, count);
    uint8_t values[16 * 4];
    Write(values, from, n, count);
    Combine(atomic_, type_, to, values, count * size_);
  }
  bool Plain() const { return p_.quant == Quant::None && !p_.relu && atomic_ == Atomic::None; }

 private:
  void Write(uint8_t* to, const uint8_t* from, uint32_t n, uint32_t count) const {
    for (uint32_t i = 0; i < count; ++i, to += size_, from += 4) {
      const QuantParam q = vector_ != nullptr ? Decode(vector_[n + i]) : scalar_;
      One(to, from, q);
    }
  }
  void One(uint8_t* to, const uint8_t* from, const QuantParam& q) const {
    float f;
    int32_t v;
    std::memcpy(&f, from, 4);
    std::memcpy(&v, from, 4);
    const bool relu = p_.relu;
    const auto rectify = [relu](float x) { return relu && !(x > 0.f) && !std::isnan(x) ? 0.f : x; };
    uint16_t h = 0;
    switch (p_.quant) {
      case Quant::None:
        f = rectify(f);
        v = relu ? std::max(v, 0) : v;
        std::memcpy(to, is_float_ ? static_cast<const void*>(&f) : &v, 4);
        return;
      case Quant::F32ToF16:
        h = FloatToHalf(rectify(f));
        break;
      case Quant::F32ToBF16:
        h = FloatToBf16(rectify(f));
        break;
      case Quant::S32ToF16:
      case Quant::S32ToF16Vector:
        h = FloatToHalf(rectify(FromInt(v, q) * q.factor));
        break;
      case Quant::F32ToB8:
      case Quant::F32ToB8Vector:
        *to = To8(rectify(f * q.factor), q);
        return;
      case Quant::S32ToB8:
      case Quant::S32ToB8Vector:
        *to = To8(rectify(FromInt(v, q) * q.factor), q);
        return;
    }
    std::memcpy(to, &h, 2);
  }

  const FixpipeArgs& p_;
  uint32_t size_;
  QuantParam scalar_;
  Atomic atomic_;
  DType type_;
  bool is_float_;
  const uint64_t* vector_;
};

}  // namespace

void ExecuteFixpipe(Core& core, const Record& r) {
  const FixpipeArgs& p = r.fix;
  const uint32_t size = SizeOf(r.operand[0].type);
  const Writer writer(core, r);
  uint8_t* dst = core.At(r.operand[0]);
  const uint8_t* src = core.At(r.operand[1]);
  const uint64_t block = uint64_t{p.src_stride} * 64;  // bytes from one 16-column block of L0C to the next
  if (p.to_nd) {
    for (uint32_t nd = 0; nd < p.nd; ++nd) {
      const uint8_t* matrix = src + uint64_t{nd} * p.src_nd * 1024;
      for (uint32_t m = 0; m < p.m; ++m) {
        uint8_t* row = dst + (uint64_t{nd} * p.dst_nd + uint64_t{m} * p.dst_stride) * size;
        for (uint32_t n = 0; n < p.n; n += 16) {
          const uint8_t* from = matrix + n / 16 * block + m * 64;
          const uint32_t count = std::min(16u, p.n - n);
          if (writer.Plain())
            std::memcpy(row + n * 4, from, count * 4);
          else
            writer.Put(row + n * size, from, n, count);
        }
      }
    }
    return;
  }
  const uint32_t columns = size == 1 ? 32 : p.channel_split ? 8 : 16;
  for (uint32_t n = 0; n < p.n; n += 8) {
    const uint64_t out = n / columns * uint64_t{p.dst_stride} * 32;
    for (uint32_t m = 0; m < p.m; ++m)
      writer.Put(dst + out + (uint64_t{m} * columns + n % columns) * size,
                 src + n / 16 * block + m * 64 + n % 16 * 4, n, std::min(8u, p.n - n));
  }
}

}  // namespace tilewright::twin
