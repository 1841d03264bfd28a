#include "llmd/sched/scheduler.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "pass/plugin_guard.h"
#include "pass/scheduling_pass.h"
#include "trace/record.h"

namespace llmd::sched {
namespace {

std::string BodyOf(const RequestSpec& spec) {
  return json::Value(json::Object{{"model", spec.model}, {"prompt", spec.prompt}}).Dump();
}

class SchedulerImpl final : public Scheduler {
 public:
  SchedulerImpl(std::shared_ptr<Graph> graph, SchedulerOptions options,
                std::unique_ptr<FakeClock> still)
      : graph_(std::move(graph)),
        options_(options),
        still_(std::move(still)),
        clock_(options.clock ? *options.clock : *still_) {}

  StatusOr<Decision> Schedule(const RequestSpec& spec,
                              std::span<const EndpointState> endpoints) override {
    std::lock_guard lock(mutex_);
    LLMD_ASSIGN_OR_RETURN(const Snapshot snapshot, SnapshotOf(endpoints));
    auto request = std::make_unique<RequestContext>();
    const std::string body = spec.body.empty() ? BodyOf(spec) : spec.body;
    LLMD_RETURN_IF_ERROR(Fill(spec, body, *request));
    DecisionRecord record;
    request->AllEligible(snapshot.size());
    SchedulingPass pass(*graph_, *request, snapshot, record);
    ScheduleOutcome outcome;
    pass.Produce();
    pass.Schedule(outcome);
    LLMD_RETURN_IF_ERROR(pass.failure());
    Decision out = Result(spec, *request, snapshot, outcome, pass.saturated(), record);
    if (out.ok) {
      const Status status = TellHooks(*request, snapshot, outcome, out.set_headers);
      request->ReleaseBulk();
      kept_[out.id] = std::move(request);
      if (!spec.keep_in_flight || !status.ok()) End(out.id);
      LLMD_RETURN_IF_ERROR(status);
    }
    return out;
  }

  void Finish(uint64_t decision_id) override {
    std::lock_guard lock(mutex_);
    End(decision_id);
  }

  std::vector<std::string> Warnings() const override { return graph_->warnings; }

 private:
  StatusOr<Snapshot> SnapshotOf(std::span<const EndpointState> endpoints) {
    Snapshot snapshot;
    auto set = std::make_shared<EndpointSet>();
    std::set<uint32_t> seen;
    for (const EndpointState& e : endpoints) {
      std::shared_ptr<const EndpointLife>& life = lives_[e.info.FullName()];
      if (!life)
        life = std::make_shared<const EndpointLife>(static_cast<uint32_t>(lives_.size()) - 1);
      if (!seen.insert(life->slot()).second)
        return InvalidArgument("two endpoints are called '" + e.info.FullName() + "'");
      set->Add(std::make_shared<const EndpointInfo>(e.info), life);
      auto metrics = std::make_shared<EndpointMetrics>(e.metrics);
      LLMD_RETURN_IF_ERROR(graph_->SetAttributes(e, *metrics));
      snapshot.Add(std::move(metrics));
    }
    snapshot.set = std::move(set);
    return snapshot;
  }

  Status Fill(const RequestSpec& spec, std::string_view body, RequestContext& request) {
    request.Reset(graph_->attribute_count);
    request.id = ++last_id_;
    request.request_id =
        spec.request_id.empty() ? "decision-" + std::to_string(last_id_) : spec.request_id;
    request.path = spec.path;
    request.headers = &spec.headers;
    request.body = body;
    request.priority = spec.priority;
    request.received = clock_.Now();
    request.received_unix_nanos = clock_.UnixNanos();
    request.random = options_.seed ^ (last_id_ * 0x9e3779b97f4a7c15);
    Parser* parser = graph_->FindParser(request.path);
    if (parser == nullptr)
      return InvalidArgument("no parser takes the path '" + request.path + "'");
    Status parsed;
    Guarded(
        *parser, [&] { parsed = parser->Parse(request); },
        [&](Status s) { parsed = std::move(s); });
    LLMD_RETURN_IF_ERROR(parsed);
    request.target_model = request.model;
    return OkStatus();
  }

