#include "cli/bench/trace_file.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "cli/bench/options.h"
#include "llmd/format.h"
#include "llmd/json.h"

namespace llmd::bench {
namespace {

constexpr std::string_view kAzureHead = "TIMESTAMP,ContextTokens,GeneratedTokens";

StatusOr<uint64_t> Tokens(std::string_view name, std::string_view text) {
  uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{} || end != text.data() + text.size() || value > kMaxTokens) {
    return InvalidArgument(std::string(name) + ": expected an integer from 0 to " +
                           std::to_string(kMaxTokens) + ", got '" +
                           std::string(text.substr(0, 40)) + "'");
  }
  return value;
}

StatusOr<uint64_t> Member(const json::Value& line, const char* name) {
  const json::Value& value = line[name];
  if (!value.is_int() || value.AsInt(-1) < 0 || value.AsUint() > kMaxTokens) {
    return InvalidArgument(std::string(name) + ": expected an integer from 0 to " +
                           std::to_string(kMaxTokens) + ", got " + value.Dump().substr(0, 40));
  }
  return value.AsUint();
}

// Takes `digits` digits off the front; -1 when they are not there.
int TakeDigits(std::string_view& text, size_t digits) {
  int value = 0;
  if (text.size() < digits) return -1;
  for (size_t i = 0; i < digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return value;
}

bool TakeChar(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

int64_t TakeFraction(std::string_view& text) {
  if (!TakeChar(text, '.')) return 0;
  int64_t nanos = 0, unit = 100'000'000;
  for (; !text.empty() && text[0] >= '0' && text[0] <= '9'; unit /= 10) {
    nanos += (text[0] - '0') * unit;
    text.remove_prefix(1);
  }
  return nanos;
}

// "2023-11-16 18:15:46.6805900", with or without "+00:00" behind it, as ns since the epoch.
StatusOr<int64_t> Stamp(std::string_view text) {
  std::string_view rest = text;
  const int year = TakeDigits(rest, 4);
  bool ok = TakeChar(rest, '-');
  const int month = TakeDigits(rest, 2);
  ok = TakeChar(rest, '-') && ok;
  const int day = TakeDigits(rest, 2);
  ok = (TakeChar(rest, ' ') || TakeChar(rest, 'T')) && ok;
  const int hour = TakeDigits(rest, 2);
  ok = TakeChar(rest, ':') && ok;
  const int minute = TakeDigits(rest, 2);
  ok = TakeChar(rest, ':') && ok;
  const int second = TakeDigits(rest, 2);
  const int64_t nanos = TakeFraction(rest);
  using namespace std::chrono;
  const year_month_day date(std::chrono::year(year),
                            std::chrono::month(static_cast<unsigned>(month)),
                            std::chrono::day(static_cast<unsigned>(day)));
  // Years outside would not fit into 64 bits of nanoseconds.
  if (!ok || year < 1970 || year > 2200 || !date.ok() || hour < 0 || hour > 23 || minute < 0 ||
      minute > 59 || second < 0 || second > 60 || (!rest.empty() && rest != "+00:00")) {
    return InvalidArgument("TIMESTAMP: expected YYYY-MM-DD hh:mm:ss[.fraction][+00:00], got '" +
                           std::string(text.substr(0, 40)) + "'");
  }
  const auto at = sys_days(date) + hours(hour) + minutes(minute) + seconds(second);
  return duration_cast<nanoseconds>(at.time_since_epoch()).count() + nanos;
}

StatusOr<bool> IsAzure(const std::string& path, const std::string& format) {
  if (format == "azure" || format == "mooncake") return format == "azure";
  if (!format.empty()) {
    return InvalidArgument("trace format '" + format + "': expected mooncake or azure");
  }
  if (path.ends_with(".csv")) return true;
  if (path.ends_with(".jsonl")) return false;
  return InvalidArgument(path + ": the name ends in neither .jsonl nor .csv: say --trace-format");
}

}  // namespace

Status Trace::AddMooncake(std::string_view line) {
  LLMD_ASSIGN_OR_RETURN(const json::Value value, json::Parse(line));
  if (!value.is_object()) return InvalidArgument("expected a JSON object");
  const json::Value& stamp = value["timestamp"];
  const double ms = stamp.AsDouble(-1);
  if (!stamp.is_number() || !(ms >= 0) || ms > 1e13) {
    return InvalidArgument("timestamp: expected milliseconds, got " + stamp.Dump().substr(0, 40));
  }
  Entry entry;
  entry.at_ns = static_cast<int64_t>(std::llround(ms * 1e6));
  LLMD_ASSIGN_OR_RETURN(entry.input_tokens, Member(value, "input_length"));
  LLMD_ASSIGN_OR_RETURN(entry.output_tokens, Member(value, "output_length"));
  const json::Value& ids = value["hash_ids"];
  if (!ids.is_null() && !ids.is_array()) return InvalidArgument("hash_ids: expected a list");
  entry.first_block = blocks_.size();
  for (const json::Value& id : ids.AsArray()) {
    if (!id.is_int()) return InvalidArgument("hash_ids: expected integers");
    blocks_.push_back(static_cast<uint64_t>(id.AsInt(static_cast<int64_t>(id.AsUint()))));
  }
  entry.blocks = blocks_.size() - entry.first_block;
  entries_.push_back(entry);
  return OkStatus();
}

Status Trace::AddAzure(std::string_view line) {
  const size_t first = line.find(','), second = line.find(',', first + 1);
  if (first == std::string_view::npos || second == std::string_view::npos) {
    return InvalidArgument("expected three fields: " + std::string(kAzureHead));
  }
  Entry entry;
  LLMD_ASSIGN_OR_RETURN(entry.at_ns, Stamp(line.substr(0, first)));
  LLMD_ASSIGN_OR_RETURN(entry.input_tokens,
                        Tokens("ContextTokens", line.substr(first + 1, second - first - 1)));
  LLMD_ASSIGN_OR_RETURN(entry.output_tokens, Tokens("GeneratedTokens", line.substr(second + 1)));
  entries_.push_back(entry);
  return OkStatus();
}

void Trace::Sort() {
  for (size_t i = 0; i < entries_.size(); ++i) entries_[i].order = i;
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.at_ns, a.order) < std::pair(b.at_ns, b.order);
  });
  const int64_t start = entries_.front().at_ns;
  for (Entry& entry : entries_) entry.at_ns -= start;
}

StatusOr<Trace> Trace::Load(const std::string& path, const std::string& format) {
  LLMD_ASSIGN_OR_RETURN(const bool azure, IsAzure(path, format));
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return NotFound(path + ": " + error.message());
  if (size > kMaxBytes) return InvalidArgument(path + ": larger than 1 GiB");
  std::ifstream in(path);
  if (!in) return NotFound(path + ": cannot be read");
  Trace trace;
  std::string text;
  for (size_t number = 1; std::getline(in, text); ++number) {
    const std::string_view line = Trim(text);
    if (line.empty() || (azure && number == 1 && line == kAzureHead)) continue;
    const Status added = azure ? trace.AddAzure(line) : trace.AddMooncake(line);
    if (!added.ok()) return added.WithContext(path + " line " + std::to_string(number));
    if (trace.entries_.size() > kMaxEntries) {
      return InvalidArgument(path + ": more than 10,000,000 requests");
    }
  }
  if (trace.entries_.empty()) return InvalidArgument(path + ": holds no requests");
  trace.Sort();
  return trace;
}

}  // namespace llmd::bench
