// What was meant by a name that nobody knows: the known names near to it, for messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace llmd {

// At most `most` of the candidates, the nearest first: those a few typing errors away, then those
// that hold every word of `word` ("kv-scorer" finds "kv-cache-utilization-scorer"). Case does not
// count. Empty when none is near.
std::vector<std::string> NearestNames(std::string_view word,
                                      const std::vector<std::string>& candidates, size_t most = 3);

// The end of a message about an unknown name: "; did you mean 'a', 'b' or 'c'?", or "; known: a, b"
// where none is near and the list is short, or "".
std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace llmd
