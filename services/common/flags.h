// Command lines as the field writes them: "-" and "_" alike, single-dash long flags, unique
// prefixes, --flag=value and
// --flag value, --no-flag for switches. Each flag stands in one of three lists, which --help
// prints: works; accepted with one warning; known but not yet (exit 2, says so). An unknown flag is
// an error that names the nearest.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"

namespace llmd::services {

// Thread-compatible. Targets keep their initial value as the default shown by --help.
class FlagSet {
 public:
  FlagSet(std::string program, std::string summary);

  void String(std::string_view name, std::string* target, std::string_view help);
  void Int(std::string_view name, int64_t* target, int64_t min, int64_t max, std::string_view help);
  void Port(std::string_view name, uint16_t* target, std::string_view help);
  void Double(std::string_view name, double* target, std::string_view help);
  // --name, --name=true|false, --no-name.
  void Bool(std::string_view name, bool* target, std::string_view help);
  // Go durations ("30s").
  void Duration(std::string_view name, std::chrono::nanoseconds* target, std::string_view help);
  // May be repeated; each may hold several values, up to the next flag when `greedy` (as vLLM's
  // --served-model-name).
  void List(std::string_view name, std::vector<std::string>* target, std::string_view help,
            bool greedy = false);
  // A check or conversion of its own.
  void Custom(std::string_view name, std::function<Status(std::string_view)> set,
              std::string_view help);
  // Another spelling of a flag; with `deprecated`, using it logs one warning.
  void Alias(std::string_view alias, std::string_view name, bool deprecated = false);

  // Means nothing here: one warning, value eaten.
  void Accepted(std::string_view name, bool takes_value, std::string_view why);
  // Not built yet: exit 2 with a message that says so.
  void NotYet(std::string_view name, bool takes_value, std::string_view why);
  // An optional word that is not a flag.
  void Positional(std::string_view name, std::string* target, std::string_view help);

  struct Outcome {
    bool exit = false;  // --help or --version was printed, or an error: leave with `code`
    int code = 0;
    std::vector<std::string> warnings;  // to be logged once the logger stands
    std::vector<std::string> given;     // canonical names of the flags that were set
    bool Given(std::string_view name) const;
  };
  // Prints help, version and errors itself (stdout / stderr).
  Outcome Parse(int argc, const char* const* argv);
  std::string Help() const;

 private:
  enum class Kind { kValue, kSwitch, kList, kAccepted, kNotYet };
  struct Flag {
    std::string name, help, default_text;
    Kind kind = Kind::kValue;
    bool takes_value = true, greedy = false;
    std::function<Status(std::string_view)> set;
  };
  struct AliasEntry {
    std::string alias, name;
    bool deprecated = false;
  };
  // A flag as it was found on the command line.
  struct Match {
    const Flag* flag = nullptr;
    bool negated = false;  // --no-name
    bool deprecated = false;
  };
  // The words that are left.
  struct Words;

  void Add(Flag flag);
  const Flag* Exact(std::string_view name, bool* deprecated) const;
  StatusOr<Match> Find(std::string_view name) const;
  StatusOr<Match> FindByPrefix(std::string_view name) const;
  Status Unknown(std::string_view name) const;
  Status TakeWord(std::string_view word, Words& words, Outcome& outcome) const;
  Status Apply(const Match& match, Words& words, Outcome& outcome) const;
  Status ApplySwitch(const Match& match, const Words& words) const;
  Status ApplyValues(const Flag& flag, Words& words) const;
  Status TakePositional(std::string_view word, Outcome& outcome) const;
  void AppendList(std::string& out, std::string_view title,
                  std::initializer_list<Kind> kinds) const;

  std::string program_, summary_;
  std::vector<Flag> flags_;
  std::vector<AliasEntry> aliases_;
  std::string positional_name_, positional_help_;
  std::string* positional_ = nullptr;
};

}  // namespace llmd::services
