#include "decision_log/director_run.h"

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "decision_log/config.h"
#include "decision_log/world.h"
#include "llmd/sched/decision_log.h"
#include "llmd/sched/director.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kReloadEvery = 150;  // requests

// Two configurations that a run goes to and fro between.
std::string ConfigOf(bool second) {
  std::string out(kDecisionLogConfig);
  const size_t profiles = out.find("schedulingProfiles:");
  std::string more =
      "- {type: burst-prefix-cache-producer, parameters: {windowDurationMs: 40}}\n"
      "- {name: burst-scorer, type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: "
      "burst-prefix-cache-producer}}\n"
      "- {type: virtual-token-counter-fairness-policy, parameters: {weights: {flow-0: 4, flow-1: "
      "2}}}\n";
  more += second ? "- {type: concurrency-detector, parameters: {maxConcurrency: 6}}\n"
                 : "- {type: concurrency-detector, parameters: {maxConcurrency: 9}}\n";
  out.insert(profiles, more);
  out += second ? "  - {pluginRef: burst-scorer, weight: 0.7}\n"
                : "  - {pluginRef: burst-scorer, weight: 1.3}\n";
  return out +
         "featureGates: [flowControl]\n"
         "dataLayer: {injectDefaults: false}\n"
         "flowControl:\n"
         "  saturationDetector: {pluginRef: concurrency-detector}\n"
         "  defaultRequestTTL: 900ms\n"
         "  maxRequests: \"60\"\n"
         "  defaultPriorityBand: {fairnessPolicyRef: virtual-token-counter-fairness-policy}\n";
}

class DirectorRun {
 public:
  explicit DirectorRun(uint64_t seed) : seed_(seed), world_(seed) {}

  Status Run(uint64_t requests) {
    DirectorOptions options;
    options.config_yaml = ConfigOf(false);
    options.manual = true;
    options.seed = seed_;
    options.decision_ring = 16;
    options.metrics_staleness = milliseconds(700);
    LLMD_ASSIGN_OR_RETURN(director_,
                          Director::Create(options, nullptr, Logger(), metrics_, world_.clock()));
    LLMD_RETURN_IF_ERROR(TellMembers());
    for (uint64_t i = 1; i <= requests; ++i) {
      Until(world_.clock().Now() + world_.Gap());
      world_.Change();
      LLMD_RETURN_IF_ERROR(TellChange());
      if (i % kReloadEvery == 0)
        LLMD_RETURN_IF_ERROR(director_->Reload(ConfigOf((i / kReloadEvery) % 2 == 1)));
      Ask(i);
    }
    while (answered_ < requests) Until(world_.clock().Now() + milliseconds(100));
    while (!open_.empty()) EndFirst();
    director_->Stop();
    return OkStatus();
  }

 private:
  struct Question {
    HeaderList headers;
    std::string body;
    std::shared_ptr<RequestState> state;
  };
  // When an answer ends, and in which order those of one moment do.
  using At = std::pair<TimePoint, uint64_t>;

  Status TellMembers() {
    std::vector<EndpointInfo> infos;
    for (const EndpointState& e : world_.endpoints()) infos.push_back(e.info);
    LLMD_RETURN_IF_ERROR(director_->SetEndpoints(std::move(infos)));
    for (size_t i = 0; i < world_.endpoints().size(); ++i) LLMD_RETURN_IF_ERROR(TellGauges(i));
    return OkStatus();
  }
  Status TellGauges(size_t i) {
    const EndpointState& e = world_.endpoints()[i];
    return director_->SetMetrics(e.info.FullName(), e.metrics);
  }
  Status TellChange() {
    if (world_.members_changed()) LLMD_RETURN_IF_ERROR(TellMembers());
    for (const size_t i : world_.gauged()) LLMD_RETURN_IF_ERROR(TellGauges(i));
    return OkStatus();
  }

