#include <cmath>
#include <cstdint>

#include "llmd/format.h"
#include "llmd/json.h"
#include "utf8.h"

namespace llmd::json {
namespace {

constexpr char kHex[] = "0123456789abcdef";

bool IsPlain(char c) {
  return static_cast<signed char>(c) >= 0x20 && c != '"' && c != '\\';
}

void AppendEscaped(std::string& out, char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\b':
      out += "\\b";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      out += "\\u00";
      out += kHex[(c >> 4) & 0xF];
      out += kHex[c & 0xF];
  }
}

void AppendNumber(std::string& out, double v) {
  if (std::isfinite(v)) {
    AppendPythonFloat(out, v);
  } else {
    out += "null";
  }
}

class Writer {
 public:
  Writer(std::string& out, int indent) : out_(out), indent_(indent) {}

  void Write(const Value& value) {
    if (value.is_null()) {
      out_ += "null";
    } else if (value.is_bool()) {
      out_ += value.AsBool() ? "true" : "false";
    } else if (value.is_double()) {
      AppendNumber(out_, value.AsDouble());
    } else if (value.is_int()) {
      WriteInteger(value);
    } else if (value.is_string()) {
      AppendQuoted(out_, value.AsString());
    } else if (value.is_array()) {
      WriteList('[', ']', value.AsArray(), [this](const Value& item) { Write(item); });
    } else {
      WriteList('{', '}', value.AsObject(), [this](const Member& m) {
        AppendQuoted(out_, m.first);
        out_ += indent_ > 0 ? ": " : ":";
        Write(m.second);
      });
    }
  }

 private:
  void WriteInteger(const Value& value) {
    if (const uint64_t large = value.AsUint(); large > INT64_MAX) {
      AppendInteger(out_, large);
    } else {
      AppendInteger(out_, value.AsInt());
    }
  }

  template <typename Items, typename Each>
  void WriteList(char open, char close, const Items& items, Each each) {
    out_ += open;
    ++level_;
    bool first = true;
    for (const auto& item : items) {
      if (!first) out_ += ',';
      first = false;
      NewLine();
      each(item);
    }
    --level_;
    if (!first) NewLine();
    out_ += close;
  }

  void NewLine() {
    if (indent_ <= 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(level_) * static_cast<size_t>(indent_), ' ');
  }

  std::string& out_;
  const int indent_;
  int level_ = 0;
};

}  // namespace

void AppendQuoted(std::string& out, std::string_view s) {
  out += '"';
  const char* at = s.data();
  const char* const end = at + s.size();
  while (at != end) {
    const char* run = at;
    while (run != end && IsPlain(*run)) ++run;
    out.append(at, run);
    at = run;
    if (at == end) break;
    if (static_cast<unsigned char>(*at) < 0x80) {
      AppendEscaped(out, *at++);
    } else if (const size_t length = Utf8Length(at, end); length != 0) {
      out.append(at, length);
      at += length;
    } else {
      out += "\xEF\xBF\xBD";
      ++at;
    }
  }
  out += '"';
}

void Value::DumpTo(std::string& out) const {
  Writer(out, 0).Write(*this);
}

std::string Value::Dump() const {
  std::string out;
  DumpTo(out);
  return out;
}

std::string Value::DumpPretty(int indent) const {
  std::string out;
  Writer(out, indent).Write(*this);
  return out;
}

}  // namespace llmd::json
