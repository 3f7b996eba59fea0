// A GPU driver library opened at run time. Its types are declared here by their ABI; no vendor header is
// needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "launcher/dl.hpp"
#include "launcher/table.hpp"

namespace tilewright::launch {

// Why a launch did not happen; decides between TW_REFUSED and TW_FAILED.
enum class Failure : uint8_t {
  kNoDriver,
  kNoDevice,
  kUnsupportedDevice,
  kRefusedCall,
  kMissingBinary,
  kBadBinary,
  kMissingSymbol,
  kDriverError,
};

class LaunchError : public std::runtime_error {
 public:
  LaunchError(Failure failure, const std::string& sentence)
      : std::runtime_error(sentence), failure_(failure) {}
  Failure failure() const { return failure_; }

 private:
  Failure failure_;
};

struct Launch {
  void* function;
  uint32_t grid[3];
  uint32_t block;
  uint32_t shared_bytes;
  void* stream;
  void** parameters;
};

// One vendor's driver. Every function throws LaunchError.
class Driver {
 public:
  virtual ~Driver() = default;
  virtual Api api() const = 0;
  const char* name() const { return api() == Api::kCuda ? "cuda" : "hip"; }
  virtual int DeviceCount() = 0;
  // `sm_86`, `gfx942`.
  virtual std::string Arch(int device) = 0;
  // Whether a binary made for `built` runs on a device of `device`.
  virtual bool Runs(const std::string& built, const std::string& device) const = 0;
  // Makes `device` current until the guard's end, as the caller's thread had it before.
  class Scope {
   public:
    Scope(Driver& driver, int device) : driver_(driver), restore_(driver.Enter(device)) {}
    ~Scope() { driver_.Leave(restore_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Driver& driver_;
    intptr_t restore_;
  };
  // Under a Scope: loads an image and gives its function, ready for `shared_bytes` of dynamic shared memory.
  virtual void* Load(int device, const void* image, const char* symbol, uint32_t shared_bytes) = 0;
  virtual void Start(const Launch& launch) = 0;
  // Stream-ordered device memory.
  virtual void* Allocate(size_t bytes, void* stream) = 0;
  virtual void Release(void* memory, void* stream) = 0;
  // Largest grid in x, y, z for blocks of this many threads.
  virtual int64_t GridLimit(int axis, uint32_t block) const = 0;

 protected:
  virtual intptr_t Enter(int device) = 0;
  virtual void Leave(intptr_t restore) noexcept = 0;
};

// Open the library on first use and keep it; throw LaunchError{kNoDriver} where it cannot be had.
Driver& CudaDriver();
Driver& HipDriver();

// A dlopen'ed library that stays open.
class Library {
 public:
  // The file that the environment variable names, else the first of `files` that opens.
  Library(const char* variable, std::initializer_list<const char*> files) {
    const char* named = std::getenv(variable);
    std::string why;
    if (named != nullptr && *named != '\0') {
      Open(named, why);
    } else {
      for (const char* file : files) {
        if (Open(file, why)) break;
      }
    }
    if (handle_ == nullptr) {
      throw LaunchError(Failure::kNoDriver, "no driver library: " + why + " (" + variable + " can name one)");
    }
  }
  template <typename Function>
  void Bind(Function& function, const char* symbol) const {
    function = reinterpret_cast<Function>(dlsym(handle_, symbol));
    if (function == nullptr) {
      throw LaunchError(Failure::kNoDriver, "driver library " + path_ + " is too old: it has no " + symbol);
    }
  }

 private:
  bool Open(const char* file, std::string& why) {
    handle_ = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr && why.empty()) {
      const char* reason = dlerror();
      why = reason != nullptr ? reason : file;
    }
    path_ = file;
    return handle_ != nullptr;
  }

  std::string path_;
  void* handle_ = nullptr;
};

}  // namespace tilewright::launch
