// Rows of C that belong to no group, on the vector cores: zeros.
#pragma once

#include "../_rows/rows.h"

namespace tw_grouped {

using AscendC::GlobalTensor;
using AscendC::HardEvent;

constexpr int32_t kZeros = 4096;  // elements written at once
constexpr int32_t kEventZeros = 2;

// Rows from `begin` on, of `n` elements `ld` apart, this core's share of all.
template <typename Out>
__aicore__ inline void FillZeros(tw_kv::Room& room, GM_ADDR c, int32_t begin, int32_t rows, int32_t n,
                                 int32_t ld, int32_t core, int32_t cores) {
  const tw_kv::Share mine = tw_kv::ShareOf(rows - begin, cores, core);
  const AscendC::LocalTensor<Out> zeros = room.Take<Out>(kZeros);
  if (mine.begin >= mine.end) return;
  GlobalTensor<Out> to;
  to.SetGlobalBuffer(reinterpret_cast<__gm__ Out*>(c));
  tw_rows::Clear(zeros, kZeros);
  AscendC::SetFlag<HardEvent::V_MTE3>(kEventZeros);
  AscendC::WaitFlag<HardEvent::V_MTE3>(kEventZeros);
  for (int32_t row = begin + mine.begin; row < begin + mine.end; ++row)
    for (int32_t column = 0; column < n; column += kZeros)
      tw_rows::StoreRun(to[static_cast<uint64_t>(row) * ld + static_cast<uint64_t>(column)], zeros,
                        tw_kv::Min(kZeros, n - column));
}

}  // namespace tw_grouped
