// What the recording fakes of libcuda and libamdhip64 share: a JSON-lines log, ELF reading, and the parameter
// sizes that a compiled kernel declares itself (a driver copies exactly these bytes out of kernelParams).
//
// Environment: TILEWRIGHT_FAKE_LOG (file to append to), TILEWRIGHT_FAKE_ARCH (`sm_90`, `gfx942:sramecc+`),
// TILEWRIGHT_FAKE_DEVICES (default 1), TILEWRIGHT_FAKE_FAIL (`function=code`: that call returns the code).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/sha256.hpp"

namespace fake {

inline std::string Env(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : fallback;
}

inline int Devices() { return std::atoi(Env("TILEWRIGHT_FAKE_DEVICES", "1").c_str()); }

// The code to return from `function`, if it was told to fail.
inline std::optional<int> Told(const std::string& function) {
  const std::string text = Env("TILEWRIGHT_FAKE_FAIL", "");
  const size_t equals = text.find('=');
  if (equals == std::string::npos || text.substr(0, equals) != function) return std::nullopt;
  return std::atoi(text.c_str() + equals + 1);
}

// One line of the log: {"call": name, key: value, ...}; values come as JSON.
class Line {
 public:
  explicit Line(const std::string& call) { out_ << "{\"call\": \"" << call << '"'; }
  ~Line() {
    const std::string path = Env("TILEWRIGHT_FAKE_LOG", "");
    if (!path.empty()) std::ofstream(path, std::ios::app) << out_.str() << "}\n";
  }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  Line& Text(const char* key, const std::string& value) { return Raw(key, '"' + value + '"'); }
  Line& Number(const char* key, long long value) { return Raw(key, std::to_string(value)); }
  Line& Raw(const char* key, const std::string& json) {
    out_ << ", \"" << key << "\": " << json;
    return *this;
  }

 private:
  std::ostringstream out_;
};

template <typename T>
T Read(const unsigned char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

struct Section {
  std::string name;
  const unsigned char* data;
  uint32_t type;
  size_t size;
};

// An ELF image in memory, whose size only its own headers tell.
class Elf {
 public:
  explicit Elf(const void* image) : image_(static_cast<const unsigned char*>(image)) {
    if (!valid()) return;
    const auto headers = Read<uint64_t>(image_ + 0x28), segments = Read<uint64_t>(image_ + 0x20);
    const int count = Read<uint16_t>(image_ + 0x3c), names = Read<uint16_t>(image_ + 0x3e);
    size_ = headers + static_cast<size_t>(count) * 64;
    size_ = std::max<size_t>(size_, segments + static_cast<size_t>(Read<uint16_t>(image_ + 0x38)) * 56);
    const unsigned char* table = image_ + headers;
    const auto* strings = reinterpret_cast<const char*>(image_ + Read<uint64_t>(table + 64 * names + 24));
    for (int i = 0; i < count; ++i) {
      const unsigned char* h = table + 64 * i;
      Section section{strings + Read<uint32_t>(h), image_ + Read<uint64_t>(h + 24), Read<uint32_t>(h + 4),
                      Read<uint64_t>(h + 32)};
      constexpr uint32_t kNoBits = 8;
      if (section.type != kNoBits) size_ = std::max<size_t>(size_, Read<uint64_t>(h + 24) + section.size);
      sections_.push_back(section);
    }
  }
  bool valid() const { return std::memcmp(image_, "\177ELF", 4) == 0; }
  int machine() const { return Read<uint16_t>(image_ + 18); }
  uint32_t flags() const { return Read<uint32_t>(image_ + 0x30); }
  int abi_version() const { return image_[8]; }
  size_t size() const { return size_; }
  const Section* Find(const std::string& name) const {
    for (const Section& section : sections_) {
      if (section.name == name) return &section;
    }
    return nullptr;
  }
  bool HasSymbol(const std::string& name) const {
    const Section* strings = Find(".strtab");
    if (strings == nullptr) return false;
    const std::string_view all(reinterpret_cast<const char*>(strings->data), strings->size);
    return all.find(std::string(1, '\0') + name + '\0') != std::string_view::npos;
  }

 private:
  const unsigned char* image_;
  size_t size_ = 0;
  std::vector<Section> sections_;
};

// What a loaded kernel says about itself.
struct Kernel {
  std::string symbol;
  std::vector<size_t> parameter_bytes;
  uint32_t required_block = 0;  // 0: it does not say
  uint32_t max_dynamic_shared = 48 * 1024;
};

inline std::string Hex(const void* data, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) {
    const unsigned char byte = static_cast<const unsigned char*>(data)[i];
    out += "0123456789abcdef"[byte >> 4];
    out += "0123456789abcdef"[byte & 15];
  }
  return out;
}

// The bytes a driver would take from kernelParams, as a JSON list of hex strings.
inline std::string Parameters(const Kernel& kernel, void** parameters) {
  std::string out = "[";
  for (size_t i = 0; i < kernel.parameter_bytes.size(); ++i) {
    out += (i ? ", \"" : "\"") + Hex(parameters[i], kernel.parameter_bytes[i]) + '"';
  }
  return out + "]";
}

inline std::string Triple(unsigned x, unsigned y, unsigned z) {
  return "[" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + "]";
}

inline long long Address(const void* pointer) {
  return static_cast<long long>(reinterpret_cast<intptr_t>(pointer));
}

}  // namespace fake
