// C = A[m, k] @ B[k, n] in half, tiles of 64 x 64 x 32, two buffers in L1, L0 and L0C; a block has 64 rows.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kM = 64, kN = 64, kK = 32, kA = kM * kK, kB = kK * kN, kC = kM * kN;

}  // namespace

extern "C" __global__ __aicore__ void gemm_buffered(GM_ADDR a, GM_ADDR b, GM_ADDR c, uint32_t k, uint32_t n) {
  GlobalTensor<half> ga, gb;
  GlobalTensor<float> gc;
  ga.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(a) + GetBlockIdx() * kM * k);
  gb.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(b));
  gc.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(c) + GetBlockIdx() * kM * n);
  const LocalTensor<half> a1(TPosition::A1, 0, 2 * kA), b1(TPosition::B1, 4 * kA, 2 * kB);
  const LocalTensor<half> a2(TPosition::A2, 0, 2 * kA), b2(TPosition::B2, 0, 2 * kB);
  //! replace one_tile_of_c `2 * kC` `kC`: out-of-bounds@multiply, out-of-bounds@store
  const LocalTensor<float> co1(TPosition::CO1, 0, 2 * kC);
  for (int32_t i = 0; i < 2; ++i) {
    SetFlag<HardEvent::MTE1_MTE2>(i);
    //! drop never_primed_l0: deadlock@wait_l0
    SetFlag<HardEvent::M_MTE1>(i);
    //! drop no_fix_m
    SetFlag<HardEvent::FIX_M>(i);
  }
  const LoadData2DParams rows_of_a(0, kK / 16, kM / 16, 0, 0, false, 0);
  const LoadData2DParams rows_of_b(0, kN / 16, kK / 16, 0, 0, true, 0);
  uint32_t step = 0;
  for (uint32_t tile = 0; tile < n / kN; ++tile) {
    const uint32_t l0c = tile % 2;
    //! drop no_fix_m: race@multiply<store FIX_M
    WaitFlag<HardEvent::FIX_M>(l0c);
    for (uint32_t k0 = 0; k0 < k; k0 += kK, ++step) {
      const uint32_t slot = step % 2, at_a = slot * kA, at_b = slot * kB;
      //! drop no_wait_mte1_mte2: race@copy_a<load_a MTE1_MTE2, race@copy_b<load_b MTE1_MTE2,
      //!   repeated-flag@free_l1
      WaitFlag<HardEvent::MTE1_MTE2>(slot);
      //! replace rows_out_of_range `kM, kK, 0` `16385, kK, 0`: illegal-parameter@copy_a
      const Nd2NzParams tile_of_a(1, kM, kK, 0, k, kM, 1, 0);
      DataCopy(a1[at_a], ga[k0], tile_of_a);  // @copy_a
      //! replace too_wide_a_pitch `kK, 1, 0)` `2 * kK, 1, 0)`: out-of-bounds@copy_b, race@copy_b<load_b
      //!   MTE1_MTE2
      const Nd2NzParams tile_of_b(1, kK, kN, 0, n, kK, 1, 0);
      DataCopy(b1[at_b], gb[k0 * n + tile * kN], tile_of_b);  // @copy_b
      //! drop no_mte2_mte1: race@load_a<copy_a MTE2_MTE1, race@load_b<copy_b MTE2_MTE1
      SetFlag<HardEvent::MTE2_MTE1>(slot);
      //! drop no_mte2_mte1
      WaitFlag<HardEvent::MTE2_MTE1>(slot);
      //! drop no_m_mte1: race@load_a<multiply M_MTE1
      WaitFlag<HardEvent::M_MTE1>(slot);  // @wait_l0
      for (uint32_t i = 0; i < kM / 16; ++i) {
        //! replace l0_misaligned `i * kK * 16]` `i * kK * 16 + 16]`: misaligned, out-of-bounds
        LoadData(a2[at_a + i * kK * 16], a1[at_a + i * 256], rows_of_a);  // @load_a
      }
      for (uint32_t i = 0; i < kK / 16; ++i) {
        //! replace into_the_wrong_l0 `b2[at_b` `a2[at_b`: race<load_a PIPE_MTE1, uninitialized-read@multiply
        LoadData(b2[at_b + i * kN * 16], b1[at_b + i * 256], rows_of_b);  // @load_b
      }
      SetFlag<HardEvent::MTE1_MTE2>(slot);  // @free_l1
      //! drop no_mte1_m: race@multiply<load_a MTE1_M, race@multiply<load_b MTE1_M
      SetFlag<HardEvent::MTE1_M>(slot);
      //! drop no_mte1_m
      WaitFlag<HardEvent::MTE1_M>(slot);
      //! replace k_out_of_range `kN, kK, 0` `kN, 4096, 0`: illegal-parameter
      //! replace never_cleared `k0 == 0` `false`: uninitialized-read
      Mmad(co1[l0c * kC], a2[at_a], b2[at_b], MmadParams(kM, kN, kK, 0, false, k0 == 0));  // @multiply
      //! drop no_m_mte1
      SetFlag<HardEvent::M_MTE1>(slot);
    }
    //! drop no_m_fix: race@store<multiply M_FIX
    SetFlag<HardEvent::M_FIX>(l0c);
    //! drop no_m_fix
    WaitFlag<HardEvent::M_FIX>(l0c);
    //! replace overlapping_rows `kM, n, false` `kM, kN - 1, false`: illegal-parameter@store
    const FixpipeParamsV220 p(kN, kM, kM, n, false);
    Fixpipe<float, float, CFG_ROW_MAJOR>(gc[tile * kN], co1[l0c * kC], p);  // @store
    //! drop no_fix_m
    SetFlag<HardEvent::FIX_M>(l0c);
  }
  for (int32_t i = 0; i < 2; ++i) {
    WaitFlag<HardEvent::MTE1_MTE2>(i);
    WaitFlag<HardEvent::M_MTE1>(i);
    //! drop no_fix_m
    WaitFlag<HardEvent::FIX_M>(i);
  }
}
