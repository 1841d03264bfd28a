#include "cli/bench/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "llmd/format.h"

namespace llmd::bench {
namespace {

StatusOr<double> Number(std::string_view text) {
  double value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{} || end != text.data() + text.size() || !(value >= 0) ||
      value > static_cast<double>(kMaxTokens)) {
    return InvalidArgument("expected a number from 0 to " + std::to_string(kMaxTokens) + ", got '" +
                           std::string(text) + "'");
  }
  return value;
}

StatusOr<std::vector<double>> Numbers(std::string_view text) {
  std::vector<double> out;
  while (true) {
    const size_t colon = text.find(':');
    LLMD_ASSIGN_OR_RETURN(const double number, Number(text.substr(0, colon)));
    out.push_back(number);
    if (colon == std::string_view::npos) return out;
    text.remove_prefix(colon + 1);
  }
}

Status BadLengths(std::string_view text) {
  return InvalidArgument("'" + std::string(text) +
                         "': expected N, uniform:MIN:MAX, normal:MEAN:DEVIATION or "
                         "normal:MEAN:DEVIATION:MIN:MAX, with MIN <= MAX");
}

StatusOr<Lengths> Normal(std::string_view text, const std::vector<double>& n) {
  if (n.size() != 2 && n.size() != 4) return BadLengths(text);
  Lengths out{.kind = Lengths::Kind::kNormal, .min = 1, .mean = n[0], .deviation = n[1]};
  out.max = static_cast<uint64_t>(std::ceil(n[0] + 4 * n[1]));
  if (n.size() == 4) {
    out.min = static_cast<uint64_t>(n[2]);
    out.max = static_cast<uint64_t>(n[3]);
  }
  out.max = std::max<uint64_t>(out.max, n.size() == 4 ? 0 : 1);
  if (out.min > out.max) return BadLengths(text);
  return out;
}

Status ValidateStages(const Options& o) {
  if (o.load == Options::Load::kTrace) return OkStatus();
  const bool closed = o.load == Options::Load::kClosed;
  if (o.stages.empty() || o.stages.size() > kMaxStages) {
    return InvalidArgument("a run has 1 to " + std::to_string(kMaxStages) + " stages, got " +
                           std::to_string(o.stages.size()));
  }
  for (const Stage& stage : o.stages) {
    if (stage.duration.count() <= 0 && stage.requests == 0) {
      return InvalidArgument("a stage needs an end: --duration or --requests");
    }
    if (closed && (stage.concurrency < 1 || stage.concurrency > o.max_connections)) {
      return InvalidArgument("--concurrency is 1 to --max-connections (" +
                             std::to_string(o.max_connections) + "), got " +
                             std::to_string(stage.concurrency));
    }
    if (!closed && !(stage.rate > 0 && stage.rate <= kMaxRate)) {
      return InvalidArgument("a rate is above 0 and at most 1,000,000 a second");
    }
  }
  return OkStatus();
}

Status ValidateShape(const Options& o) {
  if (o.api == Api::kRaw) {
    if (o.turns > 1 || o.shared.groups > 0 || !o.trace.empty()) {
      return InvalidArgument(
          "--api raw sends one body: --turns, --prefix-groups and --trace need chat or completion");
    }
    return OkStatus();
  }
  if (o.shared.groups > 0 && o.shared.system_tokens == 0) {
    return InvalidArgument("--prefix-groups needs --prefix-tokens above 0");
  }
  if (!o.trace.empty() && (o.turns > 1 || o.shared.groups > 0)) {
    return InvalidArgument(
        "a trace brings its own prompts: --turns and --prefix-groups do not "
        "go with --trace");
  }
  return OkStatus();
}

}  // namespace

StatusOr<Lengths> ParseLengths(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  if (colon == std::string_view::npos) {
    LLMD_ASSIGN_OR_RETURN(const double tokens, Number(text));
    if (tokens != std::floor(tokens)) return BadLengths(text);
    return Lengths::Fixed(static_cast<uint64_t>(tokens));
  }
  if (kind != "uniform" && kind != "normal") return BadLengths(text);
  LLMD_ASSIGN_OR_RETURN(const std::vector<double> numbers, Numbers(text.substr(colon + 1)));
  if (kind == "normal") return Normal(text, numbers);
  if (numbers.size() != 2 || numbers[0] > numbers[1]) return BadLengths(text);
  return Lengths{.kind = Lengths::Kind::kUniform,
                 .min = static_cast<uint64_t>(numbers[0]),
                 .max = static_cast<uint64_t>(numbers[1]),
                 .mean = (numbers[0] + numbers[1]) / 2};
}

Status Validate(const Options& o) {
  if (o.targets.empty() || o.targets.size() > kMaxTargets) {
    return InvalidArgument("--target is needed, once to " + std::to_string(kMaxTargets) + " times");
  }
  if (o.speed <= 0 || o.speed > 1e6) return InvalidArgument("--speed is above 0, at most 1000000");
  if (o.tenants.size() > kMaxTenants) return InvalidArgument("--tenant: at most 100 of them");
  if (o.watched.size() > kMaxWatched) return InvalidArgument("--watch-pid: at most 100 of them");
  if (o.threads > o.max_connections) return InvalidArgument("--threads is above --max-connections");
  LLMD_RETURN_IF_ERROR(ValidateStages(o));
  return ValidateShape(o);
}

std::string_view Name(Api api) {
  switch (api) {
    case Api::kChat:
      return "chat";
    case Api::kCompletion:
      return "completion";
    case Api::kRaw:
      return "raw";
  }
  return "";
}

std::string_view Name(Options::Load load) {
  switch (load) {
    case Options::Load::kConstant:
      return "constant";
    case Options::Load::kPoisson:
      return "poisson";
    case Options::Load::kClosed:
      return "concurrent";
    case Options::Load::kTrace:
      return "trace";
  }
  return "";
}

std::string_view PathOf(const Options& options) {
  if (!options.path.empty()) return options.path;
  switch (options.api) {
    case Api::kChat:
      return "/v1/chat/completions";
    case Api::kCompletion:
      return "/v1/completions";
    case Api::kRaw:
      return "/";
  }
  return "/";
}

}  // namespace llmd::bench
