#include "common/flags.h"

#include <algorithm>
#include <charconv>
#include <memory>

#include "llmd/config.h"
#include "llmd/format.h"

namespace llmd::services {
namespace {

std::string Quoted(std::string_view text) {
  return "'" + std::string(text) + "'";
}

template <typename T>
bool ReadWhole(std::string_view text, T* out) {
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return ec == std::errc{} && end == text.data() + text.size();
}

Status SetInt(std::string_view text, int64_t min, int64_t max, int64_t* out) {
  int64_t value = 0;
  if (!ReadWhole(text, &value) || value < min || value > max) {
    return InvalidArgument("expected an integer from " + std::to_string(min) + " to " +
                           std::to_string(max) + ", got " + Quoted(text));
  }
  *out = value;
  return OkStatus();
}

Status SetBool(std::string_view text, bool* out) {
  // The spellings of Go's strconv.ParseBool.
  for (const char* yes : {"true", "1", "t", "T", "TRUE", "True"}) {
    if (text == yes) {
      *out = true;
      return OkStatus();
    }
  }
  for (const char* no : {"false", "0", "f", "F", "FALSE", "False"}) {
    if (text == no) {
      *out = false;
      return OkStatus();
    }
  }
  return InvalidArgument("expected true or false, got " + Quoted(text));
}

std::string Joined(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += (out.empty() ? "" : ",") + item;
  return out;
}

}  // namespace

FlagSet::FlagSet(std::string program, std::string summary)
    : program_(std::move(program)), summary_(std::move(summary)) {}

void FlagSet::Add(Flag flag) {
  bool unused = false;
  LLMD_CHECK(Exact(flag.name, &unused) == nullptr);
  flags_.push_back(std::move(flag));
}

void FlagSet::String(std::string_view name, std::string* target, std::string_view help) {
  Custom(
      name,
      [target](std::string_view text) {
        *target = text;
        return OkStatus();
      },
      help);
  flags_.back().default_text = *target;
}

void FlagSet::Int(std::string_view name, int64_t* target, int64_t min, int64_t max,
                  std::string_view help) {
  Custom(name, [=](std::string_view text) { return SetInt(text, min, max, target); }, help);
  flags_.back().default_text = std::to_string(*target);
}

void FlagSet::Port(std::string_view name, uint16_t* target, std::string_view help) {
  Custom(
      name,
      [target](std::string_view text) {
        int64_t port = 0;
        LLMD_RETURN_IF_ERROR(SetInt(text, 0, 65535, &port));
        *target = static_cast<uint16_t>(port);
        return OkStatus();
      },
      help);
  flags_.back().default_text = std::to_string(*target);
}

void FlagSet::Double(std::string_view name, double* target, std::string_view help) {
  Custom(
      name,
      [target](std::string_view text) {
        double value = 0;
        if (!ReadWhole(text, &value))
          return InvalidArgument("expected a number, got " + Quoted(text));
        *target = value;
        return OkStatus();
      },
      help);
  AppendPythonFloat(flags_.back().default_text, *target);
}

void FlagSet::Bool(std::string_view name, bool* target, std::string_view help) {
  Add({.name = std::string(name),
       .help = std::string(help),
       .default_text = *target ? "true" : "false",
       .kind = Kind::kSwitch,
       .takes_value = false,
       .set = [target](std::string_view text) { return SetBool(text, target); }});
}

void FlagSet::Duration(std::string_view name, std::chrono::nanoseconds* target,
                       std::string_view help) {
  Custom(
      name,
      [target](std::string_view text) {
        LLMD_ASSIGN_OR_RETURN(*target, config::ParseGoDuration(text));
        return OkStatus();
      },
      help);
  flags_.back().default_text = FormatGoDuration(target->count());
}

void FlagSet::List(std::string_view name, std::vector<std::string>* target, std::string_view help,
                   bool greedy) {
  // The first use replaces the default, the next ones add.
  auto used = std::make_shared<bool>(false);
  Add({.name = std::string(name),
       .help = std::string(help),
       .default_text = Joined(*target),
       .kind = Kind::kList,
       .greedy = greedy,
       .set = [target, used](std::string_view text) {
         if (!*used) target->clear();
         *used = true;
         target->emplace_back(text);
         return OkStatus();
       }});
}

void FlagSet::Custom(std::string_view name, std::function<Status(std::string_view)> set,
                     std::string_view help) {
  Add({.name = std::string(name), .help = std::string(help), .set = std::move(set)});
}

void FlagSet::Alias(std::string_view alias, std::string_view name, bool deprecated) {
  bool unused = false;
  LLMD_CHECK(Exact(name, &unused) != nullptr && Exact(alias, &unused) == nullptr);
  aliases_.push_back({std::string(alias), std::string(name), deprecated});
}

void FlagSet::Accepted(std::string_view name, bool takes_value, std::string_view why) {
  Add({.name = std::string(name),
       .help = std::string(why),
       .kind = Kind::kAccepted,
       .takes_value = takes_value});
}

void FlagSet::NotYet(std::string_view name, bool takes_value, std::string_view why) {
  Add({.name = std::string(name),
       .help = std::string(why),
       .kind = Kind::kNotYet,
       .takes_value = takes_value});
}

void FlagSet::Positional(std::string_view name, std::string* target, std::string_view help) {
  positional_name_ = name;
  positional_help_ = help;
  positional_ = target;
}

bool FlagSet::Outcome::Given(std::string_view name) const {
  return std::find(given.begin(), given.end(), name) != given.end();
}

}  // namespace llmd::services
