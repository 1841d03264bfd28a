// The gateway's own pages for clients: who it is, whether it is well, what models there are.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "gateway/routes.h"
#include "llmd/sched/director.h"

namespace llmd::gateway {

struct PageSources {
  std::function<bool()> ready;
  std::function<std::string()> metrics;  // shown without what names engines
  // Empty when they are not known here.
  std::function<std::vector<sched::ServedModel>()> models;
};

// /, /health, /ready, /healthz, /readyz, /metrics, and /v1/models where models are known.
std::vector<LocalPage> ClientPages(const PageSources& sources);

}  // namespace llmd::gateway
