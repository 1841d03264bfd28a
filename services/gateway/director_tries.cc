// Deciding where a request goes, and trying it there and elsewhere.
#include <algorithm>
#include <string>
#include <utility>

#include "gateway/director_policy.h"
#include "llmd/http/routing_headers.h"

namespace llmd::gateway {
namespace {

using relay::Call;
using relay::HeaderEdit;

// From here on a body is read and hashed on another thread.
constexpr size_t kLargeBodyBytes = 1 << 20;

// What is left cannot serve the request; perhaps what is out can.
bool NoneLeft(const sched::Routing& routing) {
  return !routing.ok && routing.denial.http_status == 503 &&
         routing.denial.dropped_reason == "rejected-no-endpoints";
}

constexpr std::string_view kTraceparent = "traceparent";

std::string_view FindSet(const sched::HeaderList& headers, std::string_view name) {
  for (const auto& [set, value] : headers) {
    if (set == name) return value;
  }
  return {};
}

bool Contains(const std::vector<sched::EndpointId>& list, sched::EndpointId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

}  // namespace

sched::RequestInput DirectorPolicy::InputOf(Call& call, Request& request) {
  sched::RequestInput input;
  input.headers = &request.headers;
  input.body = call.body();
  input.has_body = call.has_body() || call.request().method == "POST";
  input.exclude = request.exclude;
  AddDoors(request, input);
  if (request.tries.sent() > 0) {
    input.first_received = request.asked;
    input.first_target = request.target_model;
  }
  // Two words are kept without an allocation.
  input.evicted = [asked = &request, attempt = request.attempt](const sched::Denial& denial) {
    asked->owner->PostEviction(*asked, attempt, denial);
  };
  return input;
}

// Any thread, also when the request is over: what is used again has another attempt. An eviction
// that finds the loop's queue full is passed over.
void DirectorPolicy::PostEviction(Request& request, uint64_t attempt, const sched::Denial& denial) {
  (void)loop().Post([asked = &request, attempt, denial] {
    if (asked->attempt == attempt) asked->owner->Evicted(*asked->served, denial);
  });
}

// What the doors say of it: its pool, its key's priority, and which engines serve its model where
// not all do.
void DirectorPolicy::AddDoors(const Request& request, sched::RequestInput& input) {
  const doors::Admission& admission = request.visit->admission;
  input.priority = admission.priority;
  input.pool = admission.pool;
  if (!admission.served_in_part()) return;
  input.has_subset = true;
  admission.AppendEngines(true, input.subset);
}

void DirectorPolicy::Decide(Call& call, Request& request) {
  Exclude(request);
  request.next = 0;
  request.deciding = true;
  request.attempt = ++attempts_;
  const auto later = [ref = call.ref()](sched::Routing routing) {
    auto late = std::make_shared<sched::Routing>(std::move(routing));
    (void)ref.Post([late](Call& waiting) {
      Request& asked = Mine(waiting);
      asked.routing = std::move(*late);
      asked.owner->Decided(waiting, asked);
    });
  };
  sched::RequestInput input = InputOf(call, request);
  if (input.body.size() >= kLargeBodyBytes) return DecideElsewhere(call, std::move(input), later);
  input.state = &request.state;
  if (own_.director.RouteNow(std::move(input), request.routing, later)) Decided(call, request);
}

// A large body takes long to read and to hash: other requests of the loop do not wait for it. What
// the input refers to stays until the decision has come, whether the client waits for it or not.
void DirectorPolicy::DecideElsewhere(Call& call, sched::RequestInput input,
                                     std::function<void(sched::Routing)> later) {
  Mine(call).unwanted = std::make_shared<std::atomic<bool>>(false);
  auto work = [director = &own_.director, ref = call.ref(), unwanted = Mine(call).unwanted,
               input = std::make_shared<sched::RequestInput>(std::move(input)),
               later = std::move(later)] {
    if (unwanted->load(std::memory_order_relaxed)) return later({});
    std::shared_ptr<sched::RequestState> state;
    input->state = &state;
    director->Route(std::move(*input), later);
    (void)ref.Post([state](Call& waiting) {
      Request& asked = Mine(waiting);
      if (!asked.deciding) return;
      asked.state = state;
      if (asked.abandoned) asked.owner->own_.director.Cancel(state);
    });
  };
  const Status queued = parts().workers.Submit(std::move(work));
  if (queued.ok()) return;
  Mine(call).deciding = false;
  Answer(call, 503, "too many large requests are being read");
}

void DirectorPolicy::Decided(Call& call, Request& request) {
  request.deciding = false;
  sched::Routing& routing = request.routing;
  request.routed = routing.ok;
  if (request.abandoned) {
    EndRouting(request);
    Give(request);
    return call.LetGo();
  }
  if (!routing.ok) {
    if (NoneLeft(routing) && !request.panic && request.exclude.size() > request.failed.size()) {
      request.panic = true;
      return Decide(call, request);
    }
    return request.tries.sent() > 0 ? NobodyElse(call, request)
                                    : Deny(call, request, routing.denial);
  }
  if (request.target_model.empty()) request.target_model = routing.target_model;
  if (!TryNext(call, request)) NobodyElse(call, request);
}

// Sends the request to the routing's next endpoint; false when none is left to try.
bool DirectorPolicy::TryNext(Call& call, Request& request) {
  const sched::Routing& routing = request.routing;
  const size_t count = std::min(routing.endpoints.size(), routing.handles.size());
  while (request.next < count) {
    const size_t index = request.next++;
    if (Contains(request.failed, routing.handles[index])) continue;
    SendTo(call, request, index);
    return true;
  }
  return false;
}

void DirectorPolicy::SendTo(Call& call, Request& request, size_t index) {
  const sched::Routing& routing = request.routing;
  request.endpoint_id = routing.handles[index];
  request.endpoint = routing.endpoints[index];
  const Known* const known = KnownOf(request.endpoint_id, request.endpoint);
  if (known == nullptr) return Answer(call, 500, "the endpoint's address is no IP address");
  request.target = known->target;
  if (request.tries.sent() > 0) parts().metrics.retries.Add();
  if (request.panic && IsEjected(request.endpoint_id)) parts().metrics.panics.Add();
  request.tries.OnSent();
  request.call = &call;
  request.record.model = routing.target_model;
  const std::string_view traceparent =
      observer().Sending(request.record, call.now(),
                         {.span = "gateway.upstream",
                          .name = known->name,
                          .address = known->address,
                          .parent = FindSet(routing.set_headers, kTraceparent)});
  FillEdits(request, traceparent);
  FillBody(call, request);
  relay::SendOptions options;
  options.target = request.target;
  options.headers = request.edits;
  options.own_body = !routing.body_edits.empty();
  options.body = request.body;
  Limit(call, request, &options);
  call.Send(options);
}

// A client's routing headers never pass. `traceparent` "" = the Director's. What the Director sets
// and removes is done.
void DirectorPolicy::FillEdits(Request& request, std::string_view traceparent) {
  const sched::Routing& routing = request.routing;
  request.edits.clear();
  request.edits.push_back({"x-request-id", request.id});
  for (const auto& [name, value] : routing.set_headers) {
    if (name == "x-request-id") continue;
    const bool ours = name == kTraceparent && !traceparent.empty();
    request.edits.push_back({name, ours ? traceparent : std::string_view(value)});
  }
  for (const std::string& name : routing.remove_headers)
    request.edits.push_back({name, {}, /*remove=*/true});
  for (std::string_view name : http::kRoutingHeaders)
    request.edits.push_back({name, {}, /*remove=*/true});
  AddRequestEdits(request, request.edits);
}

// The client's bytes, with the Director's edits between them. Where there are more than a leg takes
// in parts, the front is put together.
void DirectorPolicy::FillBody(Call& call, Request& request) {
  request.body.clear();
  const std::vector<sched::BodyEdit>& edits = request.routing.body_edits;
  if (edits.empty()) return;
  const std::string_view body = call.body();
  size_t at = 0;
  for (const sched::BodyEdit& edit : edits) {
    request.body.push_back(body.substr(at, edit.begin - at));
    request.body.push_back(edit.text);
    at = edit.end;
  }
  request.body.push_back(body.substr(at));
  if (request.body.size() <= relay::SendOptions::kMaxBodyParts) return;
  request.joined.clear();
  for (std::string_view part : request.body) request.joined.append(part);
  request.body.assign(1, request.joined);
}

void DirectorPolicy::LegFailed(Call& call, PolicyBase::Request& failed, relay::Failure failure,
                               std::string_view what) {
  auto& request = static_cast<Request&>(failed);
  request.tries.OnFailed(failure);
  request.failure = failure;
  // Clients are not told where engines are.
  request.failure_text.assign(what.substr(std::min(what.find(": ") + 2, what.size())));
  TryElsewhere(call, request);
}

void DirectorPolicy::SetAside(Call& call, PolicyBase::Request& request) {
  TryElsewhere(call, static_cast<Request&>(request));
}

// The endpoint that was asked last has failed it, or said no.
void DirectorPolicy::TryElsewhere(Call& call, Request& request) {
  request.call = nullptr;
  request.failed.push_back(request.endpoint_id);
  const bool late = request.failure == relay::Failure::kDeadline;
  if (late || request.tries.Exhausted(parts().tries)) return LastWord(call, request);
  if (TryNext(call, request)) return;
  // While it counts it may be what keeps the next try waiting.
  EndRouting(request);
  request.panic = false;
  Decide(call, request);
}

// All have failed it. An engine's own refusal is passed on at once: waiting does not make it
// better.
void DirectorPolicy::NobodyElse(Call& call, Request& request) {
  if (request.kept.there() && request.set_aside.busy) return LastWord(call, request);
  const auto wait = AgainIn(call, request);
  if (!wait) return LastWord(call, request);
  EndRouting(request);
  request.backing_off = true;
  call.SetTimer(*wait);
}

void DirectorPolicy::OnTimer(Call& call) {
  Request& request = Mine(call);
  if (!std::exchange(request.backing_off, false)) return;
  request.failed.clear();
  request.panic = false;
  Decide(call, request);
}

void DirectorPolicy::LastWord(Call& call, Request& request) {
  if (!request.kept.there()) return GiveUp(call, request);
  SendKept(call, request);
}

const std::vector<std::string>& DirectorPolicy::Silent() {
  if (const uint64_t version = own_.pages->version(); version != silent_version_ || !silent_) {
    silent_version_ = version;
    silent_ = own_.pages->Silent();
    // They are out before a request is lost to each of them.
    for (const auto& [id, known] : targets_) {
      if (known.target.valid() &&
          std::binary_search(silent_->begin(), silent_->end(), known.address))
        parts().health.Lost(id, known.target);
    }
  }
  return *silent_;
}

// Endpoints that have fallen silent are out, and lose the requests that wait for a first byte.
void DirectorPolicy::OnTick() {
  PolicyBase::OnTick();
  if (own_.pages == nullptr) return;
  if (loop_index() == 0) own_.pages->Look();
  const std::vector<std::string>& silent = Silent();
  if (silent.empty()) return;
  // An answer may let the next request of its connection begin.
  for (size_t i = 0, count = requests_.size(); i < count; ++i) {
    Request& request = *requests_[i];
    if (request.call != nullptr &&
        std::binary_search(silent.begin(), silent.end(), request.endpoint)) {
      LeaveSilent(request);
    }
  }
}

void DirectorPolicy::LeaveSilent(Request& request) {
  constexpr std::string_view kWhat = "its page has not answered for the staleness limit";
  Call& call = *request.call;
  call.Drop();
  Blame(request, relay::Failure::kTimeout, kWhat, /*sure=*/true);
  request.tries.OnFailed(relay::Failure::kTimeout);
  request.failure = relay::Failure::kTimeout;
  request.failure_text = "it fell silent";
  TryElsewhere(call, request);
}

void DirectorPolicy::GiveUp(Call& call, Request& request) {
  if (request.failure == relay::Failure::kDeadline) return Answer(call, 504, kTimeIsOver);
  const bool late = request.failure == relay::Failure::kTimeout;
  Answer(call, late ? 504 : 503,
         "no model server answered: " +
             (request.failure_text.empty() ? "no endpoint was tried" : request.failure_text));
}

void DirectorPolicy::Deny(Call& call, Request& request, const sched::Denial& denial) {
  request.call = nullptr;
  const std::string retry_after = std::to_string(denial.retry_after_s);
  request.edits.clear();
  request.edits.push_back({"content-type", "application/json"});
  request.edits.push_back({"x-request-id", request.id});
  if (!denial.dropped_reason.empty())
    request.edits.push_back({"x-llm-d-request-dropped-reason", denial.dropped_reason});
  if (denial.retry_after_s > 0) request.edits.push_back({"retry-after", retry_after});
  for (const auto& [name, value] : denial.headers) request.edits.push_back({name, value});
  AddAnswerEdits(request, request.edits);
  const std::string body = ErrorOf(request, denial.http_status, denial.message);
  call.Answer(denial.http_status, request.edits, body);
}

// Flow control took the request back after it was routed.
void DirectorPolicy::Evicted(Call& call, const sched::Denial& denial) {
  Request& request = Mine(call);
  if (!request.routed || request.abandoned) return;
  parts().logger.Warn(
      "flow control took the request back",
      {{"x-request-id", request.id.substr(0, 128)}, {"droppedReason", denial.dropped_reason}});
  if (!request.answering) return Deny(call, request, denial);
  call.BreakOff(ErrorOf(request, denial.http_status, denial.message));
}

// Cancels what was routed and has not ended.
void DirectorPolicy::EndRouting(Request& request) {
  if (std::exchange(request.routed, false) && request.routing.state)
    own_.director.Cancel(request.routing.state);
}

}  // namespace llmd::gateway
