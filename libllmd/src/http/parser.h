// Strict HTTP/1.1 reading, in place and without I/O: where a head ends, what it says, and where the
// pieces of a body lie. What RFC 9112 calls an error is one here, also where a recipient would be
// free to guess. Thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "http/body_decoder.h"
#include "llmd/http/head_view.h"
#include "llmd/http/message.h"

namespace llmd::http {

// What is wrong with a message, and the status a server answers it with. status 0 = nothing is
// wrong.
struct WireError {
  int status = 0;
  std::string_view message;
  bool ok() const { return status == 0; }
};

struct HeadLimits {
  size_t max_bytes = 64 * 1024;
  size_t max_lines = 200;
};

// Finds the blank line that ends a head. Feed takes everything since the head's first byte and
// looks at new bytes only.
class HeadScanner {
 public:
  explicit HeadScanner(HeadLimits limits) : limits_(limits) {}
  // True once the head is whole; false when more is needed or error() says what is wrong.
  bool Feed(std::string_view bytes);
  const WireError& error() const { return error_; }
  size_t head_bytes() const { return head_bytes_; }
  // Blank lines that some clients send between requests.
  static size_t LeadingBlankLines(std::string_view bytes);

 private:
  bool Fail(int status, std::string_view message);
  HeadLimits limits_;
  size_t line_start_ = 0, scanned_ = 0, lines_ = 0, head_bytes_ = 0;
  WireError error_;
};

// A request's head as views into the bytes it was read from (and into this object). To be used
// again: its buffers stay. Not movable while the view is in use.
struct RequestHeadView {
  RequestView view;
  Framing framing;
  bool keep_alive = true;
  bool expects_continue = false;
  bool announces_body = false;  // by a Content-Length, be it 0, or chunks
  std::vector<HeaderLine> lines;
  std::string rewritten_target;  // of an absolute form without a path
  void Clear();
};
struct ResponseHeadView {
  ResponseView view;
  Framing framing;
  bool keep_alive = true;
  bool bodyless = false;  // whatever it declares: the answer to a HEAD, 1xx, 204, 304
  bool declares_length = false;
  uint64_t declared_length = 0;
  std::vector<HeaderLine> lines;
  void Clear();
};

// `head` is what HeadScanner found, the blank line included.
WireError ReadRequestHead(std::string_view head, RequestHeadView* out);
// `to_head` = the answer is to a HEAD request and has no body whatever it declares.
WireError ReadResponseHead(std::string_view head, bool to_head, ResponseHeadView* out);

// The same as values.
struct ParsedRequest {
  RequestHead head;
  Framing framing;
  bool keep_alive = true;
  bool expects_continue = false;
};
struct ParsedResponse {
  ResponseHead head;
  Framing framing;
  bool keep_alive = true;
};
WireError ParseRequest(std::string_view head, ParsedRequest* out);
WireError ParseResponse(std::string_view head, bool to_head, ParsedResponse* out);

}  // namespace llmd::http
