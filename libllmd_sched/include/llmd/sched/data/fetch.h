// How pages of an endpoint are read (metrics, models). HTTP in the services, canned replies in
// tests; sched itself knows no sockets, so that the Python scheduler needs no web server.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "llmd/clock.h"
#include "llmd/sched/endpoint.h"
#include "llmd/status.h"

namespace llmd::sched {

// Thread-safe. Must outlive every call's `done`, which runs exactly once, on any thread, also
// inside Get.
class Fetch {
 public:
  virtual ~Fetch() = default;
  // GET http://<endpoint address>:<port_override, or the endpoint's port when 0><path>. A reply
  // that is not 2xx is an error (UNAVAILABLE) that names the status; DEADLINE_EXCEEDED after
  // `timeout`.
  virtual void Get(const EndpointInfo& endpoint, uint16_t port_override, const std::string& path,
                   Duration timeout, std::function<void(StatusOr<std::string>)> done) = 0;
};

}  // namespace llmd::sched
