// Answers of engines that another one may better: "too busy", "not ready". Kept while the request
// is tried elsewhere, and passed on as they came when nobody else can.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/http/relay/call.h"

namespace llmd::gateway {

// What an answer's head says of where its request should be.
struct Verdict {
  bool elsewhere = false;  // 429, 503, or a sidecar's 502 to 504 for a leg that failed
  bool busy = false;       // it is the engine's own: waiting here does not help
  // A sidecar says how its engine failed it: held against the endpoint as if it had been seen here.
  std::optional<relay::Failure> failure;
};
Verdict Judge(const http::ResponseView& head);

class KeptAnswer {
 public:
  static constexpr size_t kMaxBytes = 256 << 10;  // of body; larger ones pass at once
  // False: too large to be kept.
  static bool Fits(const http::ResponseView& head);

  // Copies all but what concerns one connection, and the request's id.
  void Keep(const http::ResponseView& head, std::string_view body);
  bool there() const { return status_ != 0; }
  // Answers the call with it, with these edits of its head.
  void Send(relay::Call& call, std::span<const relay::HeaderEdit> edits) const;
  void Clear();

 private:
  struct Line {
    size_t name, value, end;  // in text_
  };
  int status_ = 0;
  std::string text_, body_;
  std::vector<Line> lines_;
};

}  // namespace llmd::gateway
