#include "gateway/picker_headers.h"

#include "llmd/http/routing_headers.h"

namespace llmd::gateway {
namespace {

// Fills a list in place, so that its strings keep their memory.
class Filler {
 public:
  explicit Filler(sched::HeaderList& out) : out_(out) {}
  ~Filler() { out_.resize(at_); }
  Filler(const Filler&) = delete;
  Filler& operator=(const Filler&) = delete;

  void Add(std::string_view name, std::string_view value) {
    if (at_ == out_.size()) out_.emplace_back();
    auto& [own_name, own_value] = out_[at_++];
    own_name.assign(name);
    for (char& c : own_name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    own_value.assign(value);
  }

 private:
  sched::HeaderList& out_;
  size_t at_ = 0;
};

}  // namespace

void FillPickerHeaders(const http::RequestView& request, bool tls, std::string_view request_id,
                       sched::HeaderList& out) {
  Filler fill(out);
  fill.Add(":method", request.method);
  fill.Add(":path", request.target);
  fill.Add(":scheme", tls ? "https" : "http");
  fill.Add(":authority", request.headers.Get(http::Known::kHost).value_or(""));
  for (const http::HeaderLine& line : request.headers.lines) {
    switch (line.known) {
      case http::Known::kHost:
      case http::Known::kXRequestId:
      case http::Known::kExpect:
      case http::Known::kContentLength:
        continue;
      default:
        break;
    }
    if (http::IsHopByHop(line.known) || http::IsRoutingHeader(line.name)) continue;
    fill.Add(line.name, line.value);
  }
  fill.Add("x-request-id", request_id);
}

void FillAnswerHeaders(const http::HeaderLines& lines, sched::HeaderList& out) {
  Filler fill(out);
  for (const http::HeaderLine& line : lines.lines) fill.Add(line.name, line.value);
}

}  // namespace llmd::gateway
