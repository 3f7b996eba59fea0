// Fractals on their way into L0: moved, transposed, or cut out of a feature map.
#include <cstring>

#include "machine.h"

namespace tilewright::twin {

namespace {

// dst[c][r] = src[r][c], elements of `size` bytes.
void Transpose(uint8_t* dst, int64_t dst_row, const uint8_t* src, int64_t src_row, int rows, int cols,
               uint32_t size) {
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; ++c)
      std::memcpy(dst + c * dst_row + r * size, src + r * src_row + c * size, size);
}

// 64 x 64 elements of half a byte, of rows of 32 B: rows [first, first + 16) of the transposed square.
void TransposeNibbles(uint8_t* dst, const uint8_t* src, int first) {
  const auto nibble = [&](int row, int column) {
    return src[row * 32 + column / 2] >> (column % 2 * 4) & 15;
  };
  for (int r = 0; r < 16; ++r)
    for (int c = 0; c < 32; ++c)
      dst[r * 32 + c] = static_cast<uint8_t>(nibble(2 * c, first + r) | nibble(2 * c + 1, first + r) << 4);
}

void Transpose16x16(uint16_t* dst, const uint16_t* src) {
  for (int c = 0; c < 16; ++c)
    for (int r = 0; r < 16; ++r) dst[c * 16 + r] = src[r * 16 + c];
}

}  // namespace

void ExecuteLoad2d(Core& core, const Record& r) {
  const Load2dParams& p = r.load2d;
  uint8_t* dst = core.At(r.operand[0]);
  const uint8_t* src = core.At(r.operand[1]);
  const int64_t src_step = (p.decrease ? -512 : 512) * static_cast<int64_t>(p.src_stride);
  const int64_t dst_step = (int64_t{p.dst_gap} + 1) * 512;
  for (uint32_t i = 0; i < p.repeat; ++i, src += src_step, dst += dst_step) {
    if (p.transpose)
      Transpose16x16(reinterpret_cast<uint16_t*>(dst), reinterpret_cast<const uint16_t*>(src));
    else
      std::memcpy(dst, src, 512);
  }
}

void ExecuteLoadTranspose(Core& core, const Record& r) {
  const Load2dParams& p = r.load2d;
  const uint32_t size = SizeOf(r.operand[1].type);
  const int64_t square = size == 0 ? 2048 : size == 2 ? 512 : 1024;
  const int64_t src_step = (p.decrease ? -square : square) * static_cast<int64_t>(p.src_stride);
  const int64_t dst_step = (int64_t{p.dst_gap} + 1) * 512, frac_step = (int64_t{p.frac_gap} + 1) * 512;
  uint8_t* dst = core.At(r.operand[0]);
  const uint8_t* src = core.At(r.operand[1]);
  for (uint32_t i = 0; i < p.repeat; ++i, src += src_step, dst += dst_step) {
    if (size == 2) {
      Transpose16x16(reinterpret_cast<uint16_t*>(dst), reinterpret_cast<const uint16_t*>(src));
    } else if (size == 0) {  // S4: four 16 x 64 fractals, one above the other
      for (int f = 0; f < 4; ++f) TransposeNibbles(dst + f * frac_step, src, f * 16);
    } else if (size == 1) {  // two 16 x 32 fractals, one above the other
      for (int f = 0; f < 2; ++f) Transpose(dst + f * frac_step, 32, src + f * 16, 32, 32, 16, 1);
    } else {  // two 16 x 8 fractals, side by side
      for (int f = 0; f < 2; ++f)
        for (int g = 0; g < 2; ++g)
          Transpose(dst + g * frac_step + f * 8 * 32, 32, src + f * 512 + g * 8 * 32, 32, 8, 8, 4);
    }
  }
}

void ExecuteLoad3d(Core& core, const Record& r) {
  const Load3dParams& p = r.load3d;
  const Operand &to = r.operand[0], &from = r.operand[1];
  const uint32_t size = from.type == DType::S4 ? 1 : SizeOf(from.type), c0 = ColumnsOf(from.type);
  uint8_t* dst = core.At(to);
  const uint32_t rows = static_cast<uint32_t>(p.h) * p.w;
  const int out_w = (p.w + p.pad[0] + p.pad[1] - p.dilation_w * (p.filter_w - 1) - 1) / p.stride_w + 1;
  const bool transposed = to.mem == Mem::L0B || p.transpose;
  // All repeats together fill one matrix, the next below or to the right of the one before.
  const bool columns = p.repeat_mode != 0;
  const uint32_t m_one = AlignUp(p.m_ext, 16), k_one = CeilDiv(p.k_ext, c0);
  const uint32_t m_blocks = m_one * (columns ? 1 : p.repeat_time),
                 k_blocks = k_one * (columns ? p.repeat_time : 1);
  const uint32_t n_blocks = CeilDiv(k_blocks * c0, 16);
  uint8_t padding[32], row[32];
  for (uint32_t i = 0; i < 32; i += size) std::memcpy(padding + i, &p.pad_value, size);
  for (uint32_t m = 0; m < m_blocks; ++m) {
    const int out = static_cast<int>(p.m_start + m / m_one * p.repeat_stride * 16 + m % m_one);
    const int oy = out / out_w, ox = out % out_w;
    for (uint32_t kb = 0; kb < k_blocks; ++kb) {
      const uint32_t column = p.k_start / c0 + kb / k_one * p.repeat_stride + kb % k_one,
                     taps = static_cast<uint32_t>(p.filter_w) * p.filter_h;
      const int c1 = static_cast<int>(column / taps), tap = static_cast<int>(column % taps);
      const int y = oy * p.stride_h - p.pad[2] + tap / p.filter_w * p.dilation_h;
      const int x = ox * p.stride_w - p.pad[0] + tap % p.filter_w * p.dilation_w;
      const bool inside = m % m_one < p.m_ext && y >= 0 && y < p.h && x >= 0 && x < p.w;
      if (inside) {
        uint64_t at = p.map + (static_cast<uint64_t>(c1) * rows + static_cast<uint64_t>(y) * p.w + x) * 32;
        if (p.boundary != 0) at %= p.boundary;
        std::memcpy(row, core.At(from.mem, at), 32);
      } else {
        std::memcpy(row, padding, 32);
      }
      if (!transposed) {
        std::memcpy(dst + (uint64_t{m} / 16 * k_blocks + kb) * 512 + m % 16 * 32, row, 32);
        continue;
      }
      for (uint32_t c = 0; c < c0; ++c) {
        const uint32_t n = kb * c0 + c;
        if (n >= n_blocks * 16) break;
        const uint64_t fractal = to.mem == Mem::L0B ? uint64_t{m} / c0 * n_blocks + n / 16
                                                    : uint64_t{n} / 16 * (m_blocks / c0) + m / c0;
        std::memcpy(dst + fractal * 512 + n % 16 * 32 + m % c0 * size, row + c * size, size);
      }
    }
  }
}

}  // namespace tilewright::twin
