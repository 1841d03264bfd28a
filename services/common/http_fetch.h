// The scheduler's page reader over HTTP.
#pragma once

#include <memory>

#include "llmd/http/client.h"
#include "llmd/sched/data/fetch.h"

namespace llmd::services {

// `runtime` must outlive it. Pages are bounded by 8 MiB.
std::shared_ptr<sched::Fetch> MakeHttpFetch(http::Runtime& runtime);

}  // namespace llmd::services
