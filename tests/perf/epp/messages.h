// What Envoy sends an endpoint picker for one HTTP exchange, built once and patched per request,
// and the little of the picker's answers that a load generator looks at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmd::perf {

struct ExchangeShape {
  size_t body_bytes = 300;      // of the request, a chat with one user message
  size_t chunk_bytes = 16'384;  // of a body message
  size_t response_bytes = 500;
  bool sse = false;           // the answer's headers announce an event stream
  size_t shared_prompts = 0;  // > 0: that many different prompts; 0: no two alike
};

// One exchange's messages, each with its gRPC prefix. Each concurrent exchange has its own.
class Exchange {
 public:
  explicit Exchange(const ExchangeShape& shape);
  // A fresh x-request-id and prompt.
  void Renew(uint64_t number);
  const std::vector<std::string>& request() const { return request_; }  // headers, then the body
  const std::string& response_headers() const { return response_headers_; }
  const std::string& response_body() const { return response_body_; }
  const std::string& sse_chunk() const { return sse_chunk_; }
  const std::string& sse_end() const { return sse_end_; }
  size_t body_bytes() const { return body_bytes_; }

 private:
  std::vector<std::string> request_;
  std::string response_headers_, response_body_, sse_chunk_, sse_end_;
  size_t id_at_ = 0, prompt_at_ = 0, body_bytes_ = 0, shared_prompts_ = 0;
};

enum class ReplyKind {
  kRequestHeaders,
  kRequestBody,
  kResponseHeaders,
  kResponseBody,
  kImmediate,
  kOther
};
struct Reply {
  ReplyKind kind = ReplyKind::kOther;
  std::string_view body;  // of a body reply
  bool end_of_stream = false;
  std::string_view destination;  // "127.0.0.1:PORT" of a request headers reply
  int status = 0;                // of an immediate reply
};
Reply ReadReply(std::string_view message);

}  // namespace llmd::perf
