#include "prepared.hpp"

#include "errors.hpp"

namespace tw::bindings {
namespace {

tw_tensor to_tensor(const TensorView& view) {
  const auto& [name, address, dtype, shape, strides] = view;
  tw_tensor tensor{};
  tensor.data = reinterpret_cast<void*>(address);
  tensor.dtype = dtype;
  if (shape.size() == 1 && shape[0] == -1) {
    tensor.ndim = -1;
    return tensor;
  }
  if (shape.size() != strides.size() || shape.size() > TW_MAX_DIMS) {
    raise("UsageError", name + " has " + std::to_string(shape.size()) + " sizes and " +
                            std::to_string(strides.size()) + " strides; accepted: as many of each, at most " +
                            std::to_string(TW_MAX_DIMS));
  }
  tensor.ndim = static_cast<int32_t>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0) raise("UsageError", name + " has the negative size " + std::to_string(shape[i]));
    tensor.shape[i] = shape[i];
    tensor.stride[i] = strides[i];
  }
  return tensor;
}

}  // namespace

Prepared::Prepared(uintptr_t function, const std::vector<TensorView>& tensors,
                   const std::map<std::string, int64_t>& attrs, int threads)
    : function_(reinterpret_cast<tw_kernel_fn>(function)), threads_(threads) {
  if (function == 0) raise("UsageError", "the address of the kernel is 0");
  names_.reserve(tensors.size() + attrs.size());
  for (const TensorView& view : tensors) {
    tensors_.push_back(to_tensor(view));
    tensors_.back().name = names_.emplace_back(std::get<0>(view)).c_str();
  }
  for (const auto& [name, value] : attrs) attrs_.push_back({names_.emplace_back(name).c_str(), value});
}

void Prepared::run() const {
  char error[512] = "";
  const tw_call call{tensors_.data(),
                     attrs_.data(),
                     error,
                     sizeof error,
                     static_cast<int32_t>(tensors_.size()),
                     static_cast<int32_t>(attrs_.size()),
                     threads_};
  const int status = function_(&call);
  if (status == TW_OK) return;
  const std::string reason =
      error[0] != '\0' ? error : "the kernel returned status " + std::to_string(status);
  raise(status == TW_REFUSED ? "Refused" : "TilewrightError", reason);
}

}  // namespace tw::bindings