  // Lets time pass, with all that is due on the way.
  void Until(TimePoint end) {
    FakeClock& clock = world_.clock();
    for (;;) {
      const TimePoint due = director_->Tick(clock.Now());
      const TimePoint ends = open_.empty() ? TimePoint::max() : open_.begin()->first.first;
      const TimePoint next = std::min(due, ends);
      if (next > end) break;
      clock.Advance(std::max(next - clock.Now(), Duration::zero()));
      if (ends <= clock.Now()) EndFirst();
    }
    clock.Advance(end - clock.Now());
    director_->Tick(clock.Now());
  }

  void EndFirst() {
    const std::shared_ptr<RequestState> state = open_.begin()->second;
    open_.erase(open_.begin());
    if (world_.Below(10) == 0) return director_->Cancel(state);
    const uint64_t prompt = world_.Below(600), completion = 1 + world_.Below(300);
    std::string none;
    director_->OnResponseHeaders(state, 200, {});
    director_->OnResponseBody(state, "{", false, &none);
    director_->OnResponseBody(state,
                              "\"usage\":{\"prompt_tokens\":" + std::to_string(prompt) +
                                  ",\"completion_tokens\":" + std::to_string(completion) + "}}",
                              true, &none);
  }

  void Ask(uint64_t number) {
    const RequestSpec spec = world_.Request();
    const auto question = std::make_shared<Question>();
    question->body = json::Value(json::Object{{"model", spec.model},
                                              {"prompt", spec.prompt},
                                              {"max_tokens", int64_t{64}}})
                         .Dump();
    question->headers = spec.headers;
    question->headers.emplace_back(":path", "/v1/completions");
    question->headers.emplace_back("x-llm-d-inference-fairness-id",
                                   "flow-" + std::to_string(world_.Below(4)));
    if (world_.Below(6) == 0)
      question->headers.emplace_back("x-llm-d-inference-ttl",
                                     std::to_string(1 + world_.Below(500)) + "ms");
    const auto taken = Duration(milliseconds(20 + world_.Below(1500)));
    const bool leaves = world_.Below(25) == 0;  // before it is answered, where it waits
    RequestInput input;
    input.headers = &question->headers;
    input.body = question->body;
    input.state = &question->state;
    Routing routing;
    const bool now =
        director_->RouteNow(std::move(input), routing, [this, question, number, taken](Routing r) {
          question->state.reset();
          Answered(number, taken, r);
        });
    if (now) {
      question->state.reset();
      return Answered(number, taken, routing);
    }
    if (leaves) director_->Cancel(std::shared_ptr<RequestState>(question->state));
  }

  void Answered(uint64_t number, Duration taken, const Routing& routing) {
    ++answered_;
    json::Value line = Trace(routing);
    line.Set("request", static_cast<int64_t>(number));
    line.Set("at_ns", world_.clock().Now().time_since_epoch().count());
    json::Object headers;
    for (const auto& [name, value] : routing.ok ? routing.set_headers : routing.denial.headers)
      headers.emplace_back(name, value);
    line.Set("headers", std::move(headers));
    if (routing.ok) {
      open_.emplace(At(world_.clock().Now() + taken, number), routing.state);
    } else {
      line.Set("message", routing.denial.message);
      line.Set("retry_after_s", int64_t{routing.denial.retry_after_s});
    }
    std::puts(line.Dump().c_str());
  }

  json::Value Trace(const Routing& routing) const {
    if (routing.trace) return ToLogJson(*routing.trace);
    const StatusOr<std::string> text = director_->Explain(routing.request_id);
    if (!text.ok()) return json::Object{{"error", text.status().message()}};
    const StatusOr<json::Value> value = json::Parse(*text);
    if (!value.ok()) return json::Object{{"error", value.status().message()}};
    const StatusOr<DecisionTrace> trace = DecisionFromJson(*value);
    if (!trace.ok()) return json::Object{{"error", trace.status().message()}};
    return ToLogJson(*trace);
  }

  const uint64_t seed_;
  World world_;
  MetricsRegistry metrics_;
  std::unique_ptr<Director> director_;
  std::map<At, std::shared_ptr<RequestState>> open_;  // goes before the director
  uint64_t answered_ = 0;
};

}  // namespace

Status RunDirector(uint64_t seed, uint64_t requests) {
  return DirectorRun(seed).Run(requests);
}

}  // namespace llmd::sched
