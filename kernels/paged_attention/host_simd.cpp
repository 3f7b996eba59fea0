// The computing half of the host paged_attention; compiled once per ISA level with -DTW_ISA=<level>.
#include "paged_attention/host_attend.hpp"

namespace tw::paged::TW_ISA {

const KernelTable& kernels() {
  static constexpr KernelTable table = {.attend = attend};
  return table;
}

}  // namespace tw::paged::TW_ISA
