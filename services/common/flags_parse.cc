#include <algorithm>
#include <charconv>
#include <cstdio>
#include <set>

#include "common/flags.h"
#include "llmd/nearest.h"

namespace llmd::services {
namespace {

constexpr int kUsageError = 2;

bool IsNumber(std::string_view word) {
  double unused = 0;
  const auto [end, ec] = std::from_chars(word.data(), word.data() + word.size(), unused);
  return ec == std::errc{} && end == word.data() + word.size();
}

bool IsFlagWord(std::string_view word) {
  return word.size() > 1 && word[0] == '-' && !IsNumber(word);
}

// The name as flags are registered: without dashes in front, "-" for "_".
std::string Normalised(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '_', '-');
  return out;
}

bool IsFalse(std::string_view text) {
  return text == "false" || text == "False" || text == "0";
}

std::string Dashed(std::string_view name) {
  return (name.size() == 1 ? "-" : "--") + std::string(name);
}

void Print(FILE* to, const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), to);
}

}  // namespace

struct FlagSet::Words {
  int argc;
  const char* const* argv;
  int next = 1;
  bool only_positional = false;
  bool has_value = false;  // of the flag at hand, behind its '='
  std::string_view value;

  bool NextIsValue() const { return next < argc && !IsFlagWord(argv[next]); }
};

const FlagSet::Flag* FlagSet::Exact(std::string_view name, bool* deprecated) const {
  *deprecated = false;
  const auto flag =
      std::find_if(flags_.begin(), flags_.end(), [&](const Flag& f) { return f.name == name; });
  if (flag != flags_.end()) return &*flag;
  const auto alias = std::find_if(aliases_.begin(), aliases_.end(),
                                  [&](const AliasEntry& a) { return a.alias == name; });
  if (alias == aliases_.end()) return nullptr;
  bool unused = false;
  const Flag* target = Exact(alias->name, &unused);
  *deprecated = alias->deprecated;
  return target;
}

StatusOr<FlagSet::Match> FlagSet::FindByPrefix(std::string_view name) const {
  std::set<std::string> spellings;
  std::set<const Flag*> found;
  bool deprecated = false;
  const auto consider = [&](const std::string& spelling) {
    if (!spelling.starts_with(name)) return;
    spellings.insert(spelling);
    found.insert(Exact(spelling, &deprecated));
  };
  for (const Flag& flag : flags_) consider(flag.name);
  for (const AliasEntry& alias : aliases_) consider(alias.alias);
  if (found.empty()) return Match{};
  if (found.size() == 1) return Match{*found.begin(), false, deprecated && spellings.size() == 1};
  std::string all;
  for (const std::string& spelling : spellings) all += (all.empty() ? "" : ", ") + Dashed(spelling);
  return InvalidArgument("flag " + Dashed(name) + " is ambiguous: " + all);
}

Status FlagSet::Unknown(std::string_view name) const {
  std::vector<std::string> known = {"help", "version"};
  for (const Flag& flag : flags_) known.push_back(flag.name);
  for (const AliasEntry& alias : aliases_) known.push_back(alias.alias);
  std::string message = "unknown flag " + Dashed(name);
  const std::vector<std::string> near = NearestNames(name, known);
  for (size_t i = 0; i < near.size(); ++i) {
    message += i == 0 ? "; did you mean " : i + 1 == near.size() ? " or " : ", ";
    message += Dashed(near[i]);
  }
  return InvalidArgument(message + (near.empty() ? "" : "?"));
}

StatusOr<FlagSet::Match> FlagSet::Find(std::string_view name) const {
  Match match;
  match.flag = Exact(name, &match.deprecated);
  if (match.flag) return match;
  constexpr std::string_view kNo = "no-";
  if (name.starts_with(kNo)) {
    const std::string_view positive = name.substr(kNo.size());
    match.flag = Exact(positive, &match.deprecated);
    if (!match.flag && !positive.empty()) {
      LLMD_ASSIGN_OR_RETURN(match, FindByPrefix(positive));
    }
    if (match.flag && !match.flag->takes_value) {
      match.negated = true;
      return match;
    }
  }
  LLMD_ASSIGN_OR_RETURN(match, FindByPrefix(name));
  if (!match.flag) return Unknown(name);
  return match;
}

Status FlagSet::ApplySwitch(const Match& match, const Words& words) const {
  if (!match.negated) return match.flag->set(words.has_value ? words.value : "true");
  if (words.has_value) return InvalidArgument("takes no value in its --no- form");
  return match.flag->set("false");
}

Status FlagSet::ApplyValues(const Flag& flag, Words& words) const {
  if (!words.has_value) {
    if (!words.NextIsValue()) return InvalidArgument("expected a value");
    words.value = words.argv[words.next++];
  }
  LLMD_RETURN_IF_ERROR(flag.set(words.value));
  while (flag.greedy && words.NextIsValue()) {
    LLMD_RETURN_IF_ERROR(flag.set(words.argv[words.next++]));
  }
  return OkStatus();
}

