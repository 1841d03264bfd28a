#include "llmd/sched/scheduler.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "pass/body_shape.h"
#include "pass/plugin_guard.h"
#include "pass/prepared_set.h"
#include "pass/record_pool.h"
#include "pass/scheduling_pass.h"
#include "trace/record.h"

namespace llmd::sched {
namespace {

constexpr std::string_view kFirstGuess = "/v1/completions";
constexpr size_t kFreeRequests = 64;

std::string BodyOf(const RequestSpec& spec) {
  return json::Value(json::Object{{"model", spec.model}, {"prompt", spec.prompt}}).Dump();
}

// A request on its way, and the endpoint its answer comes from.
struct Placed {
  RequestContext context;
  std::shared_ptr<const EndpointInfo> endpoint;
  Logger log;
  bool answering = false;
};

double TotalOf(const DecisionRecord& record, const ScheduleOutcome& outcome, uint32_t endpoint) {
  double total = 0;  // of the last run of the profile that had the endpoint
  for (size_t p = 0; p < record.profile_count; ++p) {
    const ProfileRecord& profile = record.profiles[p];
    if (profile.profile != outcome.primary_profile) continue;
    const auto at = std::find(profile.candidates.begin(), profile.candidates.end(), endpoint);
    const auto i = static_cast<size_t>(at - profile.candidates.begin());
    if (at != profile.candidates.end() && i < profile.totals.size()) total = profile.totals[i];
  }
  return total;
}

class SchedulerImpl final : public Scheduler {
 public:
  SchedulerImpl(std::shared_ptr<Graph> graph, SchedulerOptions options,
                std::unique_ptr<FakeClock> still)
      : graph_(std::move(graph)),
        options_(std::move(options)),
        still_(std::move(still)),
        clock_(options_.clock ? *options_.clock : *still_) {}

  StatusOr<std::unique_ptr<PreparedSet>> Prepare(
      std::span<const EndpointState> endpoints) override {
    const std::lock_guard lock(mutex_);
    LLMD_ASSIGN_OR_RETURN(auto set, PreparedSetImpl::Create(graph_, this, endpoints, lives_));
    return std::unique_ptr<PreparedSet>(std::move(set));
  }

  StatusOr<Decision> Schedule(const RequestSpec& spec, const PreparedSet& set) override {
    const auto* own = dynamic_cast<const PreparedSetImpl*>(&set);
    if (own == nullptr || own->owner() != this)
      return InvalidArgument("the prepared set is another scheduler's");
    const std::lock_guard lock(mutex_);
    return Decide(spec, own->snapshot());
  }

  StatusOr<Decision> Schedule(const RequestSpec& spec,
                              std::span<const EndpointState> endpoints) override {
    const std::lock_guard lock(mutex_);
    if (last_set_ == nullptr || !last_set_->Holds(endpoints)) {
      LLMD_ASSIGN_OR_RETURN(last_set_, PreparedSetImpl::Create(graph_, this, endpoints, lives_));
    } else if (Status status = last_set_->Update(endpoints); !status.ok()) {
      last_set_.reset();
      return status;
    }
    return Decide(spec, last_set_->snapshot());
  }

  StatusOr<HeaderList> FirstToken(uint64_t id) override {
    const std::lock_guard lock(mutex_);
    const auto it = placed_.find(id);
    HeaderList headers;
    if (it == placed_.end()) return headers;
    LLMD_RETURN_IF_ERROR(Begin(*it->second, headers));
    return headers;
  }

  Status End(uint64_t id, const AnswerEnd& end) override {
    const std::lock_guard lock(mutex_);
    const auto it = placed_.find(id);
    if (it == placed_.end()) return OkStatus();
    std::unique_ptr<Placed> request = std::move(it->second);
    placed_.erase(it);
    Status status = EndNow(*request, end);
    Release(std::move(request));
    return status;
  }

  std::vector<std::string> Warnings() const override { return graph_->warnings; }

 private:
  // With mutex_ held, as all below.
  StatusOr<Decision> Decide(const RequestSpec& spec, const Snapshot& snapshot) {
    std::unique_ptr<Placed> request = NewRequest();
    std::string made;
    if (spec.body.empty()) made = BodyOf(spec);
    Status status = Fill(spec, spec.body.empty() ? made : spec.body, *request);
    if (!status.ok()) {
      Release(std::move(request));
      return status;
    }
    request->context.AllEligible(snapshot.size());
    StatusOr<Decision> decision = Run(spec, *request, snapshot);
    if (decision.ok() && decision->ok && spec.keep_in_flight) {
      placed_[decision->id] = std::move(request);
    } else {
      Release(std::move(request));
    }
    return decision;
  }

