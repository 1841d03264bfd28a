#include <algorithm>

#include "fuzz/fuzz.h"
#include "http/parser.h"

using namespace llmd::http;  // NOLINT

namespace {
struct Outcome {
  int status = 0;
  size_t head_bytes = 0;
  std::string body;
  BodyDecoder::State state = BodyDecoder::State::kMore;
  bool operator==(const Outcome&) const = default;
};

void DrainBody(BodyDecoder& decoder, std::string& unread, Outcome* out) {
  while (out->state == BodyDecoder::State::kMore && !unread.empty()) {
    size_t framing = 0;
    std::string_view piece;
    const auto state = decoder.Next(unread, &framing, &piece);
    FUZZ_EXPECT(framing + piece.size() <= unread.size());
    out->body += piece;
    unread.erase(0, framing + piece.size());
    if (state == BodyDecoder::State::kPiece) continue;
    out->state = state;
    return;
  }
}

// Feeds the message cut by `seed`; 0 = in one piece.
Outcome Read(std::string_view input, uint32_t seed) {
  Outcome out;
  HeadScanner scanner({.max_bytes = 2048, .max_lines = 20});
  BodyDecoder decoder;
  std::string unread;
  bool in_body = false;
  auto feed = [&](std::string_view bytes) {
    if (out.status != 0) return;
    unread += bytes;
    if (!in_body) {
      in_body = scanner.Feed(unread);
      out.status = scanner.error().status;
      if (!in_body) return;
      ParsedRequest request;
      out.head_bytes = scanner.head_bytes();
      out.status =
          ParseRequest(std::string_view(unread).substr(0, out.head_bytes), &request).status;
      decoder = BodyDecoder(request.framing);
      unread.erase(0, out.head_bytes);
    }
    if (out.status == 0) DrainBody(decoder, unread, &out);
  };
  seed == 0 ? feed(input) : llmd::fuzz::InPieces(input, seed, feed);
  return out;
}
}  // namespace

FUZZ_TARGET(http_message) {
  const uint32_t seed = llmd::fuzz::TakeByte(input) + 1u;
  FUZZ_EXPECT(Read(input, 0) == Read(input, seed));
}
