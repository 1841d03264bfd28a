#include "gateway/director_policy.h"

#include <algorithm>

#include "gateway/picker_headers.h"
#include "llmd/http/routing_headers.h"

namespace llmd::gateway {
namespace {

using relay::Call;
using relay::HeaderEdit;

sched::EndpointId IdOf(uint64_t key) {
  return static_cast<sched::EndpointId>(key);
}

}  // namespace

DirectorPolicy::DirectorPolicy(const PolicyParts& parts, const DirectorParts& own,
                               relay::Loop& loop)
    : PolicyBase(parts, loop), own_(own), ejected_(parts.health.Ejected()) {}

DirectorPolicy::~DirectorPolicy() = default;

void DirectorPolicy::Request::Clear() {
  routing.Clear();
  state.reset();
  call = served = nullptr;
  attempt = 0;
  unwanted.reset();
  deciding = abandoned = panic = routed = answering = backing_off = false;
  target_model.clear();
  failed.clear();
  exclude.clear();
  next = 0;
  endpoint_id = {};
  failure = relay::Failure::kOurs;
  failure_text.clear();
  edits.clear();
  body.clear();
}

PolicyBase::Request& DirectorPolicy::Take() {
  if (free_.empty()) {
    requests_.push_back(std::make_unique<Request>());
    requests_.back()->owner = this;
    free_.push_back(requests_.back().get());
  }
  Request* const request = free_.back();
  free_.pop_back();
  return *request;
}

void DirectorPolicy::Give(PolicyBase::Request& request) {
  auto& own = static_cast<Request&>(request);
  own.Clear();
  free_.push_back(&own);
}

void DirectorPolicy::Serve(Call& call, PolicyBase::Request& request) {
  auto& own = static_cast<Request&>(request);
  FillPickerHeaders(HeadOf(call, own), call.tls(), own.id, own.headers);
  own.asked = call.now();
  own.served = &call;
  Decide(call, own);
}

PolicyBase::Key DirectorPolicy::Answering(const PolicyBase::Request& request,
                                          relay::Target* target) const {
  const auto& own = static_cast<const Request&>(request);
  *target = own.target;
  return static_cast<Key>(own.endpoint_id);
}

void DirectorPolicy::OnResponseHead(Call& call, const http::ResponseView& head) {
  Request& request = Mine(call);
  request.call = nullptr;
  if (Betters(call, request, head)) return;
  observer().Answering(request.record, head);
  own_.director.OnServed(request.routing.state, request.endpoint);
  FillAnswerHeaders(head.headers, request.answer_headers);
  const sched::HeaderList set =
      own_.director.OnResponseHeaders(request.routing.state, head.status, request.answer_headers);
  request.edits.clear();
  for (const auto& [name, value] : set) request.edits.push_back({name, value});
  request.edits.push_back({"x-request-id", request.id});
  if (head.status >= 502) request.edits.push_back({http::kUpstreamFailure, {}, /*remove=*/true});
  AddAnswerEdits(request, request.edits);
  Passes(call, request);
  request.answering = true;
  if (request.routing.skip_response) {
    own_.director.OnResponseBodySkipped(request.routing.state);
    return call.Forward(request.edits, relay::BodyMode::kWatch);
  }
  call.Forward(request.edits,
               request.routing.edits_response ? relay::BodyMode::kEdit : relay::BodyMode::kWatch);
}

relay::Piece DirectorPolicy::OnResponseBytes(Call& call, std::string_view piece, bool end) {
  Request& request = Mine(call);
  observer().Piece(request.record, call.now(), piece, end);
  if (request.routing.skip_response) return {piece};
  if (end) request.routed = false;
  const bool changed =
      own_.director.OnResponseBody(request.routing.state, piece, end, &request.replaced);
  return {changed ? std::string_view(request.replaced) : piece};
}

bool DirectorPolicy::Ended(Call& call, PolicyBase::Request& ended, const relay::Outcome& outcome) {
  auto& request = static_cast<Request&>(ended);
  request.call = nullptr;
  if (request.answering && outcome.whole && request.routed && request.routing.skip_response) {
    own_.director.OnResponseBody(request.routing.state, {}, true, &request.replaced);
    request.routed = false;
  }
  if (!request.deciding) {
    EndRouting(request);
    return true;
  }
  // The Director reads the request until it has answered.
  request.abandoned = true;
  if (request.unwanted) request.unwanted->store(true, std::memory_order_relaxed);
  call.Retain();
  if (request.state) own_.director.Cancel(request.state);
  return false;
}

const DirectorPolicy::Known* DirectorPolicy::KnownOf(sched::EndpointId id,
                                                     std::string_view address) {
  constexpr size_t kMaxKnown = 8192;  // endpoints come and go
  if (targets_.size() > kMaxKnown) targets_.clear();
  Known& known = targets_[static_cast<uint64_t>(id)];
  if (known.address != address) {
    auto parsed = relay::Target::Parse(address);
    known.address.assign(address);
    known.name = NameOf(known.address);
    known.target = parsed.ok() ? *parsed : relay::Target();
  }
  return known.target.valid() ? &known : nullptr;
}

// The address where it is nobody's: its endpoint has left, or the request goes to another port.
const std::string& DirectorPolicy::NameOf(const std::string& address) {
  if (const auto at = names_.find(address); at != names_.end()) return at->second;
  names_.clear();
  for (const sched::EndpointInfo& each : own_.director.Endpoints())
    names_.emplace(each.HostPort(), each.FullName());
  const auto at = names_.find(address);
  return at != names_.end() ? at->second : address;
}

const std::vector<DirectorPolicy::Key>& DirectorPolicy::Ejected() {
  if (const uint64_t version = parts().health.version(); version != ejected_version_) {
    ejected_version_ = version;
    ejected_ = parts().health.Ejected();
  }
  return *ejected_;
}

bool DirectorPolicy::IsEjected(sched::EndpointId id) {
  const std::vector<Key>& out = Ejected();
  return std::binary_search(out.begin(), out.end(), static_cast<Key>(id));
}

// Whom not to ask: those it failed at, and those that are out.
void DirectorPolicy::Exclude(Request& request) {
  request.exclude = request.failed;
  if (request.panic) return;
  for (const Key key : Ejected()) {
    if (std::find(request.failed.begin(), request.failed.end(), IdOf(key)) == request.failed.end())
      request.exclude.push_back(IdOf(key));
  }
}

}  // namespace llmd::gateway