  StatusOr<Decision> Run(const RequestSpec& spec, Placed& placed, const Snapshot& snapshot) {
    RequestContext& request = placed.context;
    std::shared_ptr<DecisionRecord> kept;
    if (spec.recording == Recording::kRecord) kept = records_.Take();
    DecisionRecord& record = kept ? *kept : record_;
    record.Reset();
    SchedulingPass pass(*graph_, request, snapshot, record);
    pass.Produce();
    pass.Schedule(outcome_);
    LLMD_RETURN_IF_ERROR(pass.failure());
    Decision out = Result(request, snapshot, pass.saturated(), record);
    if (spec.recording != Recording::kNone) Describe(request, snapshot, out, record);
    if (spec.recording == Recording::kTrace) out.trace = record.ToTrace();
    if (out.ok) {
      placed.endpoint = snapshot.set->infos[outcome_.primary[0]];
      const Status status = TellHooks(request, snapshot, out.set_headers);
      request.ReleaseBulk();
      if (!spec.keep_in_flight || !status.ok())
        static_cast<void>(EndNow(placed, {.usage = {}, .aborted = false, .status = 0}));
      LLMD_RETURN_IF_ERROR(status);
    }
    out.record = std::move(kept);
    return out;
  }

  Status Fill(const RequestSpec& spec, std::string_view body, Placed& placed) {
    RequestContext& request = placed.context;
    request.Reset(graph_->attribute_count);
    request.id = ++last_id_;
    if (spec.request_id.empty()) {
      request.request_id = "decision-";
      request.request_id += std::to_string(last_id_);
    } else {
      request.request_id = spec.request_id;
    }
    if (options_.logger.Enabled(LogLevel::kDebug)) {
      placed.log = options_.logger.With("x-request-id", request.request_id);
      request.log = &placed.log;
    }
    request.headers = &spec.headers;
    request.body = body;
    request.priority = spec.priority;
    request.received = clock_.Now();
    request.received_unix_nanos = clock_.UnixNanos();
    request.random = options_.seed ^ (last_id_ * 0x9e3779b97f4a7c15);
    const std::string_view path = std::string_view(spec.path).substr(0, spec.path.find('?'));
    LLMD_RETURN_IF_ERROR(path.empty() ? ParseByShape(request) : Parse(path, request));
    request.target_model = request.model;
    return OkStatus();
  }

  Status Parse(std::string_view path, RequestContext& request) {
    request.path = path;
    LLMD_ASSIGN_OR_RETURN(Parser * parser, ParserOf(path));
    Status parsed;
    Guarded(
        *parser, [&] { parsed = parser->Parse(request); },
        [&](Status s) { parsed = std::move(s); });
    return parsed;
  }

  // Bodies of one run are mostly of one shape: the last one is tried first.
  Status ParseByShape(RequestContext& request) {
    LLMD_RETURN_IF_ERROR(Parse(guess_, request));
    const std::string_view path = PathOfShape(request);
    if (path.empty()) {
      return InvalidArgument(
          "the body has none of messages, prompt and input: say with `path` what it is");
    }
    if (path == guess_) return OkStatus();
    guess_ = path;
    request.api = Api::kNone;
    return Parse(path, request);
  }

  StatusOr<Parser*> ParserOf(std::string_view path) {
    if (last_parser_ != nullptr && last_path_ == path) return last_parser_;
    Parser* parser = graph_->FindParser(path);
    const bool read = parser != nullptr && !parser->PathSuffixes().empty();
    // A fallback that stands alone was configured; beside others it is there so that a proxy lets
    // everything pass.
    if (!read && (parser == nullptr || graph_->parsers.size() > 1)) return UnknownPath(path);
    last_path_ = path;
    last_parser_ = parser;
    return parser;
  }

  Status UnknownPath(std::string_view path) const {
    std::string known;
    for (const Parser* parser : graph_->parsers) {
      for (const std::string_view suffix : parser->PathSuffixes())
        known += (known.empty() ? "" : ", ") + std::string(suffix);
    }
    return InvalidArgument("no parser takes the path '" + std::string(path) +
                           "'; known endings: " + known);
  }

  // The first failure.
  Status TellHooks(RequestContext& request, const Snapshot& snapshot, HeaderList& headers) const {
    Status first;
    OpenCharges(request, snapshot, outcome_);
    for (PreRequestHook* hook : graph_->pre_request)
      Call(*hook, first, [&] { hook->PreRequest(request, snapshot, outcome_, headers); });
    return first;
  }

