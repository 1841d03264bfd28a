// How long answers may take, for all paths and for some of their own.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"
#include "llmd/status.h"

namespace llmd::gateway {

struct Timeouts {
  Duration first_byte = std::chrono::minutes(10);  // of one attempt: request sent → answer's head
  Duration gap = std::chrono::minutes(10);         // between two pieces of the answer
  Duration whole{};  // from the request's first byte to the answer's last; zero = no limit

  TimePoint DeadlineOf(TimePoint received) const {
    return whole > Duration::zero() ? received + whole : TimePoint::max();
  }
};

// Immutable.
class TimeoutTable {
 public:
  static constexpr size_t kMaxRules = 256;
  TimeoutTable() = default;
  // Rules "PATH=first-byte:30s,gap:10s,request:1m": one or more of the three for the requests of
  // that path, or with a `*` at its end of all that begin with it; the first rule that fits counts.
  // What it does not name is as in `all`. INVALID_ARGUMENT names the flag or the rule.
  static StatusOr<TimeoutTable> Create(const Timeouts& all, const std::vector<std::string>& rules);
  const Timeouts& Of(std::string_view path) const;  // without query

 private:
  struct Rule {
    std::string path;
    bool prefix = false;
    Timeouts timeouts;
  };
  static StatusOr<Rule> Read(std::string_view text, const Timeouts& all);

  Timeouts all_;
  std::vector<Rule> rules_;
};

}  // namespace llmd::gateway
