#include "order.h"

namespace tilewright::twin {

namespace {

bool Covers(const Remote& a, const Remote& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i] < b[i]) return false;
  return true;
}

}  // namespace

const Remote* RemoteStore::Merge(const Remote* a, const Remote* b) {
  if (a == nullptr || a == b) return b;
  if (b == nullptr || Covers(*a, *b)) return a;
  if (Covers(*b, *a)) return b;
  Remote merged = *a;
  for (size_t i = 0; i < merged.size(); ++i) merged[i] = std::max(merged[i], (*b)[i]);
  return Keep(std::move(merged));
}

}  // namespace tilewright::twin
