// The gateway with a picker of its own (`--epp`): what is shared by all loops, and the policy of
// each. A request asks the picker over ext_proc where it goes and shows it the answer, as Envoy
// does (docs/wire/ext-proc.md); what happens when the picker fails is in ext_proc_call.h.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gateway/ext_proc_call.h"
#include "gateway/ext_proc_credentials.h"
#include "gateway/ext_proc_endpoints.h"
#include "llmd/http/relay/policy.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/status.h"

namespace llmd::gateway {

struct ExtProcOptions {
  PickerAddress address;
  // A picker that owes something and gives no sign of life for so long, asked for one, is lost.
  // Answers under way get kAnswerPatience times that.
  Duration timeout = std::chrono::milliseconds(200);
  // How long a picker that lives may keep a request before it says where it goes: the longest TTL
  // of its queues, and a little more.
  Duration queue_timeout = std::chrono::seconds(65);
  // Without a picker requests go to the known endpoints in turn, instead of being refused with 503.
  bool open = false;
  std::vector<std::string> endpoints;  // "ip:port", known from the start
  int max_attempts = 3;
  Duration first_byte_timeout = std::chrono::seconds(600);
  Duration ejection = std::chrono::seconds(2);

  static constexpr int kAnswerPatience = 5;
  // For the head of an answer and its end, of a picker that lives.
  static constexpr Duration kAnswerLimit = std::chrono::seconds(30);
};

struct ExtProcMetrics {
  explicit ExtProcMetrics(MetricsRegistry& registry);
  Counter& Requests(int status);

  MetricsRegistry& registry;
  Gauge& inflight;
  Counter &retries, &panics, &upstream_cut, &client_gone, &lost, &alone;
  Histogram &duration, &first_byte, &asking;
};

// One loop's.
class ExtProcPolicy final : public relay::Policy {
 public:
  // `ready`: what /ready says. All that is passed in must outlive it.
  ExtProcPolicy(PickerClient& client, const ExtProcOptions& options, ExtProcMetrics& metrics,
                Logger logger, TimePoint now, std::function<bool()> ready);

  void OnHead(relay::Call& call) override;
  void OnRequest(relay::Call& call) override;
  void OnRefused(relay::Call& call, const relay::Refusal& refusal) override;
  void OnFailure(relay::Call& call, relay::Failure failure, std::string_view what) override;
  void OnResponseHead(relay::Call& call, const http::ResponseView& head) override;
  relay::Piece OnResponseBytes(relay::Call& call, std::string_view piece, bool end) override;
  std::string_view OnCut(relay::Call& call, relay::Failure failure, std::string_view what) override;
  void OnTimer(relay::Call& call) override;
  void OnEnd(relay::Call& call, const relay::Outcome& outcome) override;
  void OnTick() override;

  // For its calls.
  PickerClient& client() { return client_; }
  const ExtProcOptions& options() const { return options_; }
  ExtProcMetrics& metrics() { return metrics_; }
  EndpointBook& book() { return book_; }
  const Logger& logger() const { return logger_; }
  // The picker is known to give no sign of life.
  bool PickerIsLost(TimePoint now) const;

 private:
  ExtProcCall& Of(relay::Call& call) { return *static_cast<ExtProcCall*>(call.context); }
  void Log(const relay::Call& call, const relay::Outcome& outcome);

  PickerClient& client_;
  const ExtProcOptions& options_;
  ExtProcMetrics& metrics_;
  Logger logger_;
  EndpointBook book_;
  const std::function<bool()> ready_;
  std::vector<std::unique_ptr<ExtProcCall>> spare_;
};

// An OpenAI error object.
std::string ErrorBody(int status, std::string_view message);

// The connections to the picker, one a loop.
class ExtProcFront {
 public:
  // INVALID_ARGUMENT for an endpoint that is no "ip:port". `metrics` must outlive it.
  static StatusOr<std::unique_ptr<ExtProcFront>> Create(ExtProcOptions options, Logger logger,
                                                        MetricsRegistry& metrics);
  ~ExtProcFront();
  // For each loop of the relay.
  std::unique_ptr<relay::Policy> MakePolicy(relay::Loop& loop);
  bool ready() const;
  const std::string& target() const { return options_.address.target; }
  // After the relay has stopped, before it is destroyed.
  void Stop();

 private:
  ExtProcFront(ExtProcOptions options, Logger logger, MetricsRegistry& metrics);

  const ExtProcOptions options_;
  Logger logger_;
  ExtProcMetrics metrics_;
  std::shared_ptr<grpc::ChannelCredentials> credentials_;
  std::vector<std::unique_ptr<GrpcPickerClient>> clients_;
};

}  // namespace llmd::gateway
