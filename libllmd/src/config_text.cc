#include <algorithm>
#include <charconv>
#include <limits>

#include "llmd/config.h"
#include "llmd/format.h"
#include "llmd/nearest.h"

namespace llmd::config {
namespace {

using Wide = unsigned __int128;

constexpr uint64_t kMaxNanos = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
constexpr size_t kMaxComparedBytes = 128;

// Nanoseconds of the unit that `text` starts with, its name cut off; 0 when there is none.
uint64_t TakeUnit(std::string_view& text) {
  struct Unit {
    std::string_view name;
    uint64_t nanos;
  };
  static constexpr Unit kUnits[] = {
      {"ns", 1},         {"us", 1'000},        {"µs", 1'000},         {"μs", 1'000},
      {"ms", 1'000'000}, {"s", 1'000'000'000}, {"m", 60'000'000'000}, {"h", 3'600'000'000'000}};
  const size_t end = std::min(text.find_first_of("0123456789."), text.size());
  const std::string_view name = text.substr(0, end);
  text.remove_prefix(end);
  for (const Unit& unit : kUnits) {
    if (unit.name == name) return unit.nanos;
  }
  return 0;
}

// Digits at the start of `text`, cut off, as a number that stays at `limit` once beyond it.
Wide TakeDigits(std::string_view& text, Wide limit, size_t* count) {
  Wide value = 0;
  *count = 0;
  while (!text.empty() && text[0] >= '0' && text[0] <= '9') {
    value = std::min(value * 10 + static_cast<Wide>(text[0] - '0'), limit);
    text.remove_prefix(1);
    ++*count;
  }
  return value;
}

// One "<number><unit>" cut off `text`, in nanoseconds; false when malformed.
bool TakeTerm(std::string_view& text, Wide* nanos) {
  constexpr size_t kKeptFractionDigits = 18;
  size_t whole_digits = 0, fraction_digits = 0;
  const Wide whole = TakeDigits(text, Wide{kMaxNanos} + 1, &whole_digits);
  Wide fraction = 0, scale = 1;
  if (!text.empty() && text[0] == '.') {
    text.remove_prefix(1);
    std::string_view kept = text.substr(0, kKeptFractionDigits);
    size_t kept_digits = 0, rest_digits = 0;
    fraction = TakeDigits(kept, ~Wide{0}, &kept_digits);
    text.remove_prefix(kept_digits);
    if (kept_digits == kKeptFractionDigits) TakeDigits(text, 0, &rest_digits);
    fraction_digits = kept_digits;
    for (size_t i = 0; i < kept_digits; ++i) scale *= 10;
  }
  if (whole_digits + fraction_digits == 0) return false;
  const uint64_t unit = TakeUnit(text);
  if (unit == 0) return false;
  *nanos = whole * unit + fraction * unit / scale;
  return true;
}

}  // namespace

StatusOr<std::chrono::nanoseconds> ParseGoDuration(std::string_view text) {
  const auto invalid = [original = std::string(text.substr(0, kMaxComparedBytes))] {
    return InvalidArgument("expected a duration with a unit, as '200ms' or '1m30s', got '" +
                           original + "'");
  };
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text == "0") return std::chrono::nanoseconds(0);
  if (text.empty()) return invalid();
  Wide total = 0;
  while (!text.empty()) {
    Wide term = 0;
    if (!TakeTerm(text, &term)) return invalid();
    total += term;
    if (total > kMaxNanos) return invalid();
  }
  const auto nanos = static_cast<int64_t>(total);
  return std::chrono::nanoseconds(negative ? -nanos : nanos);
}

std::string Nearest(std::string_view word, const std::vector<std::string>& candidates) {
  const std::vector<std::string> near = NearestNames(word, candidates, 1);
  return near.empty() ? "" : near[0];
}

}  // namespace llmd::config
