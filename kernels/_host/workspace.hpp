// Scratch memory that a kernel keeps between calls: one grow-only block per calling thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace tw {

constexpr int64_t kAlign = 64;
constexpr int64_t kKeptScratchBytes = 128 << 20;  // that a product holds on to between calls
constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { std::free(data_); }

  // At least `bytes` of 64-byte aligned memory with unspecified content, or null when there is none left.
  char* get(int64_t bytes) {
    if (bytes > size_) {
      std::free(data_);
      size_ = round_up(bytes, 4096);
      data_ = static_cast<char*>(std::aligned_alloc(4096, static_cast<size_t>(size_)));
      if (data_ == nullptr) size_ = 0;
    }
    return data_;
  }

  // Gives memory back when more than `bytes` are held.
  void trim(int64_t bytes) {
    if (size_ <= bytes) return;
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
  }

 private:
  char* data_ = nullptr;
  int64_t size_ = 0;
};

// Cuts one block into aligned pieces: first add() each, then allocate size() bytes.
class Layout {
 public:
  int64_t add(int64_t bytes) {
    const int64_t offset = size_;
    size_ += round_up(bytes, kAlign);
    return offset;
  }
  int64_t size() const { return size_; }

 private:
  int64_t size_ = 0;
};

}  // namespace tw
