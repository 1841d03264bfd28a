#include <string>

#include "common/page_reader.h"
#include "fuzz/fuzz.h"

namespace {
using llmd::StatusOr;
using llmd::services::PageReader;

constexpr size_t kMaxBody = 512;

// Status and body of a whole answer, "more" or "error".
template <typename Pieces>
std::string Read(Pieces&& pieces) {
  PageReader reader(kMaxBody);
  StatusOr<bool> whole = false;
  pieces([&](std::string_view bytes) {
    // The peer may say more than one answer: what follows is not ours to read.
    if (whole.ok() && !*whole) whole = reader.Feed(bytes);
  });
  if (whole.ok() && !*whole) whole = reader.FeedEnd();
  if (!whole.ok()) return "error";
  const std::string body = reader.TakeBody();
  FUZZ_EXPECT(body.size() <= kMaxBody);
  return std::to_string(reader.status()) + " " + body;
}
}  // namespace

FUZZ_TARGET(scraped_page) {
  const uint8_t seed = llmd::fuzz::TakeByte(input);
  const std::string whole = Read([&](auto&& take) { take(input); });
  const std::string split = Read([&](auto&& take) { llmd::fuzz::InPieces(input, seed, take); });
  // In pieces, an answer is over before it is seen that something follows it.
  if (whole != "error") FUZZ_EXPECT(split == whole);
}
