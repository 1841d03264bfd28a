// Named factories of one plugin kind. An object, not a singleton: programs fill it, tests make
// their own.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/nearest.h"
#include "llmd/status.h"

namespace llmd {

// Maps type names to factories `Factory`. Thread-compatible; fill it before sharing it.
template <typename Factory>
class Registry {
 public:
  // ALREADY_EXISTS when the name is taken.
  Status Register(std::string_view type, Factory factory) {
    if (!factories_.emplace(std::string(type), std::move(factory)).second) {
      return AlreadyExists("plugin type '" + std::string(type) + "' is registered twice");
    }
    return OkStatus();
  }
  // NOT_FOUND naming up to three near types, or all of a few.
  StatusOr<const Factory*> Find(std::string_view type) const {
    if (auto it = factories_.find(type); it != factories_.end()) return &it->second;
    return NotFound("unknown plugin type '" + std::string(type) + "'" + DidYouMean(type, Types()));
  }
  std::vector<std::string> Types() const {
    std::vector<std::string> out;
    out.reserve(factories_.size());
    for (const auto& [name, unused] : factories_) out.push_back(name);
    return out;
  }

 private:
  std::map<std::string, Factory, std::less<>> factories_;
};

}  // namespace llmd
