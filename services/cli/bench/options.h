// What one run of `llmd bench` does, whether flags or a profile said it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "llmd/clock.h"
#include "llmd/http/message.h"
#include "llmd/http/tls.h"
#include "llmd/status.h"

namespace llmd::bench {

inline constexpr size_t kMaxStages = 100, kMaxTenants = 100, kMaxTargets = 100, kMaxWatched = 100;
inline constexpr uint64_t kMaxTokens = 4'000'000;  // of one prompt or one answer
inline constexpr double kMaxRate = 1e6;
inline constexpr int64_t kMaxTurns = 1000;

enum class Api { kChat, kCompletion, kRaw };

// A number of tokens for each request.
struct Lengths {
  enum class Kind { kFixed, kUniform, kNormal };
  Kind kind = Kind::kFixed;
  uint64_t min = 0, max = 0;  // both included; of kFixed both are the number
  double mean = 0, deviation = 0;

  static Lengths Fixed(uint64_t tokens) {
    return {.min = tokens, .max = tokens, .mean = static_cast<double>(tokens)};
  }
};
// "512", "uniform:100:900", "normal:512:128" or "normal:512:128:1:2048" (mean, deviation, and
// bounds, by default 1 and four deviations above the mean).
StatusOr<Lengths> ParseLengths(std::string_view text);

// Open loop: `rate`. Closed loop: `concurrency`. Ends after `duration` or `requests`, whichever is
// set and comes first.
struct Stage {
  double rate = 0;  // conversations per second
  int64_t concurrency = 0;
  Duration duration{};
  uint64_t requests = 0;  // conversations
};

struct SharedPrefix {
  uint64_t groups = 0;             // 0 = no shared prefix
  uint64_t prompts_per_group = 0;  // 0 = every prompt is new; else they come round again
  uint64_t system_tokens = 0;
};

struct Tenant {
  std::string name;
  double weight = 1;
  std::string model;      // "" = that of the run
  http::Headers headers;  // fairness id and key included
};

struct Slo {
  Duration ttft{}, tpot{}, e2e{};  // 0 = none
  bool any() const { return ttft.count() || tpot.count() || e2e.count(); }
};

struct Watched {
  std::string name;
  int64_t pid = 0;
};

struct Options {
  std::vector<http::Url> targets;
  Api api = Api::kChat;
  bool stream = true;
  std::string model;  // "" = the first of /v1/models
  std::string path;   // "" = that of the API
  std::string method = "POST";
  std::string body;  // kRaw only
  http::Headers headers;
  std::string api_key;
  http::TlsClientOptions tls;  // PEM texts; for targets with https
  std::string extra_body;      // a JSON object whose members are added to each body
  bool ignore_eos = true, include_usage = true;

  enum class Load { kConstant, kPoisson, kClosed, kTrace };
  Load load = Load::kClosed;
  std::vector<Stage> stages;
  Duration stage_pause{};  // between two stages
  Duration warmup{};       // what begins in it is not counted
  Duration timeout = std::chrono::seconds(300);
  int64_t threads = 1;
  int64_t max_connections = 10'000;  // all threads together
  uint64_t seed = 0;

  Lengths prompt = Lengths::Fixed(512), output = Lengths::Fixed(64);
  SharedPrefix shared;
  uint64_t distinct_prompts = 0;  // then they come round again; 0 = every prompt is new
  int64_t turns = 1;
  Duration think{};
  std::vector<Tenant> tenants;

  std::string trace, trace_format;  // path; "mooncake", "azure" or "" = by the name's end
  double speed = 1;
  uint64_t trace_block_tokens = 512;

  Slo slo;
  std::vector<Watched> watched;
  std::vector<double> percentiles = {50, 90, 99, 99.9};
  std::string json_path, svg_path;
  bool report_stages = true;
  bool progress = false;
};

// The rules that concern several fields; an error names them as flags.
Status Validate(const Options& options);

std::string_view Name(Api api);
std::string_view Name(Options::Load load);
// The path of the API's requests.
std::string_view PathOf(const Options& options);

}  // namespace llmd::bench
