// A request at the doors: what is answered or refused here, what the doors change of heads, and
// what is settled when it is over.
#include <algorithm>
#include <memory>
#include <utility>

#include "gateway/policy_base.h"
#include "llmd/json_scan.h"

namespace llmd::gateway {
namespace {

using relay::Call;
using relay::HeaderEdit;

// From here on a body is scanned on another thread.
constexpr size_t kLargeBodyBytes = 1 << 20;

http::Response ModelsResponse(const doors::Doors& doors, doors::Admission& asked,
                              std::string_view path) {
  http::Response out;
  out.head.status = 200;
  out.head.headers.Add("content-type", "application/json");
  if (asked.route == doors::Route::kModels) {
    out.body = doors.ModelsBody(asked);
  } else if (!doors.ModelBody(path, asked, out.body)) {
    out.head.status = asked.refusal.status;
    asked.AppendBody(out.body);
  }
  return out;
}

}  // namespace

void PolicyBase::OnHead(Call& call) {
  Request& request = Begin(call);
  request.visit = &keeper_.Enter(call);
  const doors::Admission& admission = request.visit->admission;
  switch (admission.verdict) {
    case doors::Verdict::kForward:
      return;
    case doors::Verdict::kOwn:
      return AnswerHere(call, request);
    case doors::Verdict::kAnswer:
      return Answer(call, admission.status, {});
    case doors::Verdict::kRefuse:
      return Refuse(call, request, admission.refusal);
  }
}

void PolicyBase::OnRequest(Call& call) {
  Request& request = Of(call);
  observer_.Whole(request.record, call);
  if (request.page != nullptr) {
    return AnswerLater(call, [page = request.page, query = std::string(call.request().query())] {
      return page->make(query);
    });
  }
  if (request.models_page) return AnswerModels(call, request);
  if (call.body().size() >= kLargeBodyBytes) return ReadElsewhere(call, request);
  Admit(call, request, nullptr);
}

// The doors, and all that scans a body, take long for a large one: other requests of the loop do
// not wait for it. The body stays until it is read, whether the client waits for it or not.
void PolicyBase::ReadElsewhere(Call& call, Request& request) {
  const Status queued = parts_.workers.Submit([this, ref = call.ref(), body = call.body()] {
    auto members = std::make_shared<std::vector<json::ScannedMember>>();
    (void)json::ScanObjectInto(body, {}, *members);  // none of what is no object
    (void)ref.Post([this, members](Call& waiting) {
      Request& read = Of(waiting);
      read.reading = false;
      if (!read.left) return Admit(waiting, read, members.get());
      Give(read);
      waiting.LetGo();
    });
  });
  if (!queued.ok()) return Answer(call, 503, "too many large requests are being read");
  request.reading = true;
}

void PolicyBase::Admit(Call& call, Request& request,
                       const std::vector<json::ScannedMember>* members) {
  keeper_.Admit(call, members, *request.visit);
  const doors::Admission& admission = request.visit->admission;
  request.record.model.assign(admission.target_model.substr(0, services::NameCap::kMaxBytes));
  if (admission.verdict == doors::Verdict::kRefuse) return Refuse(call, request, admission.refusal);
  Serve(call, request);
}

// What takes a while to write waits for OnRequest.
void PolicyBase::AnswerHere(Call& call, Request& request) {
  const doors::Route route = request.visit->admission.route;
  request.models_page = route == doors::Route::kModels || route == doors::Route::kModel;
  if (request.models_page) return;
  const auto page = std::find_if(parts_.pages.begin(), parts_.pages.end(),
                                 [&](const LocalPage& each) { return each.path == request.path; });
  if (page == parts_.pages.end()) return Answer(call, 404, "there is no such page");
  if (page->slow) {
    request.page = &*page;
    return;
  }
  AnswerWith(call, page->make(call.request().query()));
}

// Written on another thread.
void PolicyBase::AnswerLater(Call& call, std::function<http::Response()> make) {
  const Status queued = parts_.workers.Submit([this, ref = call.ref(), make = std::move(make)] {
    auto made = std::make_shared<const http::Response>(make());
    (void)ref.Post([this, made](Call& asked) { AnswerWith(asked, *made); });
  });
  if (!queued.ok()) Answer(call, 503, queued.message());
}

void PolicyBase::AnswerModels(Call& call, const Request& request) {
  // Of the request's own nothing outlives its call.
  auto asked = std::make_shared<doors::Admission>();
  asked->route = request.visit->admission.route;
  asked->key = request.visit->admission.key;
  AnswerLater(call, [doors = &parts_.doors, asked, path = request.path] {
    return ModelsResponse(*doors, *asked, path);
  });
}

void PolicyBase::Refuse(Call& call, Request& request, const doors::Refusal& refusal) {
  request.record.refusal = refusal.code;
  std::string body;
  doors::AppendErrorBody(refusal, request.anthropic, body);
  const std::string seconds = std::to_string(refusal.retry_after_s);
  edits_.clear();
  edits_.push_back({"content-type", "application/json"});
  edits_.push_back({"x-request-id", request.id});
  AddAnswerEdits(request, edits_);
  const bool told = std::any_of(edits_.begin(), edits_.end(),
                                [](const HeaderEdit& edit) { return edit.name == "retry-after"; });
  if (refusal.retry_after_s > 0 && !told) edits_.push_back({"retry-after", seconds});
  call.Answer(refusal.status, edits_, body);
}

const http::RequestView& PolicyBase::HeadOf(const Call& call, const Request& request) {
  const bool edited = request.visit != nullptr && !request.visit->admission.request_edits().empty();
  return edited ? request.visit->head : call.request();
}

void PolicyBase::AddRequestEdits(const Request& request, std::vector<HeaderEdit>& edits) {
  if (request.visit == nullptr) return;
  const size_t own = edits.size();
  for (const doors::HeaderEdit& edit : request.visit->admission.request_edits()) {
    const bool edited =
        std::any_of(edits.begin(), edits.begin() + static_cast<ptrdiff_t>(own),
                    [&](const HeaderEdit& e) { return EqualsIgnoreCase(e.name, edit.name); });
    if (!edited) edits.push_back({edit.name, edit.value, edit.remove});
  }
}

void PolicyBase::AddAnswerEdits(const Request& request, std::vector<HeaderEdit>& edits) {
  if (request.visit == nullptr) return;
  for (const doors::HeaderEdit& edit : request.visit->admission.response_edits())
    edits.push_back({edit.name, edit.value, edit.remove});
}

// From here on only a key's request has anything to settle; of the others nothing stays for as
// long as their answers take.
void PolicyBase::Passes(const Call& call, Request& request) {
  request.answered = true;
  if (request.visit->admission.key == nullptr) LeaveDoors(request, call.now());
}

void PolicyBase::LeaveDoors(Request& request, TimePoint now) {
  if (request.visit == nullptr) return;
  keeper_.Leave(*std::exchange(request.visit, nullptr), UsageOf(request), now);
}

// What a key is charged: prompt and answer, where both are known.
doors::DoorUsage PolicyBase::UsageOf(const Request& request) {
  doors::DoorUsage out;
  out.answered = request.answered;
  const services::AnswerMeter& meter = request.record.meter;
  if (meter.prompt_tokens() < 0) return out;
  out.tokens = meter.prompt_tokens() + std::max<int64_t>(meter.completion_tokens(), 0);
  return out;
}

}  // namespace llmd::gateway
