#include <algorithm>
#include <charconv>
#include <cmath>

#include "director/body_edits.h"
#include "director/conditional.h"
#include "director/decision_scratch.h"
#include "director/impl.h"
#include "llmd/config.h"
#include "llmd/trace.h"
#include "llmd/uuid.h"
#include "pass/scheduling_pass.h"
#include "pass/stopwatch.h"
#include "trace/schedule_log.h"

namespace llmd::sched {
namespace {

double Millis(std::string_view text) {
  double v = -1;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  return ec == std::errc() && end == text.data() + text.size() && v >= 0 ? v : -1;
}

Duration SaturatingMillis(double ms, Duration most) {
  return ms * 1e6 < static_cast<double>(most.count()) ? Duration(static_cast<int64_t>(ms * 1e6))
                                                      : most;
}

std::string_view PathOf(const RequestContext& request) {
  for (const char* name : {":path", "x-original-path", "x-forwarded-path"}) {
    if (const std::string_view path = request.Header(name); !path.empty()) {
      return path.substr(0, path.find('?'));
    }
  }
  return "/v1/completions";
}

// "ip:port" entries must match exactly; a bare address matches every port of it. One string may
// hold several, comma separated.
bool InSubset(const std::vector<std::string>& subset, const std::string& host_port,
              const std::string& address) {
  for (const std::string& entry : subset) {
    std::string_view rest = entry;
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      std::string_view one = rest.substr(0, comma);
      while (one.starts_with(' ')) one.remove_prefix(1);
      while (one.ends_with(' ')) one.remove_suffix(1);
      if (!one.empty() && (one == host_port || one == address)) return true;
      rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    }
  }
  return false;
}

// The client's own TTL in the queue; zero = none.
StatusOr<Duration> OwnTtl(std::string_view text) {
  if (text.empty()) return Duration::zero();
  const StatusOr<Duration> ttl = config::ParseGoDuration(text);
  if (ttl.ok() && *ttl > Duration::zero()) return *ttl;
  return InvalidArgument("header x-llm-d-inference-ttl: expected a Go duration above 0, got '" +
                         std::string(text) + "'");
}

// How long a queued request waited, for the client.
HeaderList QueueHeaders(const FlowResult& result) {
  HeaderList out;
  if (result.reason.empty()) return out;
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(result.waited);
  out.emplace_back("x-llm-d-queue-time-ms", std::to_string(ms.count()));
  out.emplace_back("x-llm-d-queue-reason", result.reason);
  return out;
}

// The request may be answered in the call, while this stands.
class AnswerHere {
 public:
  AnswerHere(RequestState& q, InCall& call) : q_(q) { q_.SetInCall(&call); }
  ~AnswerHere() { q_.SetInCall(nullptr); }
  AnswerHere(const AnswerHere&) = delete;
  AnswerHere& operator=(const AnswerHere&) = delete;

 private:
  RequestState& q_;
};

constexpr std::string_view kCancelled = "rejected-context-cancelled";
constexpr std::string_view kNoEndpoints = "rejected-no-endpoints";
constexpr std::string_view kNotInSubset = "no endpoint is in the requested subset";
constexpr std::string_view kSaturated = "rejected-saturated";

}  // namespace

void DirectorImpl::Route(RequestInput input, std::function<void(Routing)> done) {
  Begin(Receive(std::move(input), std::move(done)));
}

bool DirectorImpl::RouteNow(RequestInput input, Routing& routing,
                            std::function<void(Routing)> later) {
  routing.Clear();
  InCall in_call{.routing = &routing, .thread = std::this_thread::get_id()};
  const std::shared_ptr<RequestState> q = Receive(std::move(input), std::move(later));
  {
    const AnswerHere here(*q, in_call);
    Begin(q);
  }
  return in_call.answered;
}

