// Requests for tests of plugins: an OpenAI body, headers, and facts that a producer would have
// left.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/json.h"
#include "llmd/sched/scheduler.h"

namespace llmd::sched::testing {

// An Attribute (request_context.h) said by endpoint name instead of by index. Endpoints not named
// have 0.
struct Fact {
  double total = 0, block_size = 0;
  std::map<std::string, double, std::less<>> per_endpoint, second;
  std::vector<uint32_t> tokens;
  bool exact = false;
  std::string text;
};
// PrefixCacheMatchInfo: blocks of the prompt that each endpoint holds, of `total` blocks of
// `block_size` tokens.
Fact PrefixMatch(std::map<std::string, double, std::less<>> matched_blocks, double total,
                 double block_size = 16);
// TokenizedPrompt: one prompt of these token ids.
Fact Tokens(std::vector<uint32_t> ids);
// InFlightLoad: requests and tokens in flight.
Fact InFlight(std::map<std::string, double, std::less<>> requests,
              std::map<std::string, double, std::less<>> tokens = {});

// LatencyPredictionInfo: milliseconds to the first token, and per token after it, of a request
// without SLOs.
Fact PredictedLatency(std::map<std::string, double, std::less<>> ttft_ms,
                      std::map<std::string, double, std::less<>> tpot_ms);

class FakeRequest {
 public:
  static FakeRequest Completions(std::string prompt, std::string model = "test-model");
  // Messages as (role, content).
  static FakeRequest Chat(std::vector<std::pair<std::string, std::string>> messages,
                          std::string model = "test-model");
  // Any body on any path.
  static FakeRequest Raw(std::string path, std::string body);

  FakeRequest& Header(std::string name, std::string value);      // lower-case name
  FakeRequest& Member(std::string_view key, json::Value value);  // of the body's top level
  FakeRequest& MaxTokens(int64_t tokens) { return Member("max_tokens", tokens); }
  FakeRequest& Priority(int priority);
  FakeRequest& RequestId(std::string id);
  // Puts a fact under a data type ("PrefixCacheMatchInfo"), whoever its producer is. For
  // PluginUnderTest only: in a whole graph the configured producers run.
  FakeRequest& With(std::string data_type, Fact fact);

  // For Scheduler::Schedule.
  RequestSpec Spec() const;
  const std::map<std::string, Fact, std::less<>>& facts() const { return facts_; }

 private:
  json::Value body_ = json::Object{};
  std::string raw_;
  RequestSpec spec_;
  std::map<std::string, Fact, std::less<>> facts_;
};

}  // namespace llmd::sched::testing
