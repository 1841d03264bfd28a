// Which requests the gateway answers itself, which go to a model server, and which it refuses. By
// the head alone.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/http/head_view.h"
#include "llmd/http/message.h"

namespace llmd::gateway {

// A page of the gateway's own, for GET and HEAD of exactly `path`.
struct LocalPage {
  std::string path;
  // Nothing: this request is for a model server. May be called from any thread.
  std::function<std::optional<http::Response>(std::string_view query)> make;
  bool slow = false;  // not on a loop thread; always gives an answer
};

// Immutable; thread-safe.
class Routes {
 public:
  explicit Routes(std::vector<LocalPage> pages) : pages_(std::move(pages)) {}

  struct Verdict {
    enum class Kind { kForward, kLocal, kRefuse } kind = Kind::kForward;
    const LocalPage* page = nullptr;  // kLocal
    int status = 0;                   // kRefuse; 204 for OPTIONS
    std::string_view message;
    std::string_view allow;  // "" = no such line
  };
  Verdict Of(const http::RequestView& request) const;

 private:
  const std::vector<LocalPage> pages_;
};

}  // namespace llmd::gateway
