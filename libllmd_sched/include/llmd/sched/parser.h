// Parsers read a request's body in place and, later, the usage its answer reports.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "llmd/sched/plugin.h"

namespace llmd::sched {

struct Usage {
  int64_t prompt_tokens = -1, completion_tokens = -1, cached_tokens = -1;  // -1 = not said
  int64_t total_tokens = -1;
  bool any() const { return prompt_tokens >= 0 || completion_tokens >= 0; }
};

// Reads the usage of one answer that is no JSON, in pieces with any borders.
class ResponseReader {
 public:
  virtual ~ResponseReader() = default;
  virtual void Feed(std::string_view chunk, Usage* usage) = 0;
};

class Parser : public virtual Plugin {
 public:
  // Path suffixes this parser is for ("chat/completions"); empty makes it the fallback.
  virtual std::vector<std::string_view> PathSuffixes() const = 0;
  // Fills the request's parsed part from request.body. INVALID_ARGUMENT says what is wrong with the
  // body.
  virtual Status Parse(RequestContext& request) = 0;
  // Reads the "usage" object of an answer (one JSON object, whole); leaves *usage alone when there
  // is none.
  virtual void ReadUsage(std::string_view json_object, Usage* usage) const = 0;
  // For answers in which no JSON "usage" stands; null = look for one.
  virtual std::unique_ptr<ResponseReader> MakeReader(const RequestContext& request) const {
    return nullptr;
  }
};

}  // namespace llmd::sched
