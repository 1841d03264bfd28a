// Reads many endpoints' pages many times a second: one epoll thread, kept connections, one buffer
// to receive into. What is no numeric address, or is read over TLS, goes to another Fetch. Bounded:
// pages by 8 MiB, four idle connections per endpoint for at most 90 s.
#pragma once

#include <memory>

#include "llmd/sched/data/fetch.h"

namespace llmd::services {

// `done` runs on its thread, which it must not block for long. Those under way when it is destroyed
// get CANCELLED.
std::shared_ptr<sched::Fetch> MakeScrapeFetch(std::shared_ptr<sched::Fetch> others);

}  // namespace llmd::services
