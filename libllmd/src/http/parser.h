// Strict HTTP/1.1 reading, in place and without I/O: where a head ends, what it says, and where the
// pieces of a body lie. What RFC 9112 calls an error is one here, also where a recipient would be
// free to guess. Thread-compatible.
#pragma once

#include <cstdint>
#include <string_view>

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

// How the body that follows a head is delimited.
struct Framing {
  enum class Kind { kNone, kLength, kChunked, kUntilClose };
  Kind kind = Kind::kNone;
  uint64_t length = 0;
};

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

// `head` is what HeadScanner found, the blank line included.
WireError ParseRequest(std::string_view head, ParsedRequest* out);
// `to_head` = the answer is to a HEAD request and has no body whatever it declares.
WireError ParseResponse(std::string_view head, bool to_head, ParsedResponse* out);

// Walks a body. Each Next looks at the unread input: `framing` bytes at its front are not content
// and may be dropped, then comes `piece`, to be dropped by the caller before the next call.
class BodyDecoder {
 public:
  enum class State { kPiece, kMore, kEnd, kBad };
  explicit BodyDecoder(Framing framing = {}) : framing_(framing), left_(framing.length) {
    if (framing.kind == Framing::Kind::kChunked) left_ = 0;
  }
  State Next(std::string_view input, size_t* framing, std::string_view* piece);
  bool until_close() const { return framing_.kind == Framing::Kind::kUntilClose; }
  const Framing& framing() const { return framing_; }
  // What a declared length still lacks; 0 for the other kinds.
  uint64_t declared_left() const { return framing_.kind == Framing::Kind::kLength ? left_ : 0; }

 private:
  enum class Phase {
    kSize,
    kBlankBeforeExtension,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailer,
    kTrailerLf,
    kEnd
  };
  State NextChunked(std::string_view input, size_t* framing, std::string_view* piece);
  bool Step(char c);
  bool StepSize(char c);
  bool StepExtension(char c);
  bool StepTrailer(char c);

  Framing framing_;
  uint64_t left_ = 0;
  Phase phase_ = Phase::kSize;
  int digits_ = 0;
  size_t line_bytes_ = 0, trailer_bytes_ = 0;
};

}  // namespace llmd::http
