// A kernel call with everything bound: made once, run and timed any number of times on the same memory.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "_host/abi.h"

namespace tw::bindings {

// name, address, dtype code, shape, strides in elements; shape (-1,) marks an absent optional tensor.
using TensorView = std::tuple<std::string, uintptr_t, int, std::vector<int64_t>, std::vector<int64_t>>;

class Prepared {
 public:
  // `attrs` are flags (index of the value) and config fields. The memory behind the addresses must outlive
  // this.
  Prepared(uintptr_t function, const std::vector<TensorView>& tensors,
           const std::map<std::string, int64_t>& attrs, int threads);
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  // Calls the kernel; raises Refused or TilewrightError with the kernel's sentence. Needs no GIL.
  void run() const;

 private:
  tw_kernel_fn function_;
  std::vector<std::string> names_;
  std::vector<tw_tensor> tensors_;
  std::vector<tw_attr> attrs_;
  int32_t threads_;
};

}  // namespace tw::bindings
