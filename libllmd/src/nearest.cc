#include "llmd/nearest.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace llmd {
namespace {

constexpr size_t kMaxComparedBytes = 128;
constexpr size_t kShortList = 12;

std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
  return out;
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

std::vector<std::string> WordsOf(std::string_view name) {
  std::vector<std::string> out(1);
  for (char c : name) {
    if (c == '-' || c == '_' || c == ' ' || c == '.') {
      out.emplace_back();
    } else {
      out.back() += c;
    }
  }
  std::erase(out, "");
  return out;
}

bool HoldsAll(const std::vector<std::string>& words, const std::vector<std::string>& of) {
  return !of.empty() && std::all_of(of.begin(), of.end(), [&](const std::string& word) {
    return std::find(words.begin(), words.end(), word) != words.end();
  });
}

}  // namespace

std::vector<std::string> NearestNames(std::string_view word,
                                      const std::vector<std::string>& candidates, size_t most) {
  if (word.empty() || word.size() > kMaxComparedBytes) return {};
  const std::string lower = Lower(word);
  const std::vector<std::string> words = WordsOf(lower);
  const size_t limit = std::max<size_t>(2, word.size() / 3);
  std::vector<std::pair<size_t, const std::string*>> found;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kMaxComparedBytes) continue;
    const std::string name = Lower(candidate);
    const size_t distance = EditDistance(lower, name);
    if (distance <= limit && distance < candidate.size()) {
      found.emplace_back(distance, &candidate);
    } else if (HoldsAll(WordsOf(name), words)) {
      found.emplace_back(limit + distance, &candidate);
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> out;
  for (size_t i = 0; i < std::min(most, found.size()); ++i) out.push_back(*found[i].second);
  return out;
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::vector<std::string> near = NearestNames(word, candidates);
  if (near.empty()) {
    if (candidates.empty() || candidates.size() > kShortList) return "";
    std::string known = "; known: ";
    for (const std::string& name : candidates)
      known += (&name == &candidates[0] ? "" : ", ") + name;
    return known;
  }
  std::string out = "; did you mean ";
  for (size_t i = 0; i < near.size(); ++i) {
    if (i > 0) out += i + 1 == near.size() ? " or " : ", ";
    out += "'" + near[i] + "'";
  }
  return out + "?";
}

}  // namespace llmd
