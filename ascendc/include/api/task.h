// Work given to one kind of core, and the scalar unit's data cache: what it writes is in memory at once on
// the twin, but whoever reads it before it is cleaned out of the cache is reported.
#pragma once

#include "api/cross_core.h"

namespace AscendC {

enum class EngineType : int32_t { AIC, AIV };
enum class MemDsbT : uint64_t { ALL = 0, DDR, UB, SEQ };
enum class CacheLine : uint64_t { SINGLE_CACHE_LINE = 0, ENTIRE_DATA_CACHE };
enum class DcciDst : uint64_t { CACHELINE_ALL = 0, CACHELINE_UB, CACHELINE_OUT, CACHELINE_ATOMIC };

template <EngineType engine, auto funPtr, class... Args>
inline void Async(Args... args) {
  if (engine == EngineType::AIC) {
    if (ASCEND_IS_AIC) funPtr(args...);
  } else {
    if (ASCEND_IS_AIV) funPtr(args...);
  }
}

// The scalar unit's accesses are done before it goes on.
template <MemDsbT arg0>
inline void DataSyncBarrier() {}
// From the address to the end of its line of 64 B, or all of the cache.
template <typename T, CacheLine entireType, DcciDst dcciDst>
inline void DataCacheCleanAndInvalid(const GlobalTensor<T>& dst,
                                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  static_assert(dcciDst != DcciDst::CACHELINE_ATOMIC, "CACHELINE_ATOMIC is not supported on 2201");
  if (dcciDst == DcciDst::CACHELINE_UB) return;
  auto r = tilewright::twin::MakeRecord(tilewright::twin::Op::DataCache, tilewright::twin::Pipe::S, at);
  r.cache.entire = entireType == CacheLine::ENTIRE_DATA_CACHE;
  tilewright::twin::AddOperand(r, dst.AsOperand(false));
  twi_emit(&r);
}
template <typename T, CacheLine entireType, DcciDst dcciDst>
inline void DataCacheCleanAndInvalid(const LocalTensor<T>&) {}
template <typename T, CacheLine entireType>
inline void DataCacheCleanAndInvalid(const GlobalTensor<T>& dst,
                                     tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  DataCacheCleanAndInvalid<T, entireType, DcciDst::CACHELINE_OUT>(dst, at);
}
template <typename T>
inline void DataCachePreload(const GlobalTensor<uint64_t>&, const T) {}

}  // namespace AscendC
