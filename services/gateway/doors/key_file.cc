#include "gateway/doors/key_file.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <set>

#include "gateway/doors/glob.h"
#include "llmd/config.h"
#include "llmd/format.h"
#include "llmd/json.h"

namespace llmd::doors {
namespace {

constexpr size_t kMaxNodes = 1'000'000;
constexpr size_t kMaxErrors = 50;  // told of one file
constexpr size_t kMaxPattern = 512;

bool IsNameChar(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         std::string_view("._:@/-").find(c) != std::string_view::npos;
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<SecretHash> FromHex(std::string_view text) {
  SecretHash out;
  if (text.size() != 2 * out.size()) return std::nullopt;
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = HexValue(text[2 * i]), low = HexValue(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return out;
}

class KeyReader {
 public:
  KeyRecord Read(const config::Node& node) {
    KeyRecord key;
    key.id = node.Get("id").String().value_or("");
    id_ = key.id.substr(0, kMaxKeyName);
    Name(node, "id", true, &key.id);
    Hash(node.Get("sha256"), &key.sha256);
    Name(node, "tenant", true, &key.tenant);
    Name(node, "fairnessId", false, &key.fairness_id);
    Name(node, "objective", false, &key.objective);
    Models(node.Get("models"), &key.models);
    int64_t priority = 0;
    if (node.Has("priority") && Number(node, "priority", INT32_MIN, INT32_MAX, &priority))
      key.priority = static_cast<int32_t>(priority);
    Number(node, "requestsPerMinute", 1, kMaxPerMinute, &key.requests_per_minute);
    Number(node, "tokensPerMinute", 1, kMaxPerMinute, &key.tokens_per_minute);
    Flag(node.Get("trusted"), &key.trusted);
    Flag(node.Get("disabled"), &key.disabled);
    Expiry(node.Get("expires"), &key.expires_unix_s);
    Unique(node, key);
    if (Status status = node.RejectUnknown(); !status.ok()) Fail(status);
    return key;
  }
  void Fail(const Status& status) {
    if (++count_ > kMaxErrors) return;
    if (!errors_.empty()) errors_ += '\n';
    errors_ += status.message();
  }
  Status status() const {
    if (count_ == 0) return OkStatus();
    if (count_ <= kMaxErrors) return InvalidArgument(errors_);
    return InvalidArgument(errors_ + "\nand " + std::to_string(count_ - kMaxErrors) +
                           " more errors");
  }

 private:
  void Fail(const config::Node& node, const std::string& rule) {
    Fail(node.Error(id_.empty() ? rule : "key '" + id_ + "': " + rule));
  }
  void Name(const config::Node& parent, std::string_view field, bool required, std::string* out) {
    const config::Node node = parent.Get(field);
    if (node.IsNull() && !required) return;
    const auto text = node.String();
    const std::string name = text.ok() ? *text : "";
    if (Status status = CheckKeyName("the value", name); !status.ok())
      return Fail(node, status.message());
    *out = name;
  }
  void Hash(const config::Node& node, SecretHash* out) {
    const auto hash = FromHex(node.String().value_or(""));
    if (!hash || *hash == SecretHash{})
      return Fail(node, "expected the SHA-256 of the secret, 64 hexadecimal digits");
    *out = *hash;
  }
  void Models(const config::Node& node, std::vector<std::string>* out) {
    if (node.IsNull()) return;
    const auto models = node.Strings();
    if (!models.ok()) return Fail(models.status());
    if (models->empty() || models->size() > kMaxModelPatterns)
      return Fail(node, "expected 1 to " + std::to_string(kMaxModelPatterns) +
                            " patterns; without the list every model is allowed");
    for (const std::string& model : *models) {
      if (model.empty() || model.size() > kMaxPattern)
        return Fail(node, "a pattern has 1 to " + std::to_string(kMaxPattern) + " bytes");
    }
    *out = *models;
  }
  bool Number(const config::Node& parent, std::string_view field, int64_t least, int64_t most,
              int64_t* out) {
    const config::Node node = parent.Get(field);
    if (node.IsNull()) return false;
    const auto number = node.Int();
    if (!number.ok() || *number < least || *number > most) {
      Fail(node,
           "expected an integer from " + std::to_string(least) + " to " + std::to_string(most));
      return false;
    }
    *out = *number;
    return true;
  }
  void Flag(const config::Node& node, bool* out) {
    if (node.IsNull()) return;
    const auto flag = node.Bool();
    if (!flag.ok()) return Fail(node, "expected true or false");
    *out = *flag;
  }
  void Expiry(const config::Node& node, std::optional<int64_t>* out) {
    if (node.IsNull()) return;
    *out = ParseRfc3339(node.String().value_or(""));
    if (!*out) Fail(node, "expected a time as 2027-01-31T12:00:00Z (RFC 3339)");
  }
  void Unique(const config::Node& node, const KeyRecord& key) {
    if (!key.id.empty() && !ids_.insert(key.id).second)
      Fail(node.Get("id"), "another key has this id");
    if (key.sha256 != SecretHash{} && !hashes_.insert(key.sha256).second)
      Fail(node.Get("sha256"), "another key has this secret");
  }

  std::string id_, errors_;
  size_t count_ = 0;
  std::set<std::string> ids_;
  std::set<SecretHash> hashes_;
};

void AppendText(std::string& out, std::string_view key, std::string_view text) {
  if (text.empty()) return;
  out.append("  ").append(key).append(": ");
  json::AppendQuoted(out, text);
  out += '\n';
}

void AppendKey(std::string& out, const KeyRecord& key) {
  out += "- id: ";
  json::AppendQuoted(out, key.id);
  out += '\n';
  AppendText(out, "sha256", ToHex(key.sha256));
  AppendText(out, "tenant", key.tenant);
  if (!key.models.empty()) {
    json::Array models(key.models.begin(), key.models.end());
    out += "  models: " + json::Value(std::move(models)).Dump() + "\n";
  }
  if (key.priority) out += "  priority: " + std::to_string(*key.priority) + "\n";
  AppendText(out, "objective", key.objective);
  AppendText(out, "fairnessId", key.fairness_id);
  if (key.requests_per_minute > 0)
    out += "  requestsPerMinute: " + std::to_string(key.requests_per_minute) + "\n";
  if (key.tokens_per_minute > 0)
    out += "  tokensPerMinute: " + std::to_string(key.tokens_per_minute) + "\n";
  if (key.trusted) out += "  trusted: true\n";
  if (key.disabled) out += "  disabled: true\n";
  if (key.expires_unix_s)
    AppendText(out, "expires", FormatRfc3339(*key.expires_unix_s * 1'000'000'000));
}

}  // namespace

bool KeyRecord::MayUse(std::string_view model) const {
  return models.empty() ||
         std::any_of(models.begin(), models.end(),
                     [&](const std::string& pattern) { return GlobMatches(pattern, model); });
}

Status CheckKeyName(std::string_view what, std::string_view name) {
  if (!name.empty() && name.size() <= kMaxKeyName &&
      std::all_of(name.begin(), name.end(), IsNameChar)) {
    return OkStatus();
  }
  return InvalidArgument(std::string(what) + ": expected 1 to " + std::to_string(kMaxKeyName) +
                         " letters, digits and . _ : @ / -");
}

StatusOr<std::vector<KeyRecord>> ParseKeyFile(std::string_view text) {
  LLMD_ASSIGN_OR_RETURN(const config::Node root,
                        config::Parse(text, {kMaxKeyFileBytes, kMaxNodes, 10}));
  KeyReader reader;
  const config::Node list = root.Get("keys");
  // A file that is only half written says nothing; that there are none must be said.
  if (!list.IsList()) reader.Fail(list.Error("expected a list of keys; [] says there are none"));
  const std::vector<config::Node> items = list.Items();
  if (items.size() > kMaxKeys) return list.Error("more than " + std::to_string(kMaxKeys) + " keys");
  std::vector<KeyRecord> out;
  out.reserve(items.size());
  for (const config::Node& item : items) {
    if (item.IsMap())
      out.push_back(reader.Read(item));
    else
      reader.Fail(item.Error("expected a map"));
  }
  if (Status status = root.RejectUnknown(false); !status.ok()) reader.Fail(status);
  LLMD_RETURN_IF_ERROR(reader.status());
  return out;
}

StatusOr<std::vector<KeyRecord>> ReadKeyFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("'" + path + "' cannot be opened");
  std::string text(kMaxKeyFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxKeyFileBytes) return InvalidArgument("'" + path + "' is above 8 MiB");
  auto keys = ParseKeyFile(text);
  if (!keys.ok()) return keys.status().WithContext(path);
  return keys;
}

std::string FormatKeyFile(const std::vector<KeyRecord>& keys) {
  std::string out = "# Keys of llmd-gateway; written by llmd key, which keeps no comments.\n";
  out += keys.empty() ? "keys: []\n" : "keys:\n";
  for (const KeyRecord& key : keys) AppendKey(out, key);
  return out;
}

std::string ToHex(const SecretHash& hash) {
  std::string out;
  for (const uint8_t byte : hash) {
    out += "0123456789abcdef"[byte >> 4];
    out += "0123456789abcdef"[byte & 15];
  }
  return out;
}

std::optional<int64_t> ParseRfc3339(std::string_view text) {
  // "YYYY-MM-DDTHH:MM:SS" and "Z" or "+HH:MM".
  constexpr std::string_view kShape = "dddd-dd-ddTdd:dd:dd";
  if (text.size() != kShape.size() + 1 && text.size() != kShape.size() + 6) return std::nullopt;
  const bool zulu = text.size() == kShape.size() + 1;
  const std::string shape = std::string(kShape) + (zulu ? "Z" : "+dd:dd");
  for (size_t i = 0; i < shape.size(); ++i) {
    const char c = text[i], s = shape[i];
    const bool digit = c >= '0' && c <= '9';
    if (s == 'd' ? !digit : s == '+' ? c != '+' && c != '-' : c != s) return std::nullopt;
  }
  const auto number = [&](size_t at, size_t size) {
    int out = 0;
    for (const char c : text.substr(at, size)) out = out * 10 + (c - '0');
    return out;
  };
  const std::chrono::year_month_day date{std::chrono::year(number(0, 4)),
                                         std::chrono::month(static_cast<unsigned>(number(5, 2))),
                                         std::chrono::day(static_cast<unsigned>(number(8, 2)))};
  const int hour = number(11, 2), minute = number(14, 2), second = number(17, 2);
  const int east = zulu ? 0 : (number(20, 2) * 60 + number(23, 2)) * (text[19] == '-' ? -1 : 1);
  if (!date.ok() || hour > 23 || minute > 59 || second > 59) return std::nullopt;
  if (!zulu && (number(20, 2) > 23 || number(23, 2) > 59)) return std::nullopt;
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  const int64_t seconds = ((days * 24 + hour) * 60 + minute - east) * 60 + second;
  // FormatRfc3339 takes nanoseconds.
  if (seconds > std::numeric_limits<int64_t>::max() / 1'000'000'000 || seconds < 0)
    return std::nullopt;
  return seconds;
}

}  // namespace llmd::doors
