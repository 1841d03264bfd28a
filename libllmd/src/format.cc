#include "llmd/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

namespace llmd {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;

char LowerByte(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// `v` / `unit` with as many decimals as it needs.
void AppendFraction(std::string& out, uint64_t v, uint64_t unit) {
  AppendInteger(out, v / unit);
  uint64_t rest = v % unit;
  if (rest == 0) return;
  out += '.';
  for (uint64_t scale = unit / 10; rest != 0; scale /= 10) {
    out += static_cast<char>('0' + rest / scale);
    rest %= scale;
  }
}

// Days since the epoch to a civil date; Howard Hinnant's days algorithm.
std::string CivilTime(int64_t seconds) {
  int64_t days = seconds / 86400;
  int64_t second = seconds % 86400;
  if (second < 0) {
    second += 86400;
    --days;
  }
  days += 719468;
  const int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const int64_t day_of_era = days - era * 146097;
  const int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t shifted_month = (5 * day_of_year + 2) / 153;
  const int64_t day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
  const int64_t month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
  const int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
  char buffer[64];
  const int n =
      std::snprintf(buffer, sizeof(buffer), "%04d-%02d-%02dT%02d:%02d:%02d", static_cast<int>(year),
                    static_cast<int>(month), static_cast<int>(day), static_cast<int>(second / 3600),
                    static_cast<int>(second / 60 % 60), static_cast<int>(second % 60));
  return {buffer, static_cast<size_t>(n)};
}

int64_t FloorSeconds(int64_t nanos) {
  return nanos / kNanosPerSecond - (nanos % kNanosPerSecond < 0 ? 1 : 0);
}

}  // namespace

void AppendPythonFloat(std::string& out, double v) {
  if (!std::isfinite(v)) {
    out += std::isnan(v) ? "nan" : (v > 0 ? "inf" : "-inf");
    return;
  }
  char buffer[40];
  const double magnitude = std::fabs(v);
  const bool fixed = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto [end, ec] =
      std::to_chars(buffer, buffer + sizeof(buffer), v,
                    fixed ? std::chars_format::fixed : std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  out += text;
  if (fixed && text.find('.') == std::string_view::npos) out += ".0";
}

std::string FormatRfc3339(int64_t unix_nanos) {
  return CivilTime(FloorSeconds(unix_nanos)) + "Z";
}

std::string FormatRfc3339Nano(int64_t unix_nanos) {
  const int64_t seconds = FloorSeconds(unix_nanos);
  std::string fraction;
  AppendFraction(fraction, static_cast<uint64_t>(unix_nanos - seconds * kNanosPerSecond),
                 kNanosPerSecond);
  return CivilTime(seconds) + fraction.substr(1) + "Z";
}

std::string FormatGoDuration(int64_t nanos) {
  if (nanos == 0) return "0s";
  std::string out = nanos < 0 ? "-" : "";
  uint64_t left =
      nanos < 0 ? uint64_t{0} - static_cast<uint64_t>(nanos) : static_cast<uint64_t>(nanos);
  if (left < kNanosPerSecond) {
    const bool is_nanos = left < 1000, is_micros = left < 1'000'000;
    AppendFraction(out, left, is_nanos ? 1 : is_micros ? 1000 : 1'000'000);
    return out + (is_nanos ? "ns" : is_micros ? "µs" : "ms");
  }
  constexpr uint64_t kMinute = 60 * uint64_t{kNanosPerSecond}, kHour = 60 * kMinute;
  const bool hours = left >= kHour;
  if (hours) {
    AppendInteger(out, left / kHour);
    out += 'h';
    left %= kHour;
  }
  if (hours || left >= kMinute) {
    AppendInteger(out, left / kMinute);
    out += 'm';
    left %= kMinute;
  }
  AppendFraction(out, left, kNanosPerSecond);
  return out + "s";
}

std::string ToLower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), LowerByte);
  return out;
}

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return LowerByte(x) == LowerByte(y);
         });
}

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

}  // namespace llmd
