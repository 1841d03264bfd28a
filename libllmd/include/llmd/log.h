// Structured logs: one JSON object per line, the layout of the field's endpoint picker (zap):
// level, ts, logger, caller, msg, then key/values. Loggers are passed in; there is no global one.
#pragma once

#include <atomic>
#include <initializer_list>
#include <memory>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"
#include "llmd/json.h"
#include "llmd/status.h"

namespace llmd {

// Verbosity as llm-d numbers it. kInfo and below are always written ("info"); V(n) prints as
// "Level(-n)".
enum class LogLevel : int {
  kError = -2,
  kWarn = -1,
  kInfo = 0,
  kDefault = 2,
  kVerbose = 3,
  kDebug = 4,
  kTrace = 5
};

struct LogField {
  std::string_view key;
  json::Value value;
};

// Takes finished lines (newline included). Thread-safe implementations only.
class LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void Write(std::string_view line) = 0;
};

// Writes each line to a file descriptor, in one write(2) where the system takes it whole. Does not
// own the descriptor.
std::shared_ptr<LogSink> FdLogSink(int fd);
// Collects lines; for tests.
class MemoryLogSink;

// A sink, a level and fixed fields. Cheap to copy; thread-safe.
class Logger {
 public:
  // Writes nowhere.
  Logger();
  // `clock` outlives the logger and its copies.
  Logger(std::shared_ptr<LogSink> sink, LogLevel level, const Clock& clock = SystemClock());

  // The same sink and level (shared: SetLevel acts on all), "logger":"parent.name" in every line.
  Logger Named(std::string_view name) const;
  // The same with one more field on every line.
  Logger With(std::string_view key, const json::Value& value) const;

  bool Enabled(LogLevel level) const {
    return static_cast<int>(level) <= level_->load(std::memory_order_relaxed);
  }
  void SetLevel(LogLevel level) const {
    level_->store(static_cast<int>(level), std::memory_order_relaxed);
  }

  // Writes one line. Above kDebug 4 KiB of a text field are kept, over 1 MiB the start of `msg`.
  // `fields` are made even when the level is off: ask Enabled first where they cost something.
  void Log(LogLevel level, std::string_view msg, std::initializer_list<LogField> fields = {},
           std::source_location where = std::source_location::current()) const;
  void Error(std::string_view msg, std::initializer_list<LogField> fields = {},
             std::source_location where = std::source_location::current()) const {
    Log(LogLevel::kError, msg, fields, where);
  }
  void Warn(std::string_view msg, std::initializer_list<LogField> fields = {},
            std::source_location where = std::source_location::current()) const {
    Log(LogLevel::kWarn, msg, fields, where);
  }
  void Info(std::string_view msg, std::initializer_list<LogField> fields = {},
            std::source_location where = std::source_location::current()) const {
    Log(LogLevel::kInfo, msg, fields, where);
  }

 private:
  std::string Head(LogLevel level, std::string_view msg, const std::source_location& where) const;

  std::shared_ptr<LogSink> sink_;
  std::shared_ptr<std::atomic<int>> level_;
  const Clock* clock_;
  std::string name_;
  std::string suffix_;  // the fixed fields, already as JSON members
};

class MemoryLogSink final : public LogSink {
 public:
  void Write(std::string_view line) override;
  // The lines so far, parsed.
  std::vector<json::Value> Lines() const;

 private:
  struct State;
  std::shared_ptr<State> state_ = MakeState();
  static std::shared_ptr<State> MakeState();
};

}  // namespace llmd
