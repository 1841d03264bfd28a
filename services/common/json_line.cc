#include "common/json_line.h"

#include <charconv>

#include "llmd/format.h"
#include "llmd/json.h"

namespace llmd::services {

void JsonLine::Begin(int64_t unix_nanos, std::string_view logger, std::string_view msg) {
  if (const int64_t second = unix_nanos / 1'000'000'000; second != stamped_) {
    stamp_ = FormatRfc3339(unix_nanos);
    stamped_ = second;
  }
  line_.assign("{\"level\":\"info\",\"ts\":\"").append(stamp_);
  line_.append("\",\"logger\":\"").append(logger);
  line_.append("\",\"msg\":\"").append(msg).append("\"");
}

void JsonLine::Key(std::string_view key) {
  line_.append(",\"").append(key).append("\":");
}

void JsonLine::Text(std::string_view key, std::string_view value) {
  Key(key);
  if (value.size() > kMaxText) {
    size_t cut = kMaxText;
    while (cut > kMaxText - 3 && (static_cast<unsigned char>(value[cut]) & 0xC0) == 0x80) --cut;
    value = value.substr(0, cut);
  }
  json::AppendQuoted(line_, value);
}

void JsonLine::Number(std::string_view key, int64_t value) {
  Key(key);
  AppendInteger(line_, value);
}

void JsonLine::Seconds(std::string_view key, Duration value) {
  Key(key);
  const int64_t micros = value.count() / 1000;
  AppendInteger(line_, micros / 1'000'000);
  char digits[8] = {'.'};
  int64_t rest = micros < 0 ? 0 : micros % 1'000'000;
  for (int i = 6; i > 0; --i, rest /= 10) digits[i] = static_cast<char>('0' + rest % 10);
  line_.append(digits, 7);
}

void JsonLine::Flag(std::string_view key, bool value) {
  Key(key);
  line_.append(value ? "true" : "false");
}

std::string_view JsonLine::End() {
  line_.append("}\n");
  return line_;
}

}  // namespace llmd::services
