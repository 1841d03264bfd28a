#include "plugins/data/metric_spec.h"

#include <algorithm>
#include <cctype>

#include "llmd/prom_text.h"

namespace llmd::sched {
namespace {

std::string_view Trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

bool IsName(std::string_view text, bool metric) {
  const auto fits = [&](unsigned char c) {
    return std::isalnum(c) || c == '_' || (metric && c == ':');
  };
  return !text.empty() && !std::isdigit(static_cast<unsigned char>(text[0])) &&
         std::all_of(text.begin(), text.end(), fits);
}

Status Wrong(std::string_view text, std::string_view why) {
  return InvalidArgument("expected name{label=value,…}, got '" + std::string(text) +
                         "': " + std::string(why));
}

// Where the value at the start of `text` ends: behind its closing quote, or at the next comma.
size_t ValueEnd(std::string_view text) {
  if (!text.starts_with('"')) return std::min(text.find(','), text.size());
  size_t at = 1;
  while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
  return std::min(at + 1, text.size());
}

}  // namespace

bool MetricSpec::Matches(std::string_view sample_labels) const {
  return std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
    return FindLabel(sample_labels, label.first) == label.second;
  });
}

StatusOr<MetricSpec> ParseMetricSpec(std::string_view text) {
  MetricSpec out;
  const size_t brace = text.find('{');
  out.name = Trim(text.substr(0, brace));
  if (!IsName(out.name, true)) return Wrong(text, "the name is no metric name");
  if (brace == std::string_view::npos) return out;
  std::string_view rest = Trim(text.substr(brace + 1));
  if (!rest.ends_with('}')) return Wrong(text, "the brace is not closed");
  rest = Trim(rest.substr(0, rest.size() - 1));
  while (!rest.empty()) {
    const size_t equals = rest.find('=');
    if (equals == std::string_view::npos) return Wrong(text, "a label has no value");
    const std::string_view label = Trim(rest.substr(0, equals));
    if (!IsName(label, false)) return Wrong(text, "'" + std::string(label) + "' is no label name");
    rest = Trim(rest.substr(equals + 1));
    const size_t end = ValueEnd(rest);
    std::string_view value = Trim(rest.substr(0, end));
    if (value.starts_with('"')) {
      if (value.size() < 2 || !value.ends_with('"')) return Wrong(text, "a quote is not closed");
      value = value.substr(1, value.size() - 2);
    }
    out.labels.emplace_back(label, value);
    rest = Trim(rest.substr(end));
    if (rest.starts_with(','))
      rest = Trim(rest.substr(1));
    else if (!rest.empty())
      return Wrong(text, "expected a comma after a value");
  }
  return out;
}

}  // namespace llmd::sched
