// How a request leaves the Director: to its endpoints, or refused; and what is kept of it.
#include <algorithm>
#include <optional>

#include "director/body_edits.h"
#include "director/impl.h"
#include "life/callback_scope.h"

namespace llmd::sched {
namespace {

std::string Destination(const Snapshot& snapshot, uint32_t endpoint, uint16_t port) {
  return port == 0 ? snapshot.set->host_ports[endpoint] : AddressOf(snapshot.info(endpoint), port);
}

}  // namespace

void DirectorImpl::Grant(const std::shared_ptr<RequestState>& self, const Snapshot& snapshot,
                         const ScheduleOutcome& outcome, DecisionRecord& record) {
  RequestState& q = *self;
  RequestContext& request = q.context;
  Routing own;
  Routing& routing = q.Target(own);
  std::optional<Turn> turn(std::in_place, q);  // a Cancel comes after it, or before the step
  if (!Commit(q, snapshot, outcome, routing)) {
    turn.reset();
    return Deny(self, record, 503, "the client left", "rejected-context-cancelled");
  }
  routing.ok = true;
  routing.request_id = request.request_id;
  routing.target_model = request.target_model;
  routing.state = self;
  routing.skip_response = request.skip_response;
  for (uint32_t e : outcome.primary) routing.handles.push_back(snapshot.set->lives[e]->id());
  if (!outcome.prefill.empty()) routing.prefill = snapshot.set->lives[outcome.prefill[0]]->id();
  routing.port = outcome.primary_port;
  if (!q.input.handles_only) Address(q, snapshot, outcome, routing);
  metrics_.Attempt(request.target_model, q.endpoint.get());
  metrics_.Disagg(*q.graph->handler, request.target_model, outcome.decision_type);
  if (q.Logs(LogLevel::kDefault)) {
    q.Log().Log(LogLevel::kDefault, "Request handled",
                {{"model", request.model},
                 {"targetModel", request.target_model},
                 {"endpoint", q.endpoint->FullName()}});
  }
  metrics_.processing.Observe(
      std::chrono::duration<double>(clock_.Now() - request.received).count());
  Keep(q, record, outcome.primary_profile, routing);
  FlowController* const flow = q.flow;
  const uint64_t ticket = q.dispatched;
  const bool revocable = q.revocable;
  const std::weak_ptr<RequestState> weak = self;
  request.headers = nullptr;  // no longer the caller's to keep
  turn.reset();
  q.Answer(routing);
  if (flow == nullptr || !revocable) return;
  flow->Revocable(ticket, [this, weak] {
    if (const std::shared_ptr<RequestState> alive = weak.lock()) Evict(*alive);
  });
}

bool DirectorImpl::Commit(RequestState& q, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                          Routing& routing) {
  RequestContext& request = q.context;
  if (!q.Take(Step::kRoute)) return false;
  q.endpoint = snapshot.set->infos[outcome.primary[0]];
  q.port = outcome.primary_port;
  for (const uint32_t e : std::span(outcome.primary).subspan(1))
    q.others.push_back({snapshot.set->infos[e], snapshot.set->lives[e]});
  const bool stages = !outcome.prefill.empty() || !outcome.encode.empty();
  OpenCharges(request, snapshot, outcome);
  {
    const ScopedSpan span(stages ? request.spans : nullptr, "prepare_disaggregation");
    for (PreRequestHook* hook : q.graph->pre_request) {
      failures_.Run(*hook, request.request_id,
                    [&] { hook->PreRequest(request, snapshot, outcome, routing.set_headers); });
    }
  }
  q.series =
      &metrics_.Of(request.model, request.target_model, request.fairness_id, request.priority);
  q.responding = &metrics_.responding;
  q.series->total->Add();
  q.series->running->Add(1);
  q.series->size->Observe(static_cast<double>(request.body.size()));
  if (q.parser) {
    failures_.Run(*q.parser, request.request_id, [&] { q.reader = q.parser->MakeReader(request); });
  }
  if (!q.rewrite.empty() && q.rewrite != request.model && !request.model.empty() &&
      request.frames.empty()) {  // a longer name would break the frames of the answer
    q.restorer.emplace(q.rewrite, request.model);
  }
  routing.edits_response = q.restorer.has_value();
  routing.reads_response = q.graph->wants_response_body || routing.edits_response;
  if (!q.input.handles_only) routing.body_edits = EditsOf(request, q.rewrite);
  if (q.spans) {
    q.spans->Add("llm_d.epp.decision_type", std::string(outcome.decision_type));
    q.spans->End();
    q.spans->AddToRoot("gen_ai.request.model", request.target_model);
    q.spans->AddToRoot("server.address",
                       Destination(snapshot, outcome.primary[0], outcome.primary_port));
  }
  // The headers are read until it is answered.
  const HeaderList* const headers = request.headers;
  request.ReleaseBulk();
  request.headers = headers;
  return true;
}

void DirectorImpl::Address(RequestState& q, const Snapshot& snapshot,
                           const ScheduleOutcome& outcome, Routing& routing) {
  for (uint32_t e : outcome.primary)
    routing.endpoints.push_back(Destination(snapshot, e, outcome.primary_port));
  if (FindHeader(*q.input.headers, "x-request-id").empty())
    routing.set_headers.emplace_back("x-request-id", q.context.request_id);
  routing.set_headers.emplace_back("traceparent", q.trace.ToTraceparent());
  routing.remove_headers = ControlHeadersOf(*q.input.headers, routing.set_headers);
}

void DirectorImpl::Evict(RequestState& q) {
  const std::function<void(const Denial&)> tell = q.TakeEvicted();
  if (!tell) return;
  const int priority = q.context.priority;
  const Denial denial{.http_status = 429,
                      .message = "request evicted by flow control",
                      .dropped_reason = "evicted-priority",
                      .retry_after_s = q.flow->RetryAfter(priority),
                      .headers = {}};
  metrics_.Error(q.context, denial.http_status);
  if (q.Logs(LogLevel::kDefault))
    q.Log().Log(LogLevel::kDefault, "Request evicted", {{"priority", priority}});
  RunCallback(static_cast<const Director*>(this), &logger_, [&] { tell(denial); });
}

void DirectorImpl::Keep(RequestState& q, DecisionRecord& record, int primary_profile,
                        Routing& routing) {
  if (options_.emit_endpoint_scores && !q.input.handles_only) {
    for (size_t p = 0; p < record.profile_count; ++p) {
      const ProfileRecord& profile = record.profiles[p];
      // Another stage may have picked the same endpoint from other candidates.
      if (profile.profile != primary_profile) continue;
      routing.scores.clear();
      for (size_t i = 0; i < profile.candidates.size(); ++i) {
        routing.scores.emplace_back(record.set->host_ports[profile.candidates[i]],
                                    profile.totals[i]);
      }
    }
  }
  if (options_.attach_trace)
    routing.trace = std::make_shared<const DecisionTrace>(record.ToTrace());
  Remember(q, record);
}

void DirectorImpl::Remember(RequestState& q, DecisionRecord& record) {
  if (MayExplain(q.context)) {
    DecisionTrace trace = record.ToTrace();
    if (options_.label_pool) trace.pool = options_.pool_name;
    q.decision_header = ToHeader(trace);
  }
  ring_.Swap(record);
}

bool DirectorImpl::MayExplain(const RequestContext& request) const {
  const std::string& token = options_.explain_token;
  const std::string_view given = request.Header("x-llm-d-explain");
  if (token.empty() || given.size() != token.size()) return false;
  unsigned char differ = 0;  // every byte is looked at: the time tells nothing
  for (size_t i = 0; i < token.size(); ++i)
    differ |= static_cast<unsigned char>(token[i] ^ given[i]);
  return differ == 0;
}

void DirectorImpl::Describe(const RequestState& q, DecisionRecord& record) const {
  const RequestContext& request = q.context;
  record.names = q.setup->graph->names;
  record.id = request.id;
  record.request_id = request.request_id;
  record.model = request.target_model;
  record.unix_nanos = request.received_unix_nanos;
}

void DirectorImpl::Deny(const std::shared_ptr<RequestState>& q, int status, std::string message,
                        std::string reason) {
  DecisionRecord record;
  Describe(*q, record);
  Deny(q, record, status, std::move(message), std::move(reason));
}

void DirectorImpl::Deny(const std::shared_ptr<RequestState>& q, DecisionRecord& record, int status,
                        std::string message, std::string reason) {
  record.denied_status = status;
  record.denied_reason = reason.empty() ? message : reason;
  Remember(*q, record);
  Refuse(q, status, std::move(message), std::move(reason));
}

void DirectorImpl::Refuse(const std::shared_ptr<RequestState>& self, int status,
                          std::string message, std::string reason) {
  RequestState& q = *self;
  RequestContext& request = q.context;
  Routing own;
  Routing& routing = q.Target(own);
  routing.request_id = request.request_id;
  routing.denial = {status, std::move(message), std::move(reason), 0, q.queue_headers};
  if (status == 429 || status == 503)
    routing.denial.retry_after_s = q.flow ? q.flow->RetryAfter(request.priority) : 1;
  if (!q.decision_header.empty())
    routing.denial.headers.emplace_back("x-llm-d-decision", q.decision_header);
  routing.state = self;
  metrics_.Error(request, status);
  if (q.Logs(LogLevel::kDefault)) {
    q.Log().Log(LogLevel::kDefault, "Request refused",
                {{"status", status},
                 {"reason", routing.denial.message},
                 {"droppedReason", routing.denial.dropped_reason}});
  }
  q.Take(Step::kRefuse);
  q.EndSpans(status, routing.denial.message);
  if (!q.lent) request.ReleaseBulk();
  if (q.dispatched != 0) q.flow->Complete(q.dispatched, {.ran = false});
  q.Answer(routing);
}

void DirectorImpl::Cancel(const std::shared_ptr<RequestState>& state) {
  const std::shared_ptr<RequestState> q = state;  // `state` may go in a callback
  if (!q) return;
  if (!q->Cancel()) return q->End(true);
  if (const uint64_t ticket = q->ticket.load(); ticket != 0) q->flow->Cancel(ticket);
}

}  // namespace llmd::sched
