#include <vector>

#include "fuzz/fuzz.h"
#include "llmd/text/detokenizer.h"

// input: seed, then stop strings and text, each up to a NUL.
FUZZ_TARGET(stop_matcher) {
  const uint8_t seed = llmd::fuzz::TakeByte(input);
  std::vector<std::string> stops;
  for (size_t nul; stops.size() < 4 && (nul = input.find('\0')) != std::string_view::npos;) {
    stops.emplace_back(input.substr(0, nul));
    input.remove_prefix(nul + 1);
  }
  const bool include = (seed & 1) != 0;
  size_t best_end = std::string_view::npos, best_start = 0;
  int best = -1;
  for (size_t i = 0; i < stops.size(); ++i) {
    const size_t at = stops[i].empty() ? std::string_view::npos : input.find(stops[i]);
    if (at == std::string_view::npos || at + stops[i].size() >= best_end) continue;
    best_start = at;
    best_end = at + stops[i].size();
    best = static_cast<int>(i);
  }
  llmd::text::StopMatcher matcher(stops, include);
  std::string text;
  int matched = -1;
  llmd::fuzz::InPieces(input, seed, [&](std::string_view piece) {
    const auto result = matcher.Push(piece);
    text += result.text;
    matched = result.matched;
  });
  if (matched < 0) text += matcher.Finish();
  FUZZ_EXPECT(matched == best);
  FUZZ_EXPECT(text == (best < 0 ? input : input.substr(0, include ? best_end : best_start)));
}
