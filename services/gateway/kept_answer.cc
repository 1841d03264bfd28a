#include "gateway/kept_answer.h"

#include <algorithm>
#include <charconv>

#include "llmd/http/connection_names.h"
#include "llmd/http/message.h"
#include "llmd/http/routing_headers.h"

namespace llmd::gateway {
namespace {

using relay::Failure;

std::optional<Failure> FailureOf(std::string_view name) {
  for (const Failure each :
       {Failure::kRefused, Failure::kReset, Failure::kTimeout, Failure::kProtocol}) {
    if (name == relay::NameOf(each)) return each;
  }
  return std::nullopt;
}

bool IsKept(const http::HeaderLine& line, const http::ConnectionNames& named) {
  switch (line.known) {
    case http::Known::kContentLength:  // written anew
    case http::Known::kDate:
    case http::Known::kXRequestId:
      return false;
    default:
      return !http::IsHopByHop(line.known) && !named.Contain(line.name) &&
             !http::EqualsIgnoreCase(line.name, http::kUpstreamFailure);
  }
}

}  // namespace

Verdict Judge(const http::ResponseView& head) {
  Verdict out;
  if (head.status != 429 && (head.status < 502 || head.status > 504)) return out;
  const auto told = head.headers.Get(http::kUpstreamFailure);
  out.busy = !told && (head.status == 429 || head.status == 503);
  out.elsewhere = out.busy || told;
  if (told) out.failure = FailureOf(*told);
  return out;
}

bool KeptAnswer::Fits(const http::ResponseView& head) {
  const auto length = head.headers.Get(http::Known::kContentLength);
  if (!length) return true;
  size_t bytes = 0;
  const auto read = std::from_chars(length->data(), length->data() + length->size(), bytes);
  return read.ec == std::errc() && bytes <= kMaxBytes;
}

void KeptAnswer::Keep(const http::ResponseView& head, std::string_view body) {
  Clear();
  status_ = head.status;
  body_.assign(body);
  const http::ConnectionNames named(head.headers);
  for (const http::HeaderLine& line : head.headers.lines) {
    if (!IsKept(line, named)) continue;
    const size_t name = text_.size(), value = name + line.name.size();
    text_.append(line.name).append(line.value);
    lines_.push_back({name, value, text_.size()});
  }
}

void KeptAnswer::Send(relay::Call& call, std::span<const relay::HeaderEdit> edits) const {
  std::vector<relay::HeaderEdit> headers;
  headers.reserve(lines_.size() + edits.size());
  const std::string_view text = text_;
  for (const Line& line : lines_) {
    const std::string_view name = text.substr(line.name, line.value - line.name);
    const bool edited = std::any_of(edits.begin(), edits.end(), [name](const relay::HeaderEdit& e) {
      return http::EqualsIgnoreCase(e.name, name);
    });
    if (!edited) headers.push_back({name, text.substr(line.value, line.end - line.value)});
  }
  headers.insert(headers.end(), edits.begin(), edits.end());
  call.Answer(status_, headers, body_);
}

void KeptAnswer::Clear() {
  status_ = 0;
  text_.clear();
  body_.clear();
  lines_.clear();
}

}  // namespace llmd::gateway
