// Message heads as bytes. Values that would break the framing (CR, LF, NUL) are written as blanks.
// Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "llmd/http/head_view.h"
#include "llmd/http/message.h"

namespace llmd::http {

// The lines a writer decides about itself; the same lines in the head are left out.
struct ResponseFraming {
  enum class Body { kNone, kLength, kChunked, kUntilClose } body = Body::kLength;
  uint64_t length = 0;
  enum class Persist { kDefault, kClose, kKeepAlive } persist = Persist::kDefault;
};
// Those lines, to `out`.
void AppendBodyLines(const ResponseFraming& framing, std::string* out);
bool IsFramingLine(Known name);
// One line; AppendClean does what the paragraph above says of values.
void AppendLine(std::string_view name, std::string_view value, std::string* out);
void AppendClean(std::string_view text, std::string* out);
// "Date: …\r\n", formatted once a second and thread.
std::string_view DateLine();
// The line before a chunk of so many bytes.
std::string_view ChunkHead(size_t bytes, char (&buffer)[24]);

std::string WriteResponseHead(const ResponseHead& head, const ResponseFraming& framing);

// Sets Host from `host` when absent; Content-Length is `body_bytes`, left out when 0 and the method
// takes no body.
std::string WriteRequestHead(const RequestHead& head, std::string_view host, size_t body_bytes);

// The default body of a refusal: an OpenAI error object. `message` is one of our own literals.
Response ErrorResponse(int status, std::string_view message);

}  // namespace llmd::http