std::shared_ptr<RequestState> DirectorImpl::Receive(RequestInput input,
                                                    std::function<void(Routing)> done) {
  std::shared_ptr<RequestState> q = requests_->Take();
  q->input = std::move(input);
  if (q->input.headers == nullptr) q->input.headers = &kNoHeaders;
  q->done = std::move(done);
  q->setup = setup_.Load();
  q->graph = q->parsed_under = q->setup->graph;
  q->clock = &clock_;
  q->logger = &logger_;
  q->failures = &failures_;
  q->director = this;
  q->evicted = std::move(q->input.evicted);
  q->revocable = q->evicted != nullptr;
  RequestContext& request = q->context;
  request.Reset(q->setup->graph->attribute_count);
  request.id = next_id_.fetch_add(1, std::memory_order_relaxed);
  request.headers = q->input.headers;
  request.body = q->input.body;
  request.has_body = q->input.has_body;
  request.received = clock_.Now();
  if (q->input.first_received != TimePoint())
    request.received = std::min(request.received, q->input.first_received);
  request.received_unix_nanos = clock_.UnixNanos();
  request.random = seed_ ^ (request.id * 0x9e3779b97f4a7c15);
  if (const std::string_view id = request.Header("x-request-id"); id.size() > kMaxRequestIdBytes) {
    request.request_id = BoundedName(id, kMaxRequestIdBytes);
  } else {
    request.request_id.assign(id);
  }
  uint64_t ids = ~request.random;  // so that decisions are the same whoever names the request
  if (request.request_id.empty()) {
    const uint64_t high = NextRandom(ids);
    AssignUuid(request.request_id, high, NextRandom(ids));
  }
  Trace(*q, ids);
  if (logger_.Enabled(LogLevel::kDebug)) request.log = &q->debug_log.emplace(q->Log());
  if (q->input.state) *q->input.state = q;
  return q;
}

void DirectorImpl::Begin(std::shared_ptr<RequestState> q) {
  RequestContext& request = q->context;
  if (request.body.size() > options_.max_body_bytes) {
    return Refuse(
        q, 413, "request body is larger than " + std::to_string(options_.max_body_bytes) + " bytes",
        "");
  }
  if (Status status = Read(*q); !status.ok()) {
    const bool ours = status.code() == StatusCode::kInternal;  // a plugin that threw
    return Refuse(q, ours ? 500 : 400, status.message(), "");
  }
  if (request.log) {
    request.log->Log(LogLevel::kDebug, "LLM request assembled",
                     {{"request", request.Describe(true)}});
  }
  Admit(std::move(q));
}

void DirectorImpl::Trace(RequestState& q, uint64_t& ids) {
  const std::optional<TraceContext> parent = ParseTraceparent(q.context.Header("traceparent"));
  if (options_.tracer == nullptr) {
    q.trace = parent ? *parent : TraceContext();
    if (!parent) {
      q.trace.trace_id_high = NextRandom(ids) | 1;
      q.trace.trace_id_low = NextRandom(ids);
    }
    q.trace.span_id = NextRandom(ids) | 1;
    return;
  }
  q.trace = options_.tracer->Start(parent);
  if (!q.trace.sampled) return;
  q.tracer = options_.tracer;
  q.spans = std::make_unique<SpanLog>(q.trace, parent ? parent->span_id : 0, clock_);
  q.spans->Begin("gateway.request", Span::Kind::kServer);
  q.spans->Add("llm_d.request_id", q.context.request_id);
  q.spans->Begin("gateway.request_orchestration");
  q.context.spans = q.spans.get();
}

Status DirectorImpl::Read(RequestState& q) {
  RequestContext& request = q.context;
  request.path = PathOf(request);
  request.fairness_id =
      EitherHeader(request, "x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id");
  const Graph& graph = *q.setup->graph;
  for (RequestHeaderHook* hook : graph.request_headers)
    failures_.Run(*hook, request.request_id, [&] { hook->OnRequestHeaders(request); });
  if (request.fairness_id.empty()) request.fairness_id = "default-flow";
  if (request.fairness_id.size() > kMaxNameBytes)
    request.fairness_id = BoundedName(request.fairness_id);
  request.objective =
      EitherHeader(request, "x-llm-d-inference-objective", "x-gateway-inference-objective");
  request.slo_ttft_ms = Millis(EitherHeader(request, "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"));
  request.slo_tpot_ms = Millis(EitherHeader(request, "x-llm-d-slo-tpot-ms", "x-slo-tpot-ms"));
  LLMD_ASSIGN_OR_RETURN(q.ttl, OwnTtl(request.Header("x-llm-d-inference-ttl")));
  const std::shared_ptr<const PoolPolicy> policy = Policy();
  if (q.input.priority) {
    request.priority = *q.input.priority;
  } else if (policy) {
    request.priority = policy->PriorityOf(request.objective);
  }
  if (!request.has_body) return OkStatus();
  Parser* parser = graph.FindParser(request.path);
  if (parser == nullptr) return InvalidArgument("no parser takes the path '" + request.path + "'");
  q.parser = parser;
  Status parsed;
  Guarded(
      *parser, [&] { parsed = parser->Parse(request); },
      [&](Status failed) {
        failures_.Note(*parser, failed, request.request_id);
        parsed = std::move(failed);
      });
  LLMD_RETURN_IF_ERROR(parsed);
  if (request.api == Api::kNone) return OkStatus();
  q.rewrite = EitherHeader(request, "x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite");
  const RewriteRule* rule = policy ? policy->RuleFor(request.model) : nullptr;
  if (rule != nullptr && !q.input.first_target.empty()) {
    q.rewrite = q.input.first_target;
  } else if (rule != nullptr) {
    q.rewrite = rule->Choose(request.random);
    metrics_.Rewrite(rule->rewrite, request.model, q.rewrite);
  }
  request.target_model = q.rewrite.empty() ? request.model : q.rewrite;
  if (request.target_model.empty() && request.names_model)
    return InvalidArgument("model not found in request body");
  return OkStatus();
}

