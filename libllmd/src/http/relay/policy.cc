#include "llmd/http/relay/policy.h"

#include <array>
#include <span>
#include <string>

#include "llmd/http/error_body.h"

namespace llmd::relay {

std::string_view NameOf(Failure failure) {
  switch (failure) {
    case Failure::kRefused:
      return "refused";
    case Failure::kReset:
      return "reset";
    case Failure::kTimeout:
      return "timeout";
    case Failure::kProtocol:
      return "protocol";
    case Failure::kDeadline:
      return "deadline";
    case Failure::kOurs:
      break;
  }
  return "ours";
}

void Policy::OnRefused(Call& call, const Refusal& refusal) {
  const std::string seconds = std::to_string(refusal.retry_after_s);
  const std::array<HeaderEdit, 2> headers = {HeaderEdit{"Content-Type", "application/json"},
                                             HeaderEdit{"Retry-After", seconds}};
  const std::string body = http::ErrorBody(refusal.status, refusal.message);
  call.Answer(refusal.status, std::span(headers).first(refusal.retry_after_s > 0 ? 2 : 1), body);
}

std::string_view Policy::OnCut(Call& call, Failure failure, std::string_view what) {
  static const std::string kBody = http::ErrorBody(502, "the model server broke off its answer");
  return kBody;
}

CallRef Loop::MakeRef(Loop* loop, uint32_t slot, uint32_t generation) {
  CallRef out;
  out.loop_ = loop;
  out.slot_ = slot;
  out.generation_ = generation;
  return out;
}

bool CallRef::Post(std::function<void(Call&)> fn) const {
  return loop_ != nullptr && loop_->PostTo(slot_, generation_, std::move(fn));
}

}  // namespace llmd::relay
