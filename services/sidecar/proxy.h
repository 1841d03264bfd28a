// The sidecar's request handler: which requests are disaggregated, the two legs, and what the
// client gets.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/http/client.h"
#include "llmd/http/server.h"
#include "llmd/log.h"
#include "llmd/pd/protocol.h"
#include "sidecar/options.h"
#include "sidecar/sidecar_metrics.h"

namespace llmd::sidecar {

// Tells a lender that its blocks are not wanted. Must not block.
using ReleaseFn = std::function<void(pd::LenderAddress)>;

// Handlers run on the loop threads; what is referred to must outlive the server. Thread-safe.
class Proxy {
 public:
  Proxy(http::Client& prefiller, http::Client& decoder, const Options& options,
        SidecarMetrics& metrics, ReleaseFn release, Logger logger);

  http::Task<void> Handle(http::Exchange& exchange);
  // Asks the engine's /health. UNAVAILABLE with the reason while it does not answer 200.
  http::Task<Status> CheckEngine();

 private:
  // One disaggregated or local generation request.
  struct Job {
    pd::Api api = pd::Api::kCompletions;
    http::RequestHead head;  // for both legs
    std::string body;
    std::vector<http::HostPort> candidates;
    Logger logger;
  };
  // How the prefill leg ended; `response` holds what the prefiller said, or the error object in its
  // place.
  struct Prefilled {
    bool client_gone = false;
    http::Response response;
  };
  // What the decode leg needs from the prefill leg.
  struct Handover {
    std::string params;
    uint64_t cached_tokens = 0;
  };

  http::Task<void> Ready(http::Exchange& exchange);
  http::Task<void> PassThrough(http::Exchange& exchange);
  http::Task<void> Generate(http::Exchange& exchange, pd::Api api);
  http::Task<void> Disaggregate(http::Exchange& exchange, Job& job);
  http::Task<Prefilled> Prefill(http::Exchange& exchange, Job& job, const std::string& body);
  http::Task<StatusOr<http::Response>> PrefillOnce(http::Exchange& exchange, Job& job,
                                                   http::HostPort peer, const std::string& body);
  http::Task<void> Decode(http::Exchange& exchange, Job& job, const std::string& body,
                          std::optional<Handover> handover);
  http::Task<void> AnswerDecode(http::Exchange& exchange, http::ResponseStream& upstream,
                                const Handover* handover);
  http::Task<void> SendError(http::Exchange& exchange, int status, std::string_view type,
                             std::string message);
  StatusOr<std::vector<http::HostPort>> Candidates(const http::Headers& headers) const;
  void Release(const Job& job, const std::optional<Handover>& handover);
  void LogPrefillReply(const Job& job, const pd::PrefillReply& reply) const;

  http::Client &prefiller_, &decoder_;
  const Options& options_;
  SidecarMetrics& metrics_;
  const ReleaseFn release_;
  const Logger logger_;
  const http::HostPort engine_;
};

}  // namespace llmd::sidecar
