// The spans of one client request: the whole, and of each of its prompts and choices the queue, the
// load of KV from another engine, the prefill and the decode. Put together at the end from the
// stamps that the metrics are made of; nothing is recorded on the way.
#pragma once

#include <string_view>
#include <vector>

#include "llmd/engine/serving/context.h"
#include "llmd/engine/serving/mailbox.h"
#include "llmd/openai/response.h"

namespace llmd::engine::serving {

// Thread-compatible. `context` outlives it.
class RequestSpans {
 public:
  RequestSpans(const ServingContext& context, const RequestMeta& meta, std::string_view id);

  // One prompt or choice has ended.
  void Add(const ChildTimes& times, int remote_tokens);
  // All have, for that reason ("stop", "length", "abort", "error"): exports the spans.
  void End(const openai::Usage& usage, std::string_view reason);

 private:
  void AddPart(std::string_view name, TimePoint begin, TimePoint end);
  int64_t Unix(TimePoint at) const { return unix_ + (at - steady_).count(); }

  const ServingContext& context_;
  const TimePoint steady_;  // one moment on both clocks
  const int64_t unix_;
  Span whole_;
  std::vector<Span> parts_;
};

}  // namespace llmd::engine::serving
