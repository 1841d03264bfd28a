// How a request leaves the Director: to its endpoints, or refused; and what is kept of it.
#include <algorithm>

#include "director/body_edits.h"
#include "director/question.h"

namespace llmd::sched {
namespace {

std::string Destination(const Snapshot& snapshot, uint32_t endpoint, uint16_t port) {
  if (port == 0) return snapshot.set->host_ports[endpoint];
  EndpointInfo there;
  there.address = snapshot.info(endpoint).address;
  there.port = port;
  return there.HostPort();
}

}  // namespace

void DirectorImpl::Grant(Question& q, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                         DecisionRecord& record) {
  RequestContext& request = q.context();
  RequestState& state = *q.state;
  const Graph& graph = *q.setup->graph;
  Routing routing;
  routing.ok = true;
  routing.request_id = request.request_id;
  routing.state = q.state;
  routing.skip_response = request.skip_response;
  for (uint32_t e : outcome.primary)
    routing.endpoints.push_back(Destination(snapshot, e, outcome.primary_port));
  {
    std::unique_lock lock(state.mutex);
    if (state.cancelled) {
      lock.unlock();
      return Deny(q, record, 503, "the client left", "rejected-context-cancelled");
    }
    state.endpoint = snapshot.set->infos[outcome.primary[0]];
    const bool stages = !outcome.prefill.empty() || !outcome.encode.empty();
    OpenCharges(request, snapshot, outcome);
    const ScopedSpan span(stages ? request.spans : nullptr, "prepare_disaggregation");
    for (PreRequestHook* hook : graph.pre_request) {
      failures_.Run(*hook, request.request_id,
                    [&] { hook->PreRequest(request, snapshot, outcome, routing.set_headers); });
    }
    state.series =
        &metrics_.Of(request.model, request.target_model, request.fairness_id, request.priority);
    state.responding = &metrics_.responding;
    state.series->total->Add();
    state.series->running->Add(1);
    state.series->size->Observe(static_cast<double>(request.body.size()));
    if (state.parser) {
      failures_.Run(*state.parser, request.request_id,
                    [&] { state.reader = state.parser->MakeReader(request); });
    }
    if (q.flow != nullptr) state.on_end = OnEnd(q.flow, q.dispatched);
    if (!q.rewrite.empty() && q.rewrite != request.model && !request.model.empty() &&
        request.frames.empty()) {  // a longer name would break the frames of the answer
      state.restorer.emplace(q.rewrite, request.model);
    }
    routing.edits_response = state.restorer.has_value();
    routing.reads_response = graph.wants_response_body || routing.edits_response;
  }
  if (request.Header("x-request-id").empty())
    routing.set_headers.emplace_back("x-request-id", request.request_id);
  routing.set_headers.emplace_back("traceparent", q.trace.ToTraceparent());
  routing.remove_headers = ControlHeadersOf(*q.input.headers, routing.set_headers);
  routing.body_edits = EditsOf(request, q.rewrite);
  metrics_.Attempt(request.target_model, state.endpoint.get());
  metrics_.Disagg(*graph.handler, request.target_model, outcome.decision_type);
  state.log->Log(LogLevel::kDefault, "Request handled",
                 {{"model", request.model},
                  {"targetModel", request.target_model},
                  {"endpoint", state.endpoint->FullName()}});
  metrics_.processing.Observe(
      std::chrono::duration<double>(clock_.Now() - request.received).count());
  Keep(q, record, outcome.primary_profile, routing);
  if (state.spans) {
    std::lock_guard lock(state.mutex);
    state.spans->Add("llm_d.epp.decision_type", std::string(outcome.decision_type));
    state.spans->End();
    state.spans->AddToRoot("gen_ai.request.model", request.target_model);
    state.spans->AddToRoot("server.address", routing.endpoints[0]);
  }
  request.ReleaseBulk();
  FlowController* const flow = state.evicted ? q.flow : nullptr;
  const uint64_t ticket = q.dispatched;
  const std::weak_ptr<RequestState> weak = q.state;
  q.done(std::move(routing));
  if (flow != nullptr) {
    flow->Revocable(ticket, [this, weak] {
      if (const std::shared_ptr<RequestState> alive = weak.lock()) Evict(alive);
    });
  }
}

std::function<void(const Usage&)> DirectorImpl::OnEnd(FlowController* flow, uint64_t ticket) {
  return [flow, ticket](const Usage& usage) {
    const bool known = usage.prompt_tokens >= 0 && usage.completion_tokens >= 0;
    flow->Complete(ticket,
                   known ? FlowUsage{.prompt_tokens = static_cast<double>(usage.prompt_tokens),
                                     .output_tokens = static_cast<double>(usage.completion_tokens),
                                     .known = true}
                         : FlowUsage{});
  };
}

void DirectorImpl::Evict(const std::shared_ptr<RequestState>& state) {
  std::function<void(const Denial&)> tell;
  {
    std::lock_guard lock(state->mutex);
    if (state->ended) return;
    tell = std::move(state->evicted);
  }
  const RequestContext& request = state->context;
  const Denial denial{.http_status = 429,
                      .message = "request evicted by flow control",
                      .dropped_reason = "evicted-priority",
                      .retry_after_s = state->queue->RetryAfter(request.priority),
                      .headers = {}};
  metrics_.Error(request, denial.http_status);
  state->log->Log(LogLevel::kDefault, "Request evicted", {{"priority", request.priority}});
  if (tell) tell(denial);
}

void DirectorImpl::Keep(Question& q, DecisionRecord& record, int primary_profile,
                        Routing& routing) {
  if (options_.emit_endpoint_scores) {
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

void DirectorImpl::Remember(Question& q, DecisionRecord& record) {
  if (MayExplain(q.context())) {
    DecisionTrace trace = record.ToTrace();
    if (options_.label_pool) trace.pool = options_.pool_name;
    q.state->decision_header = ToHeader(trace);
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

void DirectorImpl::Describe(const Question& q, DecisionRecord& record) const {
  const RequestContext& request = q.context();
  record.names = q.setup->graph->names;
  record.id = request.id;
  record.request_id = request.request_id;
  record.model = request.target_model;
  record.unix_nanos = request.received_unix_nanos;
}

void DirectorImpl::Deny(Question& q, int status, std::string message, std::string reason) {
  DecisionRecord record;
  Describe(q, record);
  Deny(q, record, status, std::move(message), std::move(reason));
}

void DirectorImpl::Deny(Question& q, DecisionRecord& record, int status, std::string message,
                        std::string reason) {
  record.denied_status = status;
  record.denied_reason = reason.empty() ? message : reason;
  Remember(q, record);
  Refuse(q, status, std::move(message), std::move(reason));
}

void DirectorImpl::Refuse(Question& q, int status, std::string message, std::string reason) {
  RequestContext& request = q.context();
  Routing routing;
  routing.request_id = request.request_id;
  routing.denial = {status, std::move(message), std::move(reason), 0, q.state->queue_headers};
  if (status == 429 || status == 503)
    routing.denial.retry_after_s = q.flow ? q.flow->RetryAfter(request.priority) : 1;
  if (!q.state->decision_header.empty())
    routing.denial.headers.emplace_back("x-llm-d-decision", q.state->decision_header);
  routing.state = q.state;
  metrics_.Error(request, status);
  q.state->log->Log(LogLevel::kDefault, "Request refused",
                    {{"status", status},
                     {"reason", routing.denial.message},
                     {"droppedReason", routing.denial.dropped_reason}});
  {
    std::lock_guard lock(q.state->mutex);
    q.state->ended = true;
    q.state->EndSpans(status, routing.denial.message);
    request.ReleaseBulk();
  }
  if (q.dispatched != 0) q.flow->Complete(q.dispatched, {});
  q.done(std::move(routing));
}

void DirectorImpl::Cancel(const std::shared_ptr<RequestState>& state) {
  if (!state) return;
  FlowController* queue = nullptr;
  uint64_t ticket = 0;
  {
    std::lock_guard lock(state->mutex);
    state->cancelled |= !state->ended && state->series == nullptr;
    queue = state->queue;
    ticket = state->ticket;
  }
  if (queue != nullptr && ticket != 0) queue->Cancel(ticket);
  state->End(true);
}

}  // namespace llmd::sched