Status FlagSet::Apply(const Match& match, Words& words, Outcome& outcome) const {
  const Flag& flag = *match.flag;
  switch (flag.kind) {
    case Kind::kSwitch:
      return ApplySwitch(match, words).WithContext(Dashed(flag.name));
    case Kind::kValue:
    case Kind::kList:
      return ApplyValues(flag, words).WithContext(Dashed(flag.name));
    case Kind::kNotYet:
      // Turned off is what it is anyway.
      if (!flag.takes_value && (match.negated || IsFalse(words.value))) return OkStatus();
      return Unimplemented("flag " + Dashed(flag.name) +
                           " is known but not built yet: " + flag.help);
    case Kind::kAccepted:
      break;
  }
  if (flag.takes_value && !words.has_value && words.NextIsValue()) ++words.next;
  if (!outcome.Given(flag.name)) {
    outcome.warnings.push_back("flag " + Dashed(flag.name) + " has no effect: " + flag.help);
  }
  return OkStatus();
}

Status FlagSet::TakePositional(std::string_view word, Outcome& outcome) const {
  if (!positional_ || outcome.Given(positional_name_)) {
    std::string message = "unexpected argument '" + std::string(word) + "'";
    if (word == "true" || word == "false")
      message += "; a switch takes its value as --name=" + std::string(word);
    return InvalidArgument(message);
  }
  *positional_ = word;
  outcome.given.push_back(positional_name_);
  return OkStatus();
}

Status FlagSet::TakeWord(std::string_view word, Words& words, Outcome& outcome) const {
  if (words.only_positional || !IsFlagWord(word)) return TakePositional(word, outcome);
  if (word == "--") {
    words.only_positional = true;
    return OkStatus();
  }
  word.remove_prefix(word.starts_with("--") ? 2 : 1);
  const size_t equals = word.find('=');
  words.has_value = equals != std::string_view::npos;
  words.value = words.has_value ? word.substr(equals + 1) : std::string_view();
  const std::string name = Normalised(word.substr(0, equals));
  bool unused = false;
  if (!Exact(name, &unused) && (name == "help" || name == "h" || name == "version")) {
    outcome.exit = true;
    Print(stdout, name == "version" ? program_ + " " LLMD_VERSION "\n" : Help());
    return OkStatus();
  }
  LLMD_ASSIGN_OR_RETURN(const Match match, Find(name));
  LLMD_RETURN_IF_ERROR(Apply(match, words, outcome));
  if (match.deprecated) {
    outcome.warnings.push_back("flag " + Dashed(name) + " is deprecated; use " +
                               Dashed(match.flag->name));
  }
  if (!outcome.Given(match.flag->name)) outcome.given.push_back(match.flag->name);
  return OkStatus();
}

FlagSet::Outcome FlagSet::Parse(int argc, const char* const* argv) {
  Outcome outcome;
  Words words{argc, argv};
  while (words.next < argc && !outcome.exit) {
    const std::string_view word = argv[words.next++];
    if (const Status status = TakeWord(word, words, outcome); !status.ok()) {
      Print(stderr, program_ + ": " + status.message() + " (see " + program_ + " --help)\n");
      outcome.exit = true;
      outcome.code = kUsageError;
    }
  }
  return outcome;
}

void FlagSet::AppendList(std::string& out, std::string_view title,
                         std::initializer_list<Kind> kinds) const {
  constexpr size_t kHelpColumn = 34;
  bool first = true;
  for (const Flag& flag : flags_) {
    if (std::find(kinds.begin(), kinds.end(), flag.kind) == kinds.end()) continue;
    if (first) out.append("\n").append(title).append("\n");
    first = false;
    std::string left = "  " + Dashed(flag.name);
    if (flag.kind == Kind::kSwitch) left += "[=true|false]";
    if (flag.takes_value) left += flag.greedy ? " VALUE..." : " VALUE";
    if (left.size() + 2 > kHelpColumn) left += "\n" + std::string(kHelpColumn - 2, ' ');
    const size_t line_begin = left.rfind('\n') == std::string::npos ? 0 : left.rfind('\n') + 1;
    left.resize(line_begin + kHelpColumn, ' ');
    out += left + flag.help;
    if (!flag.default_text.empty()) out += " (default " + flag.default_text + ")";
    for (const AliasEntry& alias : aliases_) {
      if (alias.name != flag.name) continue;
      out += (alias.deprecated ? " [deprecated: " : " [also: ") + Dashed(alias.alias) + "]";
    }
    out += "\n";
  }
}

std::string FlagSet::Help() const {
  std::string out = program_ + ": " + summary_ + "\n\nUsage: " + program_ + " [flags]";
  if (positional_)
    out += " [" + positional_name_ + "]\n\n  " + positional_name_ + "  " + positional_help_;
  out += "\n";
  AppendList(out, "Flags:", {Kind::kValue, Kind::kSwitch, Kind::kList});
  out += "  --help, --version\n";
  AppendList(out, "Accepted without effect, with one warning:", {Kind::kAccepted});
  AppendList(out, "Known, not built yet (an error when used):", {Kind::kNotYet});
  return out;
}

}  // namespace llmd::services
