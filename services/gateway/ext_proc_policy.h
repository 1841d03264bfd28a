// The gateway with a picker of its own (`--epp`), for one loop. A request asks the picker over
// ext_proc where it goes and shows it the answer, as Envoy does (docs/wire/ext-proc.md); what
// happens when the picker fails is in ext_proc_call.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gateway/ext_proc_call.h"
#include "gateway/ext_proc_endpoints.h"
#include "gateway/ext_proc_options.h"
#include "gateway/policy_base.h"
#include "llmd/metrics.h"

namespace llmd::gateway {

struct ExtProcMetrics {
  explicit ExtProcMetrics(MetricsRegistry& registry);
  void Asked(Duration waited);

  Counter &lost, &alone;
  Histogram& asking;
};

// All loops' settings; outlives the policies.
struct ExtProcParts {
  const ExtProcOptions options;
  ExtProcMetrics metrics;
};

class ExtProcPolicy final : public PolicyBase {
 public:
  // All that is passed in must outlive it.
  ExtProcPolicy(const PolicyParts& parts, ExtProcParts& own, PickerClient& client,
                relay::Loop& loop);

  void OnResponseHead(relay::Call& call, const http::ResponseView& head) override;
  relay::Piece OnResponseBytes(relay::Call& call, std::string_view piece, bool end) override;
  void OnTimer(relay::Call& call) override;
  void OnTick() override;

  // For its calls.
  PickerClient& client() { return client_; }
  const ExtProcOptions& options() const { return own_.options; }
  const ExtProcParts& own() const { return own_; }
  ExtProcMetrics& metrics() { return own_.metrics; }
  EndpointBook& book() { return book_; }
  // The keys of the endpoints that are out, in order.
  const std::vector<Key>& Ejected();
  bool IsEjected(const relay::Target& target);
  // The picker is known to give no sign of life.
  bool PickerIsLost(TimePoint now) const;

 protected:
  Request& Take() override;
  void Give(Request& request) override;
  void Serve(relay::Call& call, Request& request) override;
  void LegFailed(relay::Call& call, Request& request, relay::Failure failure,
                 std::string_view what) override;
  void SetAside(relay::Call& call, Request& request) override;
  bool Ended(relay::Call& call, Request& request, const relay::Outcome& outcome) override;
  Key Answering(const Request& request, relay::Target* target) const override;

 private:
  static ExtProcCall& Mine(relay::Call& call) { return static_cast<ExtProcCall&>(Of(call)); }

  ExtProcParts& own_;
  PickerClient& client_;
  EndpointBook book_;
  uint64_t ejected_version_ = 0;
  std::shared_ptr<const std::vector<Key>> ejected_;
  std::vector<std::unique_ptr<ExtProcCall>> calls_;
  std::vector<ExtProcCall*> free_;
};

}  // namespace llmd::gateway
