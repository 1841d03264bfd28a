// The gateway's own pages for clients: who it is, whether it is well, what models there are.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/http/message.h"

namespace llmd::gateway {

// A page of the gateway's own, for GET and HEAD of exactly `path`.
struct LocalPage {
  std::string path;
  std::function<http::Response(std::string_view query)> make;  // may be called from any thread
  bool slow = false;                                           // not on a loop thread
};

struct PageSources {
  std::function<bool()> ready;
  std::function<std::string()> metrics;  // shown without what names engines
};

// /, /health, /ready, /healthz, /readyz and /metrics.
std::vector<LocalPage> ClientPages(const PageSources& sources);

}  // namespace llmd::gateway
