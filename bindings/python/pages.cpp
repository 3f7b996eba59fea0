// The page pool (kernels/_pages) for Python: both kinds behind one class, and its benchmark.
#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "_pages/bench.hpp"
#include "_pages/page_pool.hpp"
#include "errors.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace tw::bindings {
namespace {

using pages::Handle;
using pages::Release;

std::string name_of(Handle handle) { return "page " + std::to_string(pages::page_of(handle)); }

[[noreturn]] void refuse(Release why, Handle handle) {
  if (why == Release::foreign) {
    raise("PageMisuse", "handle " + std::to_string(handle) + " is not of this pool");
  }
  raise("PageMisuse",
        name_of(handle) + " is not held by this handle: it was released before, or never taken");
}

class Pool {
  template <bool kChecked>
  using Owned = std::unique_ptr<pages::BasicPagePool<kChecked>>;
  using Either = std::variant<Owned<false>, Owned<true>>;

  template <class Body>
  auto visit(const Body& body) const {
    return std::visit([&](const auto& pool) { return body(*pool); }, pool_);
  }

 public:
  Pool(int64_t count, bool checked) : pool_(make(count, checked)) {}

  Handle alloc() {
    const Handle handle = visit([](auto& pool) { return pool.alloc(); });
    if (handle == pages::kNone) raise_none(1);
    return handle;
  }

  std::vector<Handle> alloc_many(int64_t count) {
    if (count < 0) raise("UsageError", std::to_string(count) + " pages were asked for; accepted: 0 or more");
    // Refused before room for handles is made: a pool can never hold them all.
    if (count > count_pages()) raise_none(count);
    std::vector<Handle> handles(static_cast<size_t>(count));
    if (!visit([&](auto& pool) { return pool.alloc_all(handles); })) raise_none(count);
    return handles;
  }

  void share(Handle handle) {
    const Release done = visit([&](auto& pool) { return pool.share(handle); });
    if (done != Release::freed) refuse(done, handle);
  }

  bool release(Handle handle) {
    const Release done = visit([&](auto& pool) { return pool.release(handle); });
    if (done != Release::freed && done != Release::kept) refuse(done, handle);
    return done == Release::freed;
  }

  int64_t release_many(const std::vector<Handle>& handles) {
    const auto done = visit([&](auto& pool) { return pool.release_all(handles); });
    if (done.wrong != 0) refuse(done.why, handles[static_cast<size_t>(done.first_wrong)]);
    return done.freed;
  }

  int64_t references(Handle handle) const {
    const int64_t count = visit([&](const auto& pool) { return pool.references(handle); });
    return count < 0 ? 0 : count;
  }

  int64_t count_pages() const {
    return visit([](const auto& pool) { return pool.pages(); });
  }
  int64_t free_pages() const {
    return visit([](const auto& pool) { return pool.free_pages(); });
  }
  int64_t bookkeeping_bytes() const {
    return visit([](const auto& pool) { return pool.bookkeeping_bytes(); });
  }
  bool checked() const { return pool_.index() == 1; }

 private:
  static Either make(int64_t count, bool checked) {
    try {
      if (checked) return std::make_unique<pages::BasicPagePool<true>>(count);
      return std::make_unique<pages::BasicPagePool<false>>(count);
    } catch (const std::invalid_argument& error) {
      raise("UsageError", error.what());
    }
  }

  [[noreturn]] void raise_none(int64_t wanted) const {
    raise("OutOfPages", std::to_string(wanted) + (wanted == 1 ? " page was" : " pages were") +
                            " asked for and " + std::to_string(free_pages()) + " of " +
                            std::to_string(count_pages()) + " are free");
  }

  Either pool_;
};

py::tuple bench(const std::string& allocator, int64_t count, int64_t burst, int64_t batch, double filled,
                int threads, bool pinned, int rounds) {
  const pages::Load load{count, burst, batch, filled, threads, pinned};
  std::vector<std::tuple<double, double, double>> found;
  double running = 0;
  try {
    const py::gil_scoped_release released;
    const pages::Timing timing = pages::time_pages(allocator, load, rounds);
    for (const pages::Round& round : timing.rounds) {
      found.emplace_back(round.alloc_ns, round.free_ns, round.pair_ns);
    }
    running = timing.running;
  } catch (const std::invalid_argument& error) {
    raise("UsageError", error.what());
  }
  return py::make_tuple(found, running);
}

}  // namespace

void add_pages(py::module_& module) {
  py::class_<Pool>(module, "PagePool", "A lock-free pool of page numbers; see tilewright.pages.PagePool.")
      .def(py::init<int64_t, bool>(), py::arg("pages"), py::arg("checked"))
      .def("alloc", &Pool::alloc)
      .def("alloc_many", &Pool::alloc_many, py::arg("count"))
      .def("share", &Pool::share, py::arg("handle"))
      .def("release", &Pool::release, py::arg("handle"))
      .def("release_many", &Pool::release_many, py::arg("handles"))
      .def("references", &Pool::references, py::arg("handle"))
      .def_property_readonly("pages", &Pool::count_pages)
      .def_property_readonly("free_pages", &Pool::free_pages)
      .def_property_readonly("bookkeeping_bytes", &Pool::bookkeeping_bytes)
      .def_property_readonly("checked", &Pool::checked);
  module.def("page_allocators", &pages::allocator_names, "Allocators that `time_pages` knows.");
  module.def(
      "time_pages", &bench, py::arg("allocator"), py::arg("pages"), py::arg("burst"), py::arg("batch"),
      py::arg("filled"), py::arg("threads"), py::arg("pinned"), py::arg("rounds"),
      "A list of (ns an alloc, ns a free, ns a pair), every round of every thread; and the least share of "
      "its time that a thread was running.");
}

}  // namespace tw::bindings
