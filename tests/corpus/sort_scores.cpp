// The 128 scores of a block, largest first: four runs sorted and merged, scores picked out of the pairs.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void sort_scores(GM_ADDR x, GM_ADDR y) {
  constexpr uint32_t kScores = 128, kPairs = 2 * kScores;  // a pair is two floats: score and index
  GlobalTensor<float> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x) + GetBlockIdx() * kScores);
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y) + GetBlockIdx() * kScores);
  const LocalTensor<float> scores(TPosition::VECIN, 0, kScores), runs(TPosition::VECCALC, 1024, kPairs),
      merged(TPosition::VECCALC, 2048, kPairs), sorted(TPosition::VECOUT, 3072, kScores);
  const LocalTensor<uint32_t> index(TPosition::VECCALC, 4096, kScores);
  DataCopy(scores, gx, kScores);  // @in
  //! drop no_index: uninitialized-read@sort
  CreateVecIndex(index.ReinterpretCast<int32_t>(), 0, kScores);  // @index
  SetFlag<HardEvent::MTE2_V>(EVENT_ID0);                         // @set_in
  //! drop no_wait_mte2_v: race@sort<in MTE2_V, unpaired-flag@set_in
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
  //! drop no_barrier_index: race@sort<index PIPE_V
  PipeBarrier<PIPE_V>();
  //! replace five_runs `index, 4` `index, 5`: out-of-bounds
  Sort32(runs, scores, index, 4);  // @sort
  //! drop no_barrier_sort: race@merge<sort PIPE_V
  PipeBarrier<PIPE_V>();
  MrgSort4Info four;
  for (uint16_t& length : four.elementLengths) length = 32;
  //! replace lists_of_nothing `15` `5`: illegal-parameter@merge
  four.validBit = 15;
  //! replace onto_its_source `merged, {` `runs, {`: illegal-parameter, uninitialized-read@pick
  MrgSort(merged, {runs, runs[64], runs[128], runs[192]}, four);  // @merge
  //! drop no_barrier_merge: race@pick<merge PIPE_V
  PipeBarrier<PIPE_V>();
  uint64_t picked = 0;
  //! replace no_such_pattern `merged, 1,` `merged, 8,`: illegal-parameter
  GatherMask(sorted, merged, 1, false, 0, {1, 4, 8, 0}, picked);  // @pick
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);                          // @set_out
  //! drop no_wait_v_mte3: race@out<pick V_MTE3, unpaired-flag@set_out
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  DataCopy(gy, sorted, kScores);  // @out
}
