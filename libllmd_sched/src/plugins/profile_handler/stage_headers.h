// The headers that tell a decode sidecar of the other stages, each once however many plugins set
// it.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "llmd/sched/profile_handler.h"

namespace llmd::sched {

inline void SetOnce(HeaderList& headers, std::string_view name, std::string value) {
  const bool there = std::any_of(headers.begin(), headers.end(),
                                 [&](const auto& header) { return header.first == name; });
  if (!there) headers.emplace_back(name, std::move(value));
}

// The first prefill endpoint, where there is one.
inline void SetPrefiller(const Snapshot& snapshot, const ScheduleOutcome& outcome,
                         HeaderList& headers) {
  if (outcome.prefill.empty()) return;
  SetOnce(headers, "x-prefiller-host-port", snapshot.set->host_ports[outcome.prefill[0]]);
}

// All encode endpoints, where there are any.
inline void SetEncoders(const Snapshot& snapshot, const ScheduleOutcome& outcome,
                        HeaderList& headers) {
  std::string all;
  for (uint32_t e : outcome.encode) all += (all.empty() ? "" : ",") + snapshot.set->host_ports[e];
  if (!all.empty()) SetOnce(headers, "x-encoder-hosts-ports", std::move(all));
}

}  // namespace llmd::sched
