// A line of JSON for the log, put together in memory that is used again. The layout is the
// Logger's: level, ts, logger, msg, then the fields.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "llmd/clock.h"

namespace llmd::services {

// Thread-compatible.
class JsonLine {
 public:
  static constexpr size_t kMaxText = 4096;

  // Starts another line; `logger` and `msg` are plain words.
  void Begin(int64_t unix_nanos, std::string_view logger, std::string_view msg);
  // Keys are plain words. Of a text at most kMaxText bytes are kept.
  void Text(std::string_view key, std::string_view value);
  void Number(std::string_view key, int64_t value);
  void Seconds(std::string_view key, Duration value);  // to the microsecond
  void Flag(std::string_view key, bool value);
  // The whole line, newline included; holds until Begin.
  std::string_view End();

 private:
  void Key(std::string_view key);

  std::string line_, stamp_;
  int64_t stamped_ = -1;  // the second that stamp_ says
};

}  // namespace llmd::services
