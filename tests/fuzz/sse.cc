#include "llmd/http/sse.h"

#include <utility>
#include <vector>

#include "fuzz/fuzz.h"

namespace {
using Events = std::vector<std::pair<std::string, std::string>>;

template <typename Feed>
Events Read(size_t limit, size_t* dropped, Feed&& feed) {
  Events events;
  llmd::http::SseReader reader(limit);
  feed([&](std::string_view bytes) {
    reader.Feed(bytes, [&](const auto& e) { events.emplace_back(e.type, e.data); });
  });
  *dropped = reader.dropped_events();
  return events;
}
}  // namespace

FUZZ_TARGET(sse) {
  const uint8_t seed = llmd::fuzz::TakeByte(input);
  const size_t limit = (seed & 1) != 0 ? 24 : 4096;
  size_t dropped_whole = 0, dropped_split = 0;
  const Events whole = Read(limit, &dropped_whole, [&](auto&& take) { take(input); });
  const Events split =
      Read(limit, &dropped_split, [&](auto&& take) { llmd::fuzz::InPieces(input, seed, take); });
  FUZZ_EXPECT(whole == split);
  FUZZ_EXPECT(dropped_whole == dropped_split);
  for (const auto& [type, data] : whole) {
    FUZZ_EXPECT(data.size() <= limit);
#ifdef LLMD_FUZZ_PLANT
    FUZZ_EXPECT(type.size() < 2);  // wrong on purpose: scripts/fuzz.sh --self-test must find it
#endif
  }
}