void DirectorImpl::Admit(std::shared_ptr<RequestState> q) {
  RequestContext& request = q->context;
  FlowController* const flow = q->setup->flow.get();
  if (flow == nullptr) {
    if (request.priority < 0 && Saturated(*q)) {
      return Deny(q, 429, "the pool is saturated and the request is sheddable",
                  std::string(kSaturated));
    }
    return Prepare(std::move(q));
  }
  if (NobodyMay(*q))  // to wait would not help
    return Deny(q, 503, std::string(kNotInSubset), std::string(kNoEndpoints));
  const std::string_view prompt = request.prompt_json.empty() ? request.body : request.prompt_json;
  FlowRequest item{.priority = request.priority,
                   .flow = request.fairness_id,
                   .model = request.model,
                   .target_model = request.target_model,
                   .bytes = request.body.size(),
                   .received = request.received,
                   .ttl = q->ttl,
                   .prompt_tokens = std::ceil(static_cast<double>(prompt.size()) / 4),
                   .max_output_tokens = static_cast<double>(request.max_tokens)};
  if (request.slo_ttft_ms >= 0) {
    item.slo_deadline = request.received +
                        SaturatingMillis(request.slo_ttft_ms, TimePoint::max() - request.received);
  }
  item.resume = [this, raw = q.get()](const FlowResult& result) {
    Dispatched(std::exchange(raw->kept, nullptr), result);
  };
  item.ticket = &q->ticket;
  q->flow = flow;
  q->kept = q;
  q->Take(Step::kQueue);
  const uint64_t ticket = flow->Enqueue(std::move(item));
  if (flow->size() > 0) WakeMaintenance();
  if (q->cancelled()) flow->Cancel(ticket);  // it may have come before the ticket
}

bool DirectorImpl::Saturated(RequestState& q) const {
  const std::shared_ptr<const Snapshot> snapshot = store_.Get();
  SetEligible(q, *snapshot);
  return !q.context.eligible.empty() && q.setup->meter->Read(*snapshot).effective >= 1;
}

bool DirectorImpl::NobodyMay(RequestState& q) const {
  if (!q.input.has_subset && q.input.exclude.empty()) return false;
  const std::shared_ptr<const Snapshot> snapshot = store_.Get();
  SetEligible(q, *snapshot);
  return snapshot->size() > 0 && q.context.eligible.empty();
}

void DirectorImpl::Refresh(RequestState& q) const {
  std::shared_ptr<const Setup> now = setup_.Load();
  if (now == q.setup) return;
  q.setup = std::move(now);
  q.graph = q.setup->graph;
  RequestContext& request = q.context;
  for (Attribute& attribute : request.attributes) attribute.Clear();
  request.attributes.resize(q.setup->graph->attribute_count);
}

