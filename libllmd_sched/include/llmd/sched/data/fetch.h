// How pages of an endpoint are read (metrics, models). HTTP in the services, canned replies in
// tests; sched itself knows no sockets, so that the Python scheduler needs no web server.
#pragma once

#include <functional>
#include <string>

#include "llmd/clock.h"
#include "llmd/sched/data/page.h"
#include "llmd/sched/endpoint.h"
#include "llmd/status.h"

namespace llmd::sched {

// Thread-safe. Must outlive every call's `done`, which runs exactly once, on any thread, also
// inside Get.
class Fetch {
 public:
  virtual ~Fetch() = default;
  // GET of the page at the endpoint's address. A reply that is not 2xx is an error (UNAVAILABLE)
  // that names the status; DEADLINE_EXCEEDED after `timeout`.
  virtual void Get(const EndpointInfo& endpoint, const PageSpec& page, Duration timeout,
                   std::function<void(StatusOr<std::string>)> done) = 0;
  // POST of a JSON body to `url` ("http://host:port/path", or https: and a certificate that the
  // system believes); errors as those of Get. UNIMPLEMENTED where nothing can be posted.
  virtual void Post(const std::string& url,
                    std::string body,  // NOLINT: taken by those who can post
                    Duration timeout,
                    std::function<void(StatusOr<std::string>)> done) {  // NOLINT
    done(Unimplemented("nothing can be posted here"));
  }
};

// Where there is no client: every call fails.
class NoFetch final : public Fetch {
 public:
  void Get(const EndpointInfo&, const PageSpec&, Duration,
           std::function<void(StatusOr<std::string>)> done) override {
    done(Unimplemented("nothing can be fetched here"));
  }
};

}  // namespace llmd::sched