  // The first failure.
  Status TellHooks(RequestContext& request, const Snapshot& snapshot,
                   const ScheduleOutcome& outcome, HeaderList& headers) const {
    Status first;
    OpenCharges(request, snapshot, outcome);
    for (PreRequestHook* hook : graph_->pre_request) {
      Guarded(
          *hook, [&] { hook->PreRequest(request, snapshot, outcome, headers); },
          [&](Status s) {
            if (first.ok()) first = std::move(s);
          });
    }
    return first;
  }

  Decision Result(const RequestSpec& spec, const RequestContext& request, const Snapshot& snapshot,
                  const ScheduleOutcome& outcome, bool saturated, DecisionRecord& record) const {
    Decision out;
    out.ok = !outcome.primary.empty();
    out.id = request.id;
    out.decision_type = outcome.decision_type;
    if (!out.ok) {
      out.denied_status = outcome.error_status ? outcome.error_status : saturated ? 429 : 503;
      out.denied_reason = out.denied_status == 429 ? "rejected-saturated" : "rejected-no-endpoints";
    }
    for (uint32_t e : outcome.primary) {
      out.picked.push_back(
          {snapshot.set->names[e], snapshot.set->host_ports[e], TotalOf(record, outcome, e)});
    }
    if (!outcome.prefill.empty()) out.prefill = snapshot.set->names[outcome.prefill[0]];
    record.names = graph_->names;
    record.SetEndpoints(snapshot, clock_.Now());
    record.id = request.id;
    record.request_id = request.request_id;
    record.model = request.target_model;
    record.unix_nanos = request.received_unix_nanos;
    record.denied_status = out.denied_status;
    record.denied_reason = out.denied_reason;
    out.trace = record.ToTrace();
    return out;
  }

  static double TotalOf(const DecisionRecord& record, const ScheduleOutcome& outcome,
                        uint32_t endpoint) {
    for (size_t p = 0; p < record.profile_count; ++p) {
      const ProfileRecord& profile = record.profiles[p];
      if (profile.profile != outcome.primary_profile) continue;
      for (size_t i = 0; i < profile.candidates.size(); ++i) {
        if (profile.candidates[i] == endpoint && i < profile.totals.size())
          return profile.totals[i];
      }
    }
    return 0;
  }

  void End(uint64_t id) {
    const auto it = kept_.find(id);
    if (it == kept_.end()) return;
    ResponseInfo info;
    for (ResponseHook* hook : graph_->response) {
      Guarded(*hook, [&] { hook->OnEnd(*it->second, info); }, [](const Status&) {});
    }
    it->second->charges.End();
    kept_.erase(it);
  }

  const std::shared_ptr<Graph> graph_;
  const SchedulerOptions options_;
  const std::unique_ptr<FakeClock> still_;
  const Clock& clock_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const EndpointLife>>
      lives_;                                                 // by ns/name; guarded by mutex_
  std::map<uint64_t, std::unique_ptr<RequestContext>> kept_;  // guarded by mutex_
  uint64_t last_id_ = 0;                                      // guarded by mutex_
};

}  // namespace

StatusOr<std::unique_ptr<Scheduler>> Scheduler::FromYaml(std::string_view yaml,
                                                         SchedulerOptions options) {
  auto still = std::make_unique<FakeClock>();
  LoadOptions load;
  load.registry = options.registry;
  load.clock = options.clock ? options.clock : still.get();
  load.allow_experimental = options.allow_experimental;
  LLMD_ASSIGN_OR_RETURN(std::shared_ptr<Graph> graph, LoadGraph(yaml, load));
  return std::unique_ptr<Scheduler>(
      std::make_unique<SchedulerImpl>(std::move(graph), options, std::move(still)));
}

}  // namespace llmd::sched
