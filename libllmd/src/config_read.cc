#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "config_document.h"
#include "llmd/format.h"

namespace llmd::config {
namespace {

constexpr size_t kShownBytes = 64;

struct Unit {
  std::string_view name;
  double factor;
};

// "expected X, got 'many'".
Status Mismatch(const Node& node, const Tree* tree, std::string_view expected) {
  std::string got = "nothing";
  if (tree) {
    switch (tree->kind) {
      case Tree::Kind::kNull:
        got = "null";
        break;
      case Tree::Kind::kScalar:
        got = "'" + tree->scalar.substr(0, kShownBytes) + "'";
        break;
      case Tree::Kind::kList:
        got = "a list";
        break;
      case Tree::Kind::kMap:
        got = "a map";
        break;
    }
  }
  return node.Error("expected " + std::string(expected) + ", got " + got);
}

bool OneOf(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

bool LooksTyped(std::string_view text) {
  bool b = false;
  int64_t i = 0;
  double d = 0;
  return ReadBool(text, &b) || ReadInt(text, &i) || ReadDouble(text, &d);
}

bool IsDecimal(std::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  size_t digits = 0, points = 0;
  size_t i = 0;
  for (; i < text.size() && text[i] != 'e' && text[i] != 'E'; ++i) {
    if (text[i] == '.') {
      ++points;
    } else if (text[i] >= '0' && text[i] <= '9') {
      ++digits;
    } else {
      return false;
    }
  }
  return digits > 0 && points <= 1;
}

bool ToDouble(std::string_view text, double* out) {
  if (!IsDecimal(text)) return false;
  if (text[0] == '+') text.remove_prefix(1);
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return ec == std::errc{} && end == text.data() + text.size();
}

const Unit* FindUnit(std::string_view name) {
  static constexpr Unit kUnits[] = {
      {"", 1},        {"n", 1e-9},    {"u", 1e-6},    {"m", 1e-3},
      {"k", 1e3},     {"M", 1e6},     {"G", 1e9},     {"T", 1e12},
      {"P", 1e15},    {"E", 1e18},    {"Ki", 1024.0}, {"Mi", 1048576.0},
      {"Gi", 0x1p30}, {"Ti", 0x1p40}, {"Pi", 0x1p50}, {"Ei", 0x1p60}};
  const auto* it = std::find_if(std::begin(kUnits), std::end(kUnits),
                                [name](const Unit& u) { return u.name == name; });
  return it == std::end(kUnits) ? nullptr : it;
}

bool ReadQuantity(std::string_view text, double* out) {
  const size_t last_digit = text.find_last_of("0123456789.");
  if (last_digit == std::string_view::npos) return false;
  const Unit* unit = FindUnit(text.substr(last_digit + 1));
  if (!unit || !ToDouble(text.substr(0, last_digit + 1), out)) return false;
  *out *= unit->factor;
  return true;
}

}  // namespace

bool IsNullText(std::string_view text) {
  return OneOf(text, {"", "~", "null", "Null", "NULL"});
}

bool ReadBool(std::string_view text, bool* out) {
  *out = OneOf(text, {"true", "True", "TRUE"});
  return *out || OneOf(text, {"false", "False", "FALSE"});
}

bool ReadInt(std::string_view text, int64_t* out) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0o")) {
    base = text[1] == 'x' ? 16 : 8;
    text.remove_prefix(2);
    if (text.starts_with('-')) return false;
  } else if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return false;
  }
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), *out, base);
  return ec == std::errc{} && end == text.data() + text.size();
}

bool ReadDouble(std::string_view text, double* out) {
  if (OneOf(text, {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"})) {
    *out = std::numeric_limits<double>::infinity();
  } else if (OneOf(text, {"-.inf", "-.Inf", "-.INF"})) {
    *out = -std::numeric_limits<double>::infinity();
  } else if (OneOf(text, {".nan", ".NaN", ".NAN"})) {
    *out = std::numeric_limits<double>::quiet_NaN();
  } else {
    return ToDouble(text, out);
  }
  return true;
}

StatusOr<std::string> Node::String() const {
  if (!IsScalar()) return Mismatch(*this, impl_->tree, "a string");
  if (!impl_->tree->quoted && LooksTyped(impl_->tree->scalar)) {
    return Mismatch(*this, impl_->tree, "a string (put it in quotes)");
  }
  return impl_->tree->scalar;
}

StatusOr<int64_t> Node::Int() const {
  int64_t value = 0;
  if (IsScalar() && !impl_->tree->quoted && ReadInt(impl_->tree->scalar, &value)) return value;
  return Mismatch(*this, impl_->tree, "an integer");
}

StatusOr<double> Node::Double() const {
  double value = 0;
  int64_t integer = 0;
  if (IsScalar() && !impl_->tree->quoted) {
    if (ReadDouble(impl_->tree->scalar, &value)) return value;
    if (ReadInt(impl_->tree->scalar, &integer)) return static_cast<double>(integer);
  }
  return Mismatch(*this, impl_->tree, "a number");
}

StatusOr<bool> Node::Bool() const {
  bool value = false;
  if (IsScalar() && !impl_->tree->quoted && ReadBool(impl_->tree->scalar, &value)) return value;
  return Mismatch(*this, impl_->tree, "true or false");
}

StatusOr<std::chrono::nanoseconds> Node::Duration() const {
  if (IsScalar()) {
    if (auto parsed = ParseGoDuration(impl_->tree->scalar); parsed.ok()) return parsed;
  }
  return Mismatch(*this, impl_->tree, "a duration with a unit, as '200ms' or '1m30s'");
}

StatusOr<double> Node::Quantity() const {
  double value = 0;
  if (IsScalar() && ReadQuantity(impl_->tree->scalar, &value)) return value;
  return Mismatch(*this, impl_->tree, "a quantity, as '500', '4k' or '2Gi'");
}

StatusOr<std::vector<std::string>> Node::Strings() const {
  if (!IsList()) return Mismatch(*this, impl_->tree, "a list of strings");
  std::vector<std::string> out;
  for (const Node& item : Items()) {
    LLMD_ASSIGN_OR_RETURN(std::string text, item.String());
    out.push_back(std::move(text));
  }
  return out;
}

}  // namespace llmd::config
