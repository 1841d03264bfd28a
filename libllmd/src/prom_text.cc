#include "llmd/prom_text.h"

#include <charconv>
#include <cstring>

namespace llmd {
namespace {

bool IsBlank(char c) {
  return c == ' ' || c == '\t';
}

std::string_view SkipBlanks(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  return text;
}

// Where the quoted value that starts behind `at`'s opening quote ends; npos when it does not.
size_t ClosingQuote(std::string_view text, size_t at) {
  for (; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;
    } else if (text[at] == '"') {
      return at;
    }
  }
  return std::string_view::npos;
}

// The index of the brace that closes the labels; braces inside quotes do not count.
size_t ClosingBrace(std::string_view text) {
  size_t at = 0;
  while (at < text.size() && text[at] != '}') {
    if (text[at] == '"') at = ClosingQuote(text, at + 1);
    if (at == std::string_view::npos) return at;
    ++at;
  }
  return at < text.size() ? at : std::string_view::npos;
}

bool ReadValue(std::string_view text, PromSample* out) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const char* const end = text.data() + text.size();
  const auto [rest, ec] = std::from_chars(text.data(), end, out->value);
  if (ec != std::errc{} || (rest != end && !IsBlank(*rest) && *rest != '\r')) return false;
  const std::string_view stamp = SkipBlanks(text.substr(static_cast<size_t>(rest - text.data())));
  if (!stamp.empty()) std::from_chars(stamp.data(), end, out->timestamp_ms);
  return true;
}

// What stands behind the name of a chosen line.
bool ReadTail(std::string_view tail, PromSample* sample) {
  sample->labels = {};
  if (tail.starts_with('{')) {
    tail.remove_prefix(1);
    const size_t brace = ClosingBrace(tail);
    if (brace == std::string_view::npos) return false;
    sample->labels = tail.substr(0, brace);
    tail.remove_prefix(brace + 1);
  }
  return ReadValue(SkipBlanks(tail), sample);
}

bool IsNameEnd(char c) {
  return c == '{' || IsBlank(c);
}

}  // namespace

PromScanResult PromScanner::ScanWith(std::string_view page, Callback callback,
                                     void* context) const {
  PromScanResult result;
  if (page.starts_with("\xEF\xBB\xBF")) page.remove_prefix(3);  // a byte order mark
  const char* at = page.data();
  const char* const end = at + page.size();
  while (at < end) {
    const auto* newline = static_cast<const char*>(std::memchr(at, '\n', end - at));
    const std::string_view line(at, (newline ? newline : end) - at);
    for (size_t i = 0; i < names_.size(); ++i) {
      const std::string& name = names_[i];
      // The byte behind the name is compared first: it differs for nearly every other series.
      if (line.size() <= name.size() || !IsNameEnd(line[name.size()]) || !line.starts_with(name)) {
        continue;
      }
      PromSample sample{i, {}, 0};
      if (ReadTail(SkipBlanks(line.substr(name.size())), &sample)) {
        ++result.samples;
        callback(context, sample);
      } else {
        ++result.malformed;
      }
      break;
    }
    if (!newline) break;
    at = newline + 1;
  }
  return result;
}

std::optional<std::string_view> FindLabel(std::string_view labels, std::string_view name) {
  while (true) {
    while (!labels.empty() && (IsBlank(labels.front()) || labels.front() == ',')) {
      labels.remove_prefix(1);
    }
    const size_t equals = labels.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    std::string_view key = labels.substr(0, equals);
    while (!key.empty() && IsBlank(key.back())) key.remove_suffix(1);
    labels = SkipBlanks(labels.substr(equals + 1));
    if (!labels.starts_with('"')) return std::nullopt;
    const size_t quote = ClosingQuote(labels, 1);
    if (quote == std::string_view::npos) return std::nullopt;
    if (key == name) return labels.substr(1, quote - 1);
    labels.remove_prefix(quote + 1);
  }
}

std::string UnescapeLabel(std::string_view raw) {
  std::string out;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\' || i + 1 == raw.size()) {
      out += raw[i];
      continue;
    }
    ++i;
    out += raw[i] == 'n' ? '\n' : raw[i];
  }
  return out;
}

}  // namespace llmd
