// Pages of keys or values to quantised codes with residuals for selected vectors, and back; one source for
// CANN and for the twin. Formats: kernels/_kv/formats.py. Division rounds correctly on the twin; silicon is
// within a unit in the last place.
#include "kernel_operator.h"
#include "residual_read.h"
#include "residual_write.h"

namespace {

template <typename Work>
__aicore__ inline void Run(const tw_kv::ResidualArguments& a, GM_ADDR tiling) {
  TwKvResidualTiling t;
  tw_kv::ReadTiling(tiling, t);
  Work work;
  work.Init(a, t);
  work.Process();
}

}  // namespace

#define TW_KV_RESIDUAL(name, Work)                                                                          \
  extern "C" __global__ __aicore__ void name(                                                               \
      GM_ADDR x, GM_ADDR page_ids, GM_ADDR select, GM_ADDR channel_scale, GM_ADDR used_before,              \
      GM_ADDR codes, GM_ADDR token_scale, GM_ADDR token_zero, GM_ADDR page_scale, GM_ADDR page_zero,        \
      GM_ADDR mask, GM_ADDR rank, GM_ADDR pool, GM_ADDR pool_scale, GM_ADDR fmask, GM_ADDR frank,           \
      GM_ADDR fpool, GM_ADDR used_after, GM_ADDR workspace, GM_ADDR tiling) {                               \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                         \
    Run<Work>({x, page_ids, select, channel_scale, used_before, codes, token_scale, token_zero, page_scale, \
               page_zero, mask, rank, pool, pool_scale, fmask, frank, fpool, used_after, workspace},        \
              tiling);                                                                                      \
  }

TW_KV_RESIDUAL(kv_residual_write_fp32, tw_kv::ResidualWriter<float>)
TW_KV_RESIDUAL(kv_residual_write_fp16, tw_kv::ResidualWriter<half>)
TW_KV_RESIDUAL(kv_residual_write_bf16, tw_kv::ResidualWriter<bfloat16_t>)
TW_KV_RESIDUAL(kv_residual_read_fp32, tw_kv::ResidualReader<float>)
TW_KV_RESIDUAL(kv_residual_read_fp16, tw_kv::ResidualReader<half>)
TW_KV_RESIDUAL(kv_residual_read_bf16, tw_kv::ResidualReader<bfloat16_t>)
