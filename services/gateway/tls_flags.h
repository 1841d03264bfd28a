// The gateway's TLS: towards clients, and towards engines.
#pragma once

#include <string>

#include "common/relay_tls.h"
#include "gateway/front.h"

namespace llmd::gateway {

struct TlsFlags {
  services::ServingTlsFlags serving;
  bool upstream = false, insecure = false;
  services::UpstreamTlsFlags engines;
};

void AddTlsFlags(services::FlagSet& set, TlsFlags& flags);
// Puts what the flags ask for into the front's options. INVALID_ARGUMENT or NOT_FOUND naming the
// flag or the file. `metrics` outlives the front.
Status UseTls(const TlsFlags& flags, const Logger& logger, MetricsRegistry& metrics,
              FrontOptions& options);

}  // namespace llmd::gateway
