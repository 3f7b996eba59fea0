// The packed selection in C++: which layers, groups of tokens and requests run in bf16. selection.py has the
// layout; this is its counterpart.
#pragma once

#include <stdint.h>

namespace tw::mask_gemm {

constexpr int64_t kWordBits = 64;
constexpr int64_t kGroupRows = 64;
constexpr int64_t kMostRows = kWordBits * kGroupRows;  // of a step
constexpr int64_t kRequests = kWordBits;
constexpr int64_t kNoRequest = -1;
constexpr int64_t kStepWords = 2;  // after those of the layers

constexpr int64_t words_for(int64_t layers) { return (layers + kWordBits - 1) / kWordBits + kStepWords; }

// A view of W >= 3 words, `stride` elements apart; Word is int64_t or const int64_t. Indices are the caller's
// to check: layers 0 to layers() - 1, groups and requests 0 to 63.
template <class Word>
class SelectionView {
 public:
  SelectionView(Word* words, int64_t count, int64_t stride = 1)
      : words_(words), count_(count), stride_(stride) {}

  int64_t layers() const { return (count_ - kStepWords) * kWordBits; }
  bool layer(int64_t index) const { return bit(index / kWordBits, index); }
  bool group(int64_t index) const { return bit(count_ - 2, index); }
  bool request(int64_t slot) const { return bit(count_ - 1, slot); }

  // Whether a row runs in bf16 for its group or its owner, kNoRequest or a request.
  bool row(int64_t row, int64_t owner) const {
    return group(row / kGroupRows) || (owner != kNoRequest && request(owner));
  }

  void put_layer(int64_t index, bool on) { put(index / kWordBits, index, on); }
  void put_group(int64_t index, bool on) { put(count_ - 2, index, on); }
  void put_request(int64_t slot, bool on) { put(count_ - 1, slot, on); }

  // No group and no request; layers stay.
  void begin_step() { words_[(count_ - 2) * stride_] = words_[(count_ - 1) * stride_] = 0; }

 private:
  static uint64_t mask(int64_t index) { return uint64_t{1} << (index % kWordBits); }
  bool bit(int64_t word, int64_t index) const {
    return (static_cast<uint64_t>(words_[word * stride_]) & mask(index)) != 0;
  }
  void put(int64_t word, int64_t index, bool on) {
    const auto before = static_cast<uint64_t>(words_[word * stride_]);
    words_[word * stride_] = static_cast<int64_t>(on ? before | mask(index) : before & ~mask(index));
  }

  Word* words_;
  int64_t count_, stride_;
};

}  // namespace tw::mask_gemm
