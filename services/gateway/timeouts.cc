#include "gateway/timeouts.h"

#include <algorithm>

#include "llmd/config.h"

namespace llmd::gateway {
namespace {

Status Set(std::string_view item, Timeouts& timeouts) {
  const std::string name(item.substr(0, item.find(':')));
  Duration* const field = name == "first-byte" ? &timeouts.first_byte
                          : name == "gap"      ? &timeouts.gap
                          : name == "request"  ? &timeouts.whole
                                               : nullptr;
  if (field == nullptr || name.size() == item.size())
    return InvalidArgument("'" + std::string(item) +
                           "': expected first-byte:TIME, gap:TIME or request:TIME");
  auto time = config::ParseGoDuration(item.substr(name.size() + 1));
  if (!time.ok()) return time.status().WithContext(name);
  if (*time < Duration::zero() || (*time == Duration::zero() && field != &timeouts.whole))
    return InvalidArgument(name + ": expected a time above zero");
  *field = *time;
  return OkStatus();
}

}  // namespace

StatusOr<TimeoutTable::Rule> TimeoutTable::Read(std::string_view text, const Timeouts& all) {
  Rule rule;
  rule.timeouts = all;
  const size_t equals = text.find('=');
  if (!text.starts_with('/') || equals == std::string_view::npos)
    return InvalidArgument("expected /PATH=first-byte:TIME,gap:TIME,request:TIME");
  rule.path = text.substr(0, equals);
  if (rule.path.ends_with('*')) {
    rule.prefix = true;
    rule.path.pop_back();
  }
  if (rule.path.find('*') != std::string::npos)
    return InvalidArgument("'*' stands at the end of the path or not at all");
  size_t at = equals;
  while (at != std::string_view::npos) {
    const size_t end = text.find(',', ++at);
    LLMD_RETURN_IF_ERROR(Set(text.substr(at, end - at), rule.timeouts));
    at = end;
  }
  return rule;
}

StatusOr<TimeoutTable> TimeoutTable::Create(const Timeouts& all,
                                            const std::vector<std::string>& rules) {
  if (std::min(all.first_byte, all.gap) <= Duration::zero())
    return InvalidArgument("--first-byte-timeout and --gap-timeout: expected a time above zero");
  if (all.whole < Duration::zero())
    return InvalidArgument("--request-timeout: expected a time of zero or above");
  if (rules.size() > kMaxRules)
    return InvalidArgument("--path-timeout: more than " + std::to_string(kMaxRules) + " of them");
  TimeoutTable table;
  table.all_ = all;
  for (const std::string& text : rules) {
    auto rule = Read(text, all);
    if (!rule.ok()) return rule.status().WithContext("--path-timeout '" + text + "'");
    table.rules_.push_back(std::move(*rule));
  }
  return table;
}

const Timeouts& TimeoutTable::Of(std::string_view path) const {
  for (const Rule& rule : rules_) {
    if (rule.prefix ? path.starts_with(rule.path) : path == rule.path) return rule.timeouts;
  }
  return all_;
}

}  // namespace llmd::gateway