void DirectorImpl::Dispatched(const std::shared_ptr<RequestState>& q, const FlowResult& result) {
  q->queue_headers = QueueHeaders(result);
  switch (result.outcome) {
    case FlowOutcome::kDispatched:
      q->dispatched = result.ticket;
      Refresh(*q);
      return Prepare(q);
    case FlowOutcome::kRejectedCapacity:
      return Deny(q, 429, "the queue is full", std::string(kSaturated));
    case FlowOutcome::kDisplaced:
      return Deny(q, 429, "the queue is full and a request of higher priority came",
                  "evicted-queue-pressure");
    case FlowOutcome::kEvictedTtl:
      return Deny(q, 429, "the request waited longer than its TTL", "rejected-ttl-expired");
    case FlowOutcome::kRejectedNoEndpoints:
    case FlowOutcome::kEvictedNoEndpoints:
      return Deny(q, 503, "the pool has no endpoints", std::string(kNoEndpoints));
    case FlowOutcome::kCancelled:
      return Deny(q, 503, "the client left while the request was queued", std::string(kCancelled));
    case FlowOutcome::kRejectedShuttingDown:
    case FlowOutcome::kShuttingDown:
      return Deny(q, 503, "shutting down", "rejected-shutting-down");
  }
}

void DirectorImpl::SetEligible(RequestState& q, const Snapshot& snapshot) const {
  AddEligible(q, snapshot);
  const std::span<const EndpointId> exclude = q.input.exclude;
  if (exclude.empty()) return;
  // In order, for each endpoint looks itself up.
  static thread_local std::vector<EndpointId> out;
  out.assign(exclude.begin(), exclude.end());
  std::sort(out.begin(), out.end());
  std::erase_if(q.context.eligible, [&](uint32_t i) {
    return std::binary_search(out.begin(), out.end(), snapshot.set->lives[i]->id());
  });
}

void DirectorImpl::AddEligible(RequestState& q, const Snapshot& snapshot) const {
  if (!q.input.has_subset || options_.disable_subset_filter) {
    return q.context.AllEligible(snapshot.size());
  }
  std::vector<uint32_t>& out = q.context.eligible;
  out.clear();
  for (uint32_t i = 0; i < snapshot.size(); ++i) {
    if (InSubset(q.input.subset, snapshot.set->host_ports[i], snapshot.info(i).address))
      out.push_back(i);
  }
}

void DirectorImpl::Decide(const std::shared_ptr<RequestState>& self) {
  RequestState& q = *self;
  RequestContext& request = q.context;
  const std::shared_ptr<const Snapshot> snapshot = q.snapshot ? q.snapshot : store_.Get();
  DecisionScratch scratch;
  DecisionRecord& record = scratch.record();
  ScheduleOutcome& outcome = scratch.outcome();
  if (!q.snapshot) SetEligible(q, *snapshot);
  Describe(q, record);
  if (q.cancelled()) return Deny(self, record, 503, "the client left", std::string(kCancelled));
  Stopwatch watch(clock_);
  if (recording_) record.SetEndpoints(*snapshot, watch.last());
  if (request.eligible.empty()) {
    return Deny(
        self, record, 503,
        snapshot->size() == 0 ? "no pods available in datastore" : std::string(kNotInSubset),
        std::string(kNoEndpoints));
  }
  const Graph& graph = *q.graph;
  SchedulingPass pass(graph, request, *snapshot, record);
  if (!q.snapshot) pass.Produce();
  for (Admitter* admitter : graph.admitters) {
    AdmissionDenied denied;
    failures_.Run(*admitter, request.request_id,
                  [&] { denied = admitter->Admit(request, *snapshot); });
    if (denied.http_status != 0) {
      return Deny(self, record, denied.http_status, std::move(denied.message),
                  std::move(denied.dropped_reason));
    }
  }
  pass.Schedule(outcome);
  if (pass.failed() != nullptr) failures_.Note(*pass.failed(), pass.failure(), request.request_id);
  const Duration took = watch.Lap();
  record.decision_ns = static_cast<uint64_t>(took.count());
  metrics_.scheduling.Observe(static_cast<double>(took.count()) * 1e-9);
  if (outcome.primary.empty()) {
    const int status = outcome.error_status ? outcome.error_status : pass.saturated() ? 429 : 503;
    metrics_.Attempt(request.target_model, nullptr);
    return Deny(self, record, status, std::string(outcome.error),
                std::string(status == 429 ? kSaturated : kNoEndpoints));
  }
  if (WantsCached(request) && !HoldsCached(request, graph.prefix_match, outcome.primary[0])) {
    return Deny(self, record, 412, "no decode worker has the requested KV cache", "");
  }
  Grant(self, *snapshot, outcome, record);
}

}  // namespace llmd::sched
