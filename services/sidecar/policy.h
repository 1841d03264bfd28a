// The sidecar's decisions, one policy a loop: which requests are disaggregated, the two legs, and
// what the client gets.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/request_observer.h"
#include "llmd/http/relay/policy.h"
#include "llmd/log.h"
#include "llmd/pd/protocol.h"
#include "sidecar/job.h"
#include "sidecar/options.h"
#include "sidecar/resolver.h"
#include "sidecar/sidecar_metrics.h"

namespace llmd::sidecar {

// What the loops' policies share; outlives the relay. The functions are called from loop threads
// and must not block.
struct Shared {
  const Options& options;
  SidecarMetrics& metrics;
  const services::ObserverParts observed;
  Logger logger;
  // Empty = that leg is in clear text.
  http::TlsProvider prefiller_tls, decoder_tls;
  std::string server_name;  // to whom their certificates must be made out; "" = the host asked
  // Tells a lender that its blocks are not wanted.
  std::function<void(pd::LenderAddress)> release;
  Resolver::Lookup look_up;
  Resolver::Submit look_up_on;                        // a worker's queue
  std::function<Status(std::function<void()>)> scan;  // another's
};

// Bodies of this size and more are scanned by a worker.
inline constexpr size_t kScanOnWorkerBytes = size_t{1} << 20;
// Candidates that one request may name.
inline constexpr size_t kMaxCandidates = 64;
// Names of prefillers to which a loop speaks TLS at a time.
inline constexpr size_t kMaxTlsHosts = 1024;

class SidecarPolicy final : public relay::Policy {
 public:
  SidecarPolicy(relay::Loop& loop, const Shared& shared);
  ~SidecarPolicy() override;

  void OnHead(relay::Call& call) override;
  void OnRequest(relay::Call& call) override;
  void OnRefused(relay::Call& call, const relay::Refusal& refusal) override;
  void OnFailure(relay::Call& call, relay::Failure failure, std::string_view what) override;
  void OnResponseHead(relay::Call& call, const http::ResponseView& head) override;
  relay::Piece OnResponseBytes(relay::Call& call, std::string_view piece, bool end) override;
  void OnCollected(relay::Call& call, const http::ResponseView& head,
                   std::string_view body) override;
  std::string_view OnCut(relay::Call& call, relay::Failure failure, std::string_view what) override;
  void OnTimer(relay::Call& call) override;
  void OnEnd(relay::Call& call, const relay::Outcome& outcome) override;
  void OnTick() override;

 private:
  // A call that is over, but a worker still reads its body.
  struct Retained {
    relay::Call* call;
    std::unique_ptr<Job> job;
  };

  // policy.cc
  static Job& Of(relay::Call& call) { return *static_cast<Job*>(call.context); }
  Job& Take(relay::Call& call);
  Job& Begin(relay::Call& call);
  void Give(Job& job);
  // `failure`: of a leg, for who stands in front (http::kUpstreamFailure); "" = none failed.
  void AnswerError(relay::Call& call, int status, std::string_view type, std::string_view message,
                   std::string_view failure = {});
  void HealthTold(relay::Call& call, const Status& engine);
  void Ended(relay::Call& call, Job& job);
  // Takes certificates that have changed.
  void LookAtTls();

  // generate.cc: before the legs
  void Generate(relay::Call& call, pd::Api api);
  Status TakeCandidates(const http::RequestView& request, Job& job) const;
  void TakeId(const http::RequestView& request, Job& job) const;
  void StartTrace(relay::Call& call, Job& job);
  void StartScan(relay::Call& call, Job& job);
  void Scanned(relay::Call& call);
  void AddressFound(relay::Call& call, const http::HostPort& name,
                    const StatusOr<relay::Target>& target);

  // prefill.cc
  void StartPrefill(relay::Call& call);
  void SendPrefill(relay::Call& call, const relay::Target& target);
  void PrefillFailed(relay::Call& call, std::string_view outcome, std::string_view what);
  void PrefillAnswered(relay::Call& call, const http::ResponseView& head, std::string_view body);
  // False when `status` is the last word.
  bool TryAgain(relay::Call& call, int status);
  void HandOver(relay::Call& call, std::string_view reply);
  void LogReply(const Job& job, const pd::PrefillReply& reply) const;
  // By policy: without the prefiller, whose last word was `status`. False: the client gets that.
  bool DecodeWithout(relay::Call& call, int status);
  // The traceparent to send with a leg.
  std::string_view BeginLeg(relay::Call& call, std::string_view span, std::string_view prefiller,
                            const relay::Target& target);
  std::shared_ptr<const relay::UpstreamTls> TlsFor(const Peer& peer);
  std::string PrefillUrl(relay::Call& call) const;

  // decode.cc: the engine behind us
  void StartEngine(relay::Call& call);
  void SendToEngine(relay::Call& call, const relay::Target& target);
  void AskHealth(relay::Call& call, const relay::Target& target);
  void EngineFailed(relay::Call& call, relay::Failure failure, std::string_view what);
  void Release(Job& job);

  relay::Loop& loop_;
  const Shared& shared_;
  const Options& options_;
  const Logger& logger_;
  LoopMetrics metrics_;
  services::RequestObserver observer_;
  Peer engine_;
  std::shared_ptr<const relay::UpstreamTls> engine_tls_;
  std::shared_ptr<const http::TlsContext> prefiller_context_;  // of those in the map
  std::map<std::string, std::shared_ptr<const relay::UpstreamTls>, std::less<>> prefiller_tls_;
  Resolver resolver_;
  std::vector<std::unique_ptr<Job>> free_jobs_;
  std::vector<Retained> retained_;
  // Of the first loop: the engine is asked until it has answered once.
  bool watching_ = false, probing_ = false;
  TimePoint probed_{};
};

}  // namespace llmd::sidecar
