// Commands on standard input against a packed selection; see tests/test_selection.py.
#include <cstdio>
#include <cstring>
#include <vector>

#include "mask_gemm/selection.hpp"

namespace {

using tw::mask_gemm::SelectionView;

// layer, group or request by its first letter.
bool get(const SelectionView<int64_t>& s, char kind, int64_t index) {
  return kind == 'l' ? s.layer(index) : kind == 'g' ? s.group(index) : s.request(index);
}

void put(SelectionView<int64_t>* s, char kind, int64_t index, bool on) {
  if (kind == 'l') return s->put_layer(index, on);
  if (kind == 'g') return s->put_group(index, on);
  s->put_request(index, on);
}

}  // namespace

// new W STRIDE; put KIND INDEX ON; get KIND INDEX; row ROW OWNER; step; words
int main() {
  std::vector<int64_t> words(3);
  int64_t count = 3, stride = 1;
  char name[16], kind;
  while (std::scanf("%15s", name) == 1) {
    SelectionView<int64_t> s(words.data(), count, stride);
    long long a = 0, b = 0;
    if (std::strcmp(name, "new") == 0) {
      if (std::scanf("%lld %lld", &a, &b) != 2) return 1;
      count = a;
      stride = b;
      words.assign(static_cast<size_t>(a * b), 0);
    } else if (std::strcmp(name, "put") == 0) {
      if (std::scanf(" %c %lld %lld", &kind, &a, &b) != 3) return 1;
      put(&s, kind, a, b != 0);
    } else if (std::strcmp(name, "get") == 0) {
      if (std::scanf(" %c %lld", &kind, &a) != 2) return 1;
      std::printf("%d\n", get(s, kind, a));
    } else if (std::strcmp(name, "row") == 0) {
      if (std::scanf("%lld %lld", &a, &b) != 2) return 1;
      std::printf("%d\n", s.row(a, b));
    } else if (std::strcmp(name, "step") == 0) {
      s.begin_step();
    } else {
      for (int64_t i = 0; i < count; ++i)
        std::printf("%lld ", static_cast<long long>(words[static_cast<size_t>(i * stride)]));
      std::printf("\n");
    }
  }
  return 0;
}
