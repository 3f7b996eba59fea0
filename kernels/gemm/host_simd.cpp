// The computing half of the host gemm; compiled once per ISA level with -DTW_ISA=<level>.
#include "gemm/host_dot.hpp"
#include "gemm/host_epilogue.hpp"
#include "gemm/host_kernels.hpp"
#include "gemm/host_micro.hpp"
#include "gemm/host_pack.hpp"

namespace tw::gemm::TW_ISA {
namespace {

constexpr KernelTable kTable = {
    .mr = kMr,
    .np = kNp,
    .needs_row_start = kHasDpbusd,
    .a_words = {StepF32::kWords, StepBF16::kWords, StepF16::kWords, StepI8::kWords},
    .dot_chunk = {DotF32::kChunk, DotBF16::kChunk, DotF16::kChunk, DotI8::kChunk},
    .dot_words = {DotF32::kWordsPerChunk, DotBF16::kWordsPerChunk, DotF16::kWordsPerChunk,
                  DotI8::kWordsPerChunk},
    .pack_a = {pack_a<StepF32>, pack_a<StepBF16>, pack_a<StepF16>, pack_a<StepI8>},
    .pack_b = {pack_b<StepF32>, pack_b<StepBF16>, pack_b<StepF16>, pack_b<StepI8>},
    .tile = {tile<StepF32>, tile<StepBF16>, tile<StepF16>, tile<StepI8>},
    .stream = {stream<StepF32>, stream<StepBF16>, stream<StepF16>, stream<StepI8>},
    .pack_dot = {pack_dot<DotF32>, pack_dot<DotBF16>, pack_dot<DotF16>, pack_dot<DotI8>},
    .dot = {dot<DotF32>, dot<DotBF16>, dot<DotF16>, dot<DotI8>},
    .axpy = {axpy<kF32>, axpy<kBF16>, axpy<kF16>, nullptr},
    .epilogue = epilogue,
};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::gemm::TW_ISA
