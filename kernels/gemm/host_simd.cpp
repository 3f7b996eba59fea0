// The computing half of the host gemm; compiled once per ISA level with -DTW_ISA=<level>.
#include "gemm/host_dot.hpp"
#include "gemm/host_epilogue.hpp"
#include "gemm/host_kernels.hpp"
#include "gemm/host_micro.hpp"
#include "gemm/host_pack.hpp"
#if TW_LEVEL == TW_LEVEL_amx
#include "gemm/host_tiles.hpp"
#endif

namespace tw::gemm::TW_ISA {
namespace {

using F32 = OnLanes<StepF32, DotF32>;
using F16 = OnLanes<StepF16, DotF16>;
#if TW_LEVEL == TW_LEVEL_amx
using BF16 = OnTiles<TileBF16>;
using I8 = OnTiles<TileI8>;
#else
using BF16 = OnLanes<StepBF16, DotBF16>;
using I8 = OnLanes<StepI8, DotI8>;
#endif

constexpr KernelTable kTable = {
    .mr = {F32::kMr, BF16::kMr, F16::kMr, I8::kMr},
    .np = {F32::kNp, BF16::kNp, F16::kNp, I8::kNp},
    .row_unit = {F32::kRowUnit, BF16::kRowUnit, F16::kRowUnit, I8::kRowUnit},
    .k_unit = {F32::kKUnit, BF16::kKUnit, F16::kKUnit, I8::kKUnit},
    .band_bytes = {F32::kBandBytes, BF16::kBandBytes, F16::kBandBytes, I8::kBandBytes},
    .needs_row_start = kHasDpbusd && !kHasTiles,
    .one_order = {false, kHasTiles, false, true},
    .a_words = {F32::kAWords, BF16::kAWords, F16::kAWords, I8::kAWords},
    .dot_chunk = {F32::kDotChunk, BF16::kDotChunk, F16::kDotChunk, I8::kDotChunk},
    .dot_words = {F32::kDotWords, BF16::kDotWords, F16::kDotWords, I8::kDotWords},
    .pack_a = {F32::kPackA, BF16::kPackA, F16::kPackA, I8::kPackA},
    .pack_b = {pack_b<kF32>, pack_b<kBF16>, pack_b<kF16>, pack_b<kI8>},
    .tile = {F32::kTile, BF16::kTile, F16::kTile, I8::kTile},
    .stream = {F32::kStream, BF16::kStream, F16::kStream, I8::kStream},
    .pack_dot = {F32::kPackDot, BF16::kPackDot, F16::kPackDot, I8::kPackDot},
    .dot = {F32::kDot, BF16::kDot, F16::kDot, I8::kDot},
    .axpy = {axpy<kF32>, axpy<kBF16>, axpy<kF16>, nullptr},
    .epilogue = epilogue,
    .begin = {F32::kBegin, BF16::kBegin, F16::kBegin, I8::kBegin},
    .end = {F32::kEnd, BF16::kEnd, F16::kEnd, I8::kEnd},
};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::gemm::TW_ISA
