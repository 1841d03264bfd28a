#include "cli/bench/profile.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "cli/bench/flags.h"
#include "llmd/config.h"

namespace llmd::bench {
namespace {

using config::Node;

// Each reader leaves its target alone when the key is absent.
template <typename T, typename Read>
Status Set(const Node& node, T* target, Read read) {
  if (node.IsNull()) return OkStatus();
  LLMD_ASSIGN_OR_RETURN(auto value, read(node));
  *target = static_cast<T>(value);
  return OkStatus();
}

Status SetString(const Node& node, std::string* target) {
  return Set(node, target, [](const Node& n) { return n.String(); });
}

Status SetBool(const Node& node, bool* target) {
  return Set(node, target, [](const Node& n) { return n.Bool(); });
}

StatusOr<int64_t> IntIn(const Node& node, int64_t min, int64_t max) {
  LLMD_ASSIGN_OR_RETURN(const int64_t value, node.Int());
  if (value < min || value > max) {
    return node.Error("expected " + std::to_string(min) + " to " + std::to_string(max));
  }
  return value;
}

template <typename T>
Status SetInt(const Node& node, T* target, int64_t min, int64_t max) {
  return Set(node, target, [=](const Node& n) { return IntIn(n, min, max); });
}

StatusOr<double> SecondsIn(const Node& node) {
  LLMD_ASSIGN_OR_RETURN(const double value, node.Double());
  if (!(value >= 0) || value > 1e7) return node.Error("expected seconds");
  return value;
}

Status SetSeconds(const Node& node, Duration* target) {
  if (node.IsNull()) return OkStatus();
  LLMD_ASSIGN_OR_RETURN(const double seconds, SecondsIn(node));
  *target = Duration(std::llround(seconds * 1e9));
  return OkStatus();
}

// Accepts only the value that says "off".
Status OnlyFalse(const Node& node, const char* why) {
  bool value = false;
  LLMD_RETURN_IF_ERROR(SetBool(node, &value));
  return value ? node.Error(why) : OkStatus();
}

// The value of a header that says an SLO, in the profile's unit.
StatusOr<Duration> SloOf(const Node& at, std::string_view value, const std::string& unit) {
  auto parsed = config::ParseGoDuration(std::string(value) + unit);
  if (!parsed.ok()) return at.Error("expected a number of " + unit);
  return *parsed;
}

Status ReadApi(const Node& api, Options& o) {
  std::string type = "completion", unit = "ms";
  std::string ttft = "x-slo-ttft-ms", tpot = "x-slo-tpot-ms";
  o.stream = false;
  LLMD_RETURN_IF_ERROR(SetString(api.Get("type"), &type));
  LLMD_RETURN_IF_ERROR(SetBool(api.Get("streaming"), &o.stream));
  LLMD_RETURN_IF_ERROR(SetString(api.Get("slo_unit"), &unit));
  LLMD_RETURN_IF_ERROR(SetString(api.Get("slo_ttft_header"), &ttft));
  LLMD_RETURN_IF_ERROR(SetString(api.Get("slo_tpot_header"), &tpot));
  if (type != "chat" && type != "completion") {
    return api.Get("type").Error("expected completion or chat, got '" + type + "'");
  }
  if (unit != "ms" && unit != "s" && unit != "us") {
    return api.Get("slo_unit").Error("expected us, ms or s, got '" + unit + "'");
  }
  o.api = type == "chat" ? Api::kChat : Api::kCompletion;
  for (const auto& [name, node] : api.Get("headers").Members()) {
    LLMD_ASSIGN_OR_RETURN(const std::string value, node.String());
    const Status added = AddHeader(name + ":" + value, o.headers);
    if (!added.ok()) return node.Error(added.message());
    if (http::EqualsIgnoreCase(name, ttft)) {
      LLMD_ASSIGN_OR_RETURN(o.slo.ttft, SloOf(node, value, unit));
    }
    if (http::EqualsIgnoreCase(name, tpot)) {
      LLMD_ASSIGN_OR_RETURN(o.slo.tpot, SloOf(node, value, unit));
    }
  }
  return OkStatus();
}

// inference-perf's defaults are those of its Distribution.
Status ReadLengths(const Node& node, Lengths* out, uint64_t* total) {
  if (node.IsNull()) return OkStatus();
  std::string type = "normal";
  Lengths lengths{
      .kind = Lengths::Kind::kNormal, .min = 10, .max = 1024, .mean = 512, .deviation = 200};
  LLMD_RETURN_IF_ERROR(SetString(node.Get("type"), &type));
  LLMD_RETURN_IF_ERROR(SetInt(node.Get("min"), &lengths.min, 0, kMaxTokens));
  LLMD_RETURN_IF_ERROR(SetInt(node.Get("max"), &lengths.max, 0, kMaxTokens));
  const auto number = [](const Node& n) { return n.Double(); };
  LLMD_RETURN_IF_ERROR(Set(node.Get("mean"), &lengths.mean, number));
  if (node.Has("std") && node.Has("std_dev")) return node.Error("has both std and std_dev");
  LLMD_RETURN_IF_ERROR(Set(node.Get("std"), &lengths.deviation, number));
  LLMD_RETURN_IF_ERROR(Set(node.Get("std_dev"), &lengths.deviation, number));
  if (lengths.min > lengths.max) return node.Error("min is above max");
  if (!(lengths.mean >= 0) || !(lengths.deviation >= 0)) {
    return node.Error("mean and deviation are not below 0");
  }
  if (type == "uniform") {
    lengths.kind = Lengths::Kind::kUniform;
  } else if (type == "fixed") {
    lengths = Lengths::Fixed(static_cast<uint64_t>(std::llround(lengths.mean)));
  } else if (type != "normal") {
    return node.Get("type").Error("expected normal, uniform or fixed, got '" + type + "'");
  }
  uint64_t count = 0;
  LLMD_RETURN_IF_ERROR(SetInt(node.Get("total_count"), &count, 1, 1'000'000'000));
  if (count != 0 && *total != 0 && count != *total) {
    return node.Get("total_count").Error("prompts and outputs need the same number");
  }
  *total = std::max(*total, count);
  *out = lengths;
  return OkStatus();
}

Status ReadSharedPrefix(const Node& node, Options& o) {
  uint64_t question = 50, output = 50, total = 0;
  o.shared = {.groups = 10, .prompts_per_group = 10, .system_tokens = 100};
  for (const char* key : {"num_groups", "num_unique_system_prompts"}) {
    LLMD_RETURN_IF_ERROR(SetInt(node.Get(key), &o.shared.groups, 1, 1'000'000'000));
  }
  for (const char* key : {"num_prompts_per_group", "num_users_per_system_prompt"}) {
    LLMD_RETURN_IF_ERROR(SetInt(node.Get(key), &o.shared.prompts_per_group, 1, 1'000'000));
  }
  LLMD_RETURN_IF_ERROR(
      SetInt(node.Get("system_prompt_len"), &o.shared.system_tokens, 1, kMaxTokens));
  LLMD_RETURN_IF_ERROR(SetInt(node.Get("question_len"), &question, 0, kMaxTokens));
  LLMD_RETURN_IF_ERROR(SetInt(node.Get("output_len"), &output, 1, kMaxTokens));
  o.prompt = Lengths::Fixed(question);
  o.output = Lengths::Fixed(output);
  for (const auto& [key, target] : {std::pair("question_distribution", &o.prompt),
                                    std::pair("output_distribution", &o.output)}) {
    LLMD_RETURN_IF_ERROR(ReadLengths(node.Get(key), target, &total));
    if (total != 0) return node.Get(key).Get("total_count").Error("not known here");
  }
  return OnlyFalse(node.Get("enable_multi_turn_chat"),
                   "not known to llmd bench; --turns makes conversations");
}

Status ReadTrace(const Node& node, const std::string& beside, Options& o) {
  std::string format = "AzurePublicDataset";
  LLMD_RETURN_IF_ERROR(SetString(node.Get("format"), &format));
  LLMD_RETURN_IF_ERROR(SetString(node.Get("file"), &o.trace));
  if (o.trace.empty()) return node.Error("needs file");
  // Relative to the profile, so that the two travel together.
  o.trace = (std::filesystem::path(beside) / o.trace).string();
  if (format == "AzurePublicDataset") {
    o.trace_format = "azure";
  } else if (format == "mooncake") {
    o.trace_format = "mooncake";
  } else {
    return node.Get("format").Error("expected AzurePublicDataset or mooncake, got '" + format +
                                    "'");
  }
  return OkStatus();
}

Status ReadData(const Node& data, Options& o) {
  std::string type;
  LLMD_RETURN_IF_ERROR(SetString(data.Get("type"), &type));
  if (type == "shared_prefix") return ReadSharedPrefix(data.Get("shared_prefix"), o);
  if (type != "random" && type != "synthetic") {
    return data.Get("type").Error("expected random, synthetic or shared_prefix, got '" + type +
                                  "'");
  }
  LLMD_RETURN_IF_ERROR(ReadLengths(data.Get("input_distribution"), &o.prompt, &o.distinct_prompts));
  return ReadLengths(data.Get("output_distribution"), &o.output, &o.distinct_prompts);
}

Status ReadStage(const Node& node, bool closed, Options& o) {
  Stage stage;
  if (closed) {
    LLMD_RETURN_IF_ERROR(SetInt(node.Get("concurrency_level"), &stage.concurrency, 1, 1'000'000));
    LLMD_RETURN_IF_ERROR(SetInt(node.Get("num_requests"), &stage.requests, 1, 1'000'000'000'000));
    if (stage.concurrency == 0 || stage.requests == 0) {
      return node.Error("needs concurrency_level and num_requests");
    }
  } else {
    LLMD_RETURN_IF_ERROR(
        Set(node.Get("rate"), &stage.rate, [](const Node& n) { return n.Double(); }));
    LLMD_RETURN_IF_ERROR(SetSeconds(node.Get("duration"), &stage.duration));
    if (!(stage.rate > 0) || stage.rate > kMaxRate || stage.duration.count() <= 0) {
      return node.Error("needs rate above 0 and duration above 0");
    }
  }
  o.stages.push_back(stage);
  return OkStatus();
}

Status ReadAdapters(const Node& list, Options& o) {
  for (const Node& node : list.Items()) {
    Tenant tenant;
    LLMD_RETURN_IF_ERROR(SetString(node.Get("name"), &tenant.name));
    LLMD_RETURN_IF_ERROR(
        Set(node.Get("split"), &tenant.weight, [](const Node& n) { return n.Double(); }));
    if (tenant.name.empty() || !(tenant.weight > 0)) return node.Error("needs name and split");
    tenant.model = tenant.name;
    o.tenants.push_back(std::move(tenant));
  }
  return OkStatus();
}

Status ReadConnections(const Node& load, Options& o) {
  int64_t each = 100, tcp = 2500;
  LLMD_RETURN_IF_ERROR(SetInt(load.Get("num_workers"), &o.threads, 1, 256));
  LLMD_RETURN_IF_ERROR(SetInt(load.Get("worker_max_concurrency"), &each, 1, 1'000'000));
  LLMD_RETURN_IF_ERROR(SetInt(load.Get("worker_max_tcp_connections"), &tcp, 1, 1'000'000));
  if (load.Has("worker_max_concurrency") || load.Has("worker_max_tcp_connections")) {
    o.max_connections = std::min<int64_t>(1'000'000, o.threads * std::min(each, tcp));
  }
  return OkStatus();
}

Status ReadLoad(const Node& load, const std::string& beside, Options& o) {
  using Load = Options::Load;
  std::string type = "constant";
  LLMD_RETURN_IF_ERROR(SetString(load.Get("type"), &type));
  constexpr std::pair<std::string_view, Load> kTypes[] = {{"constant", Load::kConstant},
                                                          {"poisson", Load::kPoisson},
                                                          {"concurrent", Load::kClosed},
                                                          {"trace_replay", Load::kTrace}};
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](auto& t) { return t.first == type; });
  if (found == std::end(kTypes)) {
    return load.Get("type").Error("expected constant, poisson, concurrent or trace_replay, got '" +
                                  type + "'");
  }
  o.load = found->second;
  o.stage_pause = std::chrono::seconds(1);
  LLMD_RETURN_IF_ERROR(SetSeconds(load.Get("interval"), &o.stage_pause));
  LLMD_RETURN_IF_ERROR(ReadConnections(load, o));
  LLMD_RETURN_IF_ERROR(SetSeconds(load.Get("request_timeout"), &o.timeout));
  LLMD_RETURN_IF_ERROR(SetInt(load.Get("base_seed"), &o.seed, 0, INT64_MAX));
  LLMD_RETURN_IF_ERROR(ReadAdapters(load.Get("lora_traffic_split"), o));
  if (o.load == Load::kTrace) {
    o.stages = {{}};
    return ReadTrace(load.Get("trace"), beside, o);
  }
  for (const Node& stage : load.Get("stages").Items()) {
    LLMD_RETURN_IF_ERROR(ReadStage(stage, o.load == Load::kClosed, o));
  }
  return o.stages.empty() ? load.Error("needs stages") : OkStatus();
}

Status ReadServer(const Node& server, Options& o) {
  std::string type = "vllm", url;
  LLMD_RETURN_IF_ERROR(SetString(server.Get("type"), &type));
  if (type != "vllm" && type != "sglang" && type != "tgi") {
    return server.Get("type").Error("expected vllm, sglang or tgi, got '" + type + "'");
  }
  LLMD_RETURN_IF_ERROR(SetString(server.Get("model_name"), &o.model));
  LLMD_RETURN_IF_ERROR(SetBool(server.Get("ignore_eos"), &o.ignore_eos));
  LLMD_RETURN_IF_ERROR(SetString(server.Get("api_key"), &o.api_key));
  for (const auto& [key, pem] :
       {std::pair("cert_path", &o.tls.chain), std::pair("key_path", &o.tls.key)}) {
    std::string path;
    LLMD_RETURN_IF_ERROR(SetString(server.Get(key), &path));
    if (path.empty()) continue;
    StatusOr<std::string> text = ReadFile(path);
    if (!text.ok()) return server.Get(key).Error(text.status().message());
    *pem = std::move(*text);
  }
  LLMD_RETURN_IF_ERROR(SetString(server.Get("base_url"), &url));
  if (url.empty()) return OkStatus();
  StatusOr<http::Url> target = http::ParseUrl(url);
  if (!target.ok()) return server.Get("base_url").Error(target.status().message());
  o.targets = {std::move(*target)};
  return OkStatus();
}

Status ReadReport(const Node& report, Options& o) {
  const Node life = report.Get("request_lifecycle");
  bool summary = true;
  LLMD_RETURN_IF_ERROR(SetBool(life.Get("summary"), &summary));
  if (!summary) return life.Get("summary").Error("llmd bench always gives the summary");
  LLMD_RETURN_IF_ERROR(SetBool(life.Get("per_stage"), &o.report_stages));
  LLMD_RETURN_IF_ERROR(
      OnlyFalse(life.Get("per_request"), "llmd bench keeps histograms, not requests"));
  const Node percentiles = life.Get("percentiles");
  if (percentiles.IsNull()) return OkStatus();
  o.percentiles.clear();
  for (const Node& node : percentiles.Items()) {
    LLMD_ASSIGN_OR_RETURN(const double value, node.Double());
    if (!(value >= 0) || value > 100 || o.percentiles.size() >= 100) {
      return node.Error("expected at most 100 numbers from 0 to 100");
    }
    o.percentiles.push_back(value);
  }
  return o.percentiles.empty() ? percentiles.Error("is empty") : OkStatus();
}

Status ReadStorage(const Node& storage, Options& o) {
  const Node local = storage.Get("local_storage");
  std::string path, prefix;
  LLMD_RETURN_IF_ERROR(SetString(local.Get("path"), &path));
  LLMD_RETURN_IF_ERROR(SetString(local.Get("report_file_prefix"), &prefix));
  if (path.empty()) return storage.Error("needs local_storage.path");
  if (path.find('{') != std::string::npos) {
    return local.Get("path").Error("placeholders are not known to llmd bench");
  }
  o.json_path = path + "/" + prefix + "llmd-bench.json";
  o.svg_path = path + "/" + prefix + "llmd-bench.svg";
  return OkStatus();
}

}  // namespace

StatusOr<Options> LoadProfile(const std::string& path, const std::vector<std::string>& without) {
  LLMD_ASSIGN_OR_RETURN(const Node root, config::ParseFile(path));
  Options o;
  const auto read = [&]() -> Status {
    for (const std::string& section : without) {
      if (!root.Has(section)) {
        return InvalidArgument("--profile-without " + section + ": there is no such section");
      }
    }
    const auto skip = [&](const char* name) {
      return std::find(without.begin(), without.end(), name) != without.end();
    };
    for (const auto& [section, why] :
         {std::pair("tokenizer", "llmd bench counts words, of which most are one token"),
          std::pair("metrics", "llmd bench reads no Prometheus"),
          std::pair("circuit_breakers", "llmd bench has none")}) {
      if (root.Has(section) && !skip(section)) {
        return root.Get(section).Error(std::string(why) + "; --profile-without " + section +
                                       " leaves the section out");
      }
    }
    if (!skip("api")) LLMD_RETURN_IF_ERROR(ReadApi(root.Get("api"), o));
    if (!skip("load")) {
      const std::string beside = std::filesystem::path(path).parent_path().string();
      LLMD_RETURN_IF_ERROR(ReadLoad(root.Get("load"), beside, o));
    }
    if (!skip("data") && (o.load != Options::Load::kTrace || root.Has("data"))) {
      LLMD_RETURN_IF_ERROR(ReadData(root.Get("data"), o));
    }
    if (!skip("server")) LLMD_RETURN_IF_ERROR(ReadServer(root.Get("server"), o));
    if (!skip("report")) LLMD_RETURN_IF_ERROR(ReadReport(root.Get("report"), o));
    if (!skip("storage") && root.Has("storage")) {
      LLMD_RETURN_IF_ERROR(ReadStorage(root.Get("storage"), o));
    }
    return root.RejectUnknown();
  };
  const Status done = read();
  if (!done.ok()) return done.WithContext(path);
  return o;
}

}  // namespace llmd::bench
