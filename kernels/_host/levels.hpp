// The table of a family for an instruction level. A macro, since no template declares namespaces.
//
//   TW_LEVELS(nz_kv, Table)   declares tw::nz_kv::<level>::kernels() and defines kernels_of(Level)
#pragma once

#include "_host/cpu.hpp"

#define TW_LEVELS(family, Table)         \
  namespace tw::family {                 \
  namespace scalar {                     \
  const Table& kernels();                \
  }                                      \
  namespace avx2 {                       \
  const Table& kernels();                \
  }                                      \
  namespace avx2vnni {                   \
  const Table& kernels();                \
  }                                      \
  namespace avx512 {                     \
  const Table& kernels();                \
  }                                      \
  namespace amx {                        \
  const Table& kernels();                \
  }                                      \
  namespace {                            \
  const Table& kernels_of(Level level) { \
    switch (level) {                     \
      case Level::amx:                   \
        return amx::kernels();           \
      case Level::avx512:                \
        return avx512::kernels();        \
      case Level::avx2vnni:              \
        return avx2vnni::kernels();      \
      case Level::avx2:                  \
        return avx2::kernels();          \
      case Level::scalar:                \
        break;                           \
    }                                    \
    return scalar::kernels();            \
  }                                      \
  }                                      \
  }
