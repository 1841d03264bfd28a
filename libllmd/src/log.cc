#include "llmd/log.h"

#include <mutex>

#include "llmd/format.h"

namespace llmd {
namespace {

constexpr size_t kMaxLineBytes = size_t{1} << 20;
// Below every level, errors included.
constexpr int kNothing = -100;
constexpr size_t kKeptMessageBytes = size_t{1} << 12;
constexpr size_t kMaxFieldBytes = size_t{1} << 12;

// As zap names logr's levels.
void AppendLevel(std::string& out, LogLevel level) {
  const int v = static_cast<int>(level);
  if (level == LogLevel::kError) {
    out += "error";
  } else if (level == LogLevel::kWarn) {
    out += "warn";
  } else if (v <= 1) {
    out += v == 1 ? "debug" : "info";
  } else {
    out += "Level(-";
    AppendInteger(out, v);
    out += ')';
  }
}

// "dir/file.cc:12" of a full path.
void AppendCaller(std::string& out, const std::source_location& where) {
  std::string_view path = where.file_name();
  if (const size_t slash = path.rfind('/'); slash != std::string_view::npos && slash > 0) {
    if (const size_t parent = path.rfind('/', slash - 1); parent != std::string_view::npos) {
      path.remove_prefix(parent + 1);
    }
  }
  out += path;
  out += ':';
  AppendInteger(out, where.line());
}

void AppendMember(std::string& out, std::string_view key, const json::Value& value) {
  out += ',';
  json::AppendQuoted(out, key);
  out += ':';
  value.DumpTo(out);
}

// The same; of a long text only the start. Clients choose many of them.
void AppendShort(std::string& out, std::string_view key, const json::Value& value) {
  if (!value.is_string() || value.AsString().size() <= kMaxFieldBytes)
    return AppendMember(out, key, value);
  const std::string& text = value.AsString();
  size_t cut = kMaxFieldBytes;
  while (cut > kMaxFieldBytes - 3 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  AppendMember(out, key, text.substr(0, cut) + "... " + std::to_string(text.size()) + " bytes");
}

}  // namespace

Logger::Logger() : Logger(nullptr, LogLevel::kInfo) {}

Logger::Logger(std::shared_ptr<LogSink> sink, LogLevel level, const Clock& clock)
    : sink_(std::move(sink)),
      level_(std::make_shared<std::atomic<int>>(sink_ ? static_cast<int>(level) : kNothing)),
      clock_(&clock) {}

Logger Logger::Named(std::string_view name) const {
  Logger named = *this;
  if (!named.name_.empty()) named.name_ += '.';
  named.name_ += name;
  return named;
}

Logger Logger::With(std::string_view key, const json::Value& value) const {
  Logger with = *this;
  AppendShort(with.suffix_, key, value);
  return with;
}

std::string Logger::Head(LogLevel level, std::string_view msg,
                         const std::source_location& where) const {
  std::string line = "{\"level\":\"";
  AppendLevel(line, level);
  line += "\",\"ts\":\"";
  line += FormatRfc3339(clock_->UnixNanos());
  line += '"';
  if (!name_.empty()) {
    line += ",\"logger\":";
    json::AppendQuoted(line, name_);
  }
  line += ",\"caller\":\"";
  AppendCaller(line, where);
  line += "\",\"msg\":";
  json::AppendQuoted(line, msg);
  return line;
}

void Logger::Log(LogLevel level, std::string_view msg, std::initializer_list<LogField> fields,
                 std::source_location where) const {
  if (!sink_ || !Enabled(level)) return;
  std::string line = Head(level, msg, where);
  line += suffix_;
  const bool whole = static_cast<int>(level) >= static_cast<int>(LogLevel::kDebug);
  for (const LogField& field : fields)
    (whole ? AppendMember : AppendShort)(line, field.key, field.value);
  if (line.size() > kMaxLineBytes) {
    const size_t full_size = line.size();
    line = Head(level, msg.substr(0, kKeptMessageBytes), where);
    AppendMember(line, "droppedBytes", full_size - line.size());
  }
  line += "}\n";
  sink_->Write(line);
}

struct MemoryLogSink::State {
  mutable std::mutex mutex;
  std::vector<std::string> lines;
};

std::shared_ptr<MemoryLogSink::State> MemoryLogSink::MakeState() {
  return std::make_shared<State>();
}

void MemoryLogSink::Write(std::string_view line) {
  const std::lock_guard lock(state_->mutex);
  state_->lines.emplace_back(line);
}

std::vector<json::Value> MemoryLogSink::Lines() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<json::Value> out;
  for (const std::string& line : state_->lines) {
    auto parsed = json::Parse(line);
    LLMD_CHECK(parsed.ok());
    out.push_back(std::move(*parsed));
  }
  return out;
}

}  // namespace llmd