  Status Begin(Placed& request, HeaderList& headers) const {
    Status first;
    if (std::exchange(request.answering, true)) return first;
    ResponseInfo info;
    const HeaderList none;
    info.status = 200;
    info.headers = &none;
    info.endpoint = request.endpoint.get();
    for (ResponseHook* hook : graph_->response)
      Call(*hook, first, [&] { hook->OnHeaders(request.context, info, headers); });
    for (ResponseHook* hook : graph_->response)
      Call(*hook, first, [&] { hook->OnFirstChunk(request.context, info); });
    request.context.charges.FirstChunk();
    return first;
  }

  Status EndNow(Placed& request, const AnswerEnd& end) const {
    ResponseInfo info;
    info.status = end.status;
    info.usage = end.usage;
    info.aborted = end.aborted;
    info.endpoint = request.endpoint.get();
    Status first;
    for (ResponseHook* hook : graph_->response)
      Call(*hook, first, [&] { hook->OnEnd(request.context, info); });
    request.context.charges.End();
    return first;
  }

  template <typename F>
  static void Call(const Plugin& plugin, Status& first, const F& call) {
    Guarded(plugin, call, [&](Status s) {
      if (first.ok()) first = std::move(s);
    });
  }

  Decision Result(const RequestContext& request, const Snapshot& snapshot, bool saturated,
                  const DecisionRecord& record) const {
    Decision out;
    out.ok = !outcome_.primary.empty();
    out.id = request.id;
    out.decision_type = outcome_.decision_type;
    if (!out.ok) {
      out.denied_status = outcome_.error_status ? outcome_.error_status : saturated ? 429 : 503;
      out.denied_reason = out.denied_status == 429 ? "rejected-saturated" : "rejected-no-endpoints";
    }
    out.picked.reserve(outcome_.primary.size());
    for (uint32_t e : outcome_.primary) {
      out.picked.push_back(
          {snapshot.set->names[e], snapshot.set->host_ports[e], TotalOf(record, outcome_, e), e});
    }
    if (!outcome_.prefill.empty()) {
      out.prefill = snapshot.set->names[outcome_.prefill[0]];
      out.prefill_index = static_cast<int>(outcome_.prefill[0]);
    }
    return out;
  }

  void Describe(const RequestContext& request, const Snapshot& snapshot, const Decision& decision,
                DecisionRecord& record) const {
    record.names = graph_->names;
    record.SetEndpoints(snapshot, clock_.Now());
    record.id = request.id;
    record.request_id = request.request_id;
    record.model = request.target_model;
    record.unix_nanos = request.received_unix_nanos;
    record.denied_status = decision.denied_status;
    record.denied_reason = decision.denied_reason;
  }

  std::unique_ptr<Placed> NewRequest() {
    if (free_.empty()) return std::make_unique<Placed>();
    std::unique_ptr<Placed> out = std::move(free_.back());
    free_.pop_back();
    return out;
  }

  void Release(std::unique_ptr<Placed> request) {
    if (free_.size() >= kFreeRequests) return;
    request->context.ReleaseBulk();
    request->endpoint.reset();
    request->answering = false;
    free_.push_back(std::move(request));
  }

  const std::shared_ptr<Graph> graph_;
  const SchedulerOptions options_;
  const std::unique_ptr<FakeClock> still_;
  const Clock& clock_;
  RecordPool records_;
  std::mutex mutex_;  // guards what follows
  LifeTable lives_;
  std::unordered_map<uint64_t, std::unique_ptr<Placed>> placed_;  // kept in flight
  std::vector<std::unique_ptr<Placed>> free_;
  std::unique_ptr<PreparedSetImpl> last_set_;  // of calls with a list
  DecisionRecord record_;
  ScheduleOutcome outcome_;
  std::string_view guess_ = kFirstGuess;  // a literal
  std::string last_path_;
  Parser* last_parser_ = nullptr;
  uint64_t last_id_ = 0;
};

}  // namespace

DecisionTrace Decision::Trace() const {
  return record ? record->ToTrace() : trace;
}

StatusOr<std::unique_ptr<Scheduler>> Scheduler::FromYaml(std::string_view yaml,
                                                         SchedulerOptions options) {
  auto still = std::make_unique<FakeClock>();
  LoadOptions load;
  load.registry = options.registry;
  load.clock = options.clock ? options.clock : still.get();
  load.allow_experimental = options.allow_experimental;
  load.logger = options.logger;
  LLMD_ASSIGN_OR_RETURN(std::shared_ptr<Graph> graph, LoadGraph(yaml, load));
  return std::unique_ptr<Scheduler>(
      std::make_unique<SchedulerImpl>(std::move(graph), std::move(options), std::move(still)));
}

}  // namespace llmd::sched
