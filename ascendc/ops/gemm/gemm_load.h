// How gemm moves matrices: GM -> fractals in L1 -> L0A and L0B. Offsets and sizes count elements.
#pragma once

#include "../_kv/slots.h"
#include "kernel_operator.h"

namespace tw_gemm {

using AscendC::GlobalTensor;
using AscendC::LocalTensor;
using tw_kv::CeilDiv;
using tw_kv::Min;
using tw_kv::RoundUp;

constexpr int32_t kFractal = 16;  // rows of a fractal; kFractalBytes / 16 bytes are its row
constexpr int32_t kFractalBytes = 512;
constexpr int32_t kMaxStride = 65535;  // of a source row, in one Nd2Nz

constexpr int32_t kSmallTile = 10;  // fractals of C below which consecutive Mmads need a barrier

// Columns of a fractal.
template <typename In>
__aicore__ inline constexpr int32_t C0() {
  return 32 / static_cast<int32_t>(sizeof(In));
}

// Rows that `k` rows of a [K, N] matrix take in L1: 8-bit transposes work on squares of 32.
template <typename In>
__aicore__ inline int32_t ChunkRows(int32_t k) {
  return RoundUp(k, sizeof(In) == 1 ? 32 : kFractal);
}

// `rows` x `columns` of a row-major matrix into fractals; `pitch` rows of L1 lie between two fractal columns.
template <typename In>
__aicore__ inline void ToFractals(const LocalTensor<In>& dst, const GlobalTensor<In>& src, int32_t rows,
                                  int32_t columns, int32_t ld, int32_t pitch) {
  AscendC::Nd2NzParams p;
  p.ndNum = 1;
  p.nValue = static_cast<uint16_t>(rows);
  p.dValue = static_cast<uint16_t>(columns);
  p.srcNdMatrixStride = 0;
  p.srcDValue = static_cast<uint16_t>(ld);
  p.dstNzC0Stride = static_cast<uint16_t>(pitch);
  p.dstNzNStride = 1;
  p.dstNzMatrixStride = 0;
  if (ld <= kMaxStride) {
    AscendC::DataCopy(dst, src, p);
    return;
  }
  p.nValue = 1;
  p.srcDValue = static_cast<uint16_t>(columns);
  for (int32_t row = 0; row < rows; ++row)
    AscendC::DataCopy(dst[row * C0<In>()], src[static_cast<uint64_t>(row) * ld], p);
}

// `rows` x `columns` of a matrix that lies in fractals already (NZ: for each 32 B of columns all `ld` rows,
// 32 B each, then the next): one burst a fractal column.
template <typename In>
__aicore__ inline void FromFractals(const LocalTensor<In>& dst, const GlobalTensor<In>& src, int32_t rows,
                                    int32_t columns, int32_t ld, int32_t pitch) {
  AscendC::DataCopyParams p;
  p.blockCount = 1;
  p.blockLen = static_cast<uint16_t>(rows);
  p.srcStride = 0;
  p.dstStride = 0;
  const int32_t blocks = CeilDiv(columns, C0<In>());
  if (ld - rows <= kMaxStride) {
    p.blockCount = static_cast<uint16_t>(blocks);
    p.srcStride = static_cast<uint16_t>(ld - rows);
    p.dstStride = static_cast<uint16_t>(pitch - rows);
    AscendC::DataCopy(dst, src, p);
    return;
  }
  for (int32_t i = 0; i < blocks; ++i)
    AscendC::DataCopy(dst[i * pitch * C0<In>()], src[static_cast<uint64_t>(i) * ld * C0<In>()], p);
}

// Columns k_offset.. of a chunk [m, *] in L1 -> L0A as [m, k].
template <typename In>
__aicore__ inline void LoadA(const LocalTensor<In>& dst, const LocalTensor<In>& src, int32_t k_offset,
                             int32_t m, int32_t k) {
  constexpr int32_t kElements = kFractal * C0<In>();
  const int32_t m_blocks = CeilDiv(m, kFractal), k_blocks = CeilDiv(k, C0<In>());
  AscendC::LoadData2DParams p;
  if (m == 1) {  // GEMV: contiguous, whole fractals of it
    p.repeatTimes = static_cast<uint8_t>(CeilDiv(k * static_cast<int32_t>(sizeof(In)), kFractalBytes));
    p.srcStride = 1;
    AscendC::LoadData(dst, src[k_offset], p);
    return;
  }
  const int32_t first = k_offset / C0<In>() * m_blocks;
  if (m_blocks <= k_blocks) {
    p.repeatTimes = static_cast<uint8_t>(k_blocks);
    p.srcStride = static_cast<uint16_t>(m_blocks);
    for (int32_t i = 0; i < m_blocks; ++i)
      AscendC::LoadData(dst[i * k_blocks * kElements], src[(first + i) * kElements], p);
    return;
  }
  p.repeatTimes = static_cast<uint8_t>(m_blocks);
  p.srcStride = 1;
  p.dstGap = static_cast<uint16_t>(k_blocks - 1);
  for (int32_t i = 0; i < k_blocks; ++i)
    AscendC::LoadData(dst[i * kElements], src[(first + i * m_blocks) * kElements], p);
}

// Columns k_offset.. of a chunk [n, *] (B as [N, K]) -> L0B as [k, n]: the fractals already lie as the cube
// wants.
template <typename In>
__aicore__ inline void LoadB(const LocalTensor<In>& dst, const LocalTensor<In>& src, int32_t k_offset,
                             int32_t n, int32_t k) {
  const int32_t n_blocks = CeilDiv(n, kFractal);
  AscendC::LoadData2DParams p;
  p.repeatTimes = static_cast<uint8_t>(CeilDiv(k, C0<In>()) * n_blocks);
  p.srcStride = 1;
  AscendC::LoadData(dst, src[k_offset / C0<In>() * n_blocks * kFractal * C0<In>()], p);
}

// 16-bit: a fractal is square and transposes by itself.
template <typename In>
__aicore__ inline void LoadTransposed16(const LocalTensor<In>& dst, const LocalTensor<In>& src,
                                        int32_t k_offset, int32_t chunk_k, int32_t n, int32_t k) {
  constexpr int32_t kElements = kFractal * kFractal;
  const int32_t n_blocks = CeilDiv(n, kFractal), k_blocks = CeilDiv(k, kFractal);
  const int32_t pitch = ChunkRows<In>(chunk_k) / kFractal, first = k_offset / kFractal;
  AscendC::LoadData2DParams p;
  p.ifTranspose = true;
  if (k_blocks <= n_blocks) {
    p.repeatTimes = static_cast<uint8_t>(n_blocks);
    p.srcStride = static_cast<uint16_t>(pitch);
    for (int32_t i = 0; i < k_blocks; ++i)
      AscendC::LoadData(dst[i * n_blocks * kElements], src[(first + i) * kElements], p);
    return;
  }
  p.repeatTimes = static_cast<uint8_t>(k_blocks);
  p.srcStride = 1;
  p.dstGap = static_cast<uint16_t>(n_blocks - 1);
  for (int32_t i = 0; i < n_blocks; ++i)
    AscendC::LoadData(dst[i * kElements], src[(first + i * pitch) * kElements], p);
}

// 8-bit: two fractals of L1 make a square of 32, which lands as two fractals of L0B.
template <typename In>
__aicore__ inline void LoadTransposed8(const LocalTensor<In>& dst, const LocalTensor<In>& src,
                                       int32_t k_offset, int32_t chunk_k, int32_t n, int32_t k) {
  constexpr int32_t kSquare = 32, kElements = kSquare * kSquare;
  const int32_t n_squares = CeilDiv(n, kSquare), k_squares = CeilDiv(k, kSquare);
  const int32_t pitch = ChunkRows<In>(chunk_k) / kSquare, first = k_offset / kSquare;
  AscendC::LoadData2dTransposeParams p;
  p.dstFracGap = 0;
  if (k_squares <= n_squares) {
    p.repeatTimes = static_cast<uint8_t>(n_squares);
    p.srcStride = static_cast<uint16_t>(pitch);
    p.dstGap = 1;
    for (int32_t i = 0; i < k_squares; ++i)
      AscendC::LoadDataWithTranspose(dst[i * n_squares * kElements], src[(first + i) * kElements], p);
    return;
  }
  p.repeatTimes = static_cast<uint8_t>(k_squares);
  p.srcStride = 1;
  p.dstGap = static_cast<uint16_t>(2 * n_squares - 1);
  for (int32_t i = 0; i < n_squares; ++i)
    AscendC::LoadDataWithTranspose(dst[i * kElements], src[(first + i * pitch) * kElements], p);
}

// 32-bit: 16 x 8 fractals only transpose as a feature map, rows of K its height and columns of N its
// channels.
template <typename In>
__aicore__ inline void LoadTransposed32(const LocalTensor<In>& dst, const LocalTensor<In>& src,
                                        int32_t k_offset, int32_t chunk_k, int32_t n, int32_t k) {
  AscendC::LoadData3DParamsV2<In> p;
  p.l1H = static_cast<uint16_t>(ChunkRows<In>(chunk_k));
  p.l1W = 1;
  p.channelSize = static_cast<uint16_t>(RoundUp(n, kFractal));
  p.kExtension = p.channelSize;
  p.mExtension = static_cast<uint16_t>(RoundUp(k, kFractal));
  p.kStartPt = 0;
  p.mStartPt = static_cast<uint16_t>(k_offset);
  AscendC::LoadData(dst, src, p);
}

// Rows k_offset.. of a chunk [chunk_k, n] (B as [K, N]) -> L0B as [k, n].
template <typename In>
__aicore__ inline void LoadTransposedB(const LocalTensor<In>& dst, const LocalTensor<In>& src,
                                       int32_t k_offset, int32_t chunk_k, int32_t n, int32_t k) {
  if constexpr (sizeof(In) == 4) {
    LoadTransposed32(dst, src, k_offset, chunk_k, n, k);
  } else if constexpr (sizeof(In) == 2) {
    LoadTransposed16(dst, src, k_offset, chunk_k, n, k);
  } else {
    LoadTransposed8(dst, src, k_offset, chunk_k, n, k);
  }
}

}  // namespace tw_gemm
