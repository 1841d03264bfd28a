#include "cli/bench/flags.h"

#include <unistd.h>

#include <charconv>

#include "cli/bench/profile.h"
#include "common/process.h"
#include "llmd/format.h"

namespace llmd::bench {
namespace {

// What stands on the command line beside Options, or becomes part of it only at the end.
struct Words {
  std::string profile;
  std::vector<std::string> without;
  std::string arrivals = "constant", progress = "auto", api_key_file;
  std::string tls_ca, tls_cert, tls_key;
  double rate = 0;
  int64_t concurrency = 0, requests = 0;
  Duration duration{};
  std::vector<Stage> stages;
  bool targets_given = false, tenants_given = false, watched_given = false;
};

StatusOr<Watched> ParseWatched(std::string_view text) {
  const size_t at = text.find('=');
  Watched out{.name = std::string(text.substr(0, at))};
  const std::string_view pid = at == std::string_view::npos ? "" : text.substr(at + 1);
  const auto [end, ec] = std::from_chars(pid.data(), pid.data() + pid.size(), out.pid);
  if (out.name.empty() || ec != std::errc{} || end != pid.data() + pid.size() || out.pid < 1) {
    return InvalidArgument("expected NAME=PID, got '" + std::string(text) + "'");
  }
  return out;
}

StatusOr<std::vector<double>> ParsePercentiles(std::string_view text) {
  std::vector<double> out;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    double value = -1;
    const auto [end, ec] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (ec != std::errc{} || end != part.data() + part.size() || !(value >= 0) || value > 100 ||
        out.size() >= 100) {
      return InvalidArgument("expected at most 100 numbers from 0 to 100, got '" +
                             std::string(part) + "'");
    }
    out.push_back(value);
    if (comma == std::string_view::npos) return out;
    text.remove_prefix(comma + 1);
  }
}

Status SetApi(std::string_view text, Options& o) {
  for (const Api api : {Api::kChat, Api::kCompletion, Api::kRaw}) {
    if (text == Name(api)) {
      o.api = api;
      return OkStatus();
    }
  }
  return InvalidArgument("expected chat, completion or raw, got '" + std::string(text) + "'");
}

// The first use takes the place of what a profile said, the next ones add.
template <typename T>
void AddTo(std::vector<T>& list, bool& given, T value) {
  if (!given) list.clear();
  given = true;
  list.push_back(std::move(value));
}

// Sets `target` by `parse`.
template <typename T, typename Parse>
std::function<Status(std::string_view)> Into(T* target, Parse parse) {
  return [=](std::string_view text) -> Status {
    LLMD_ASSIGN_OR_RETURN(*target, parse(text));
    return OkStatus();
  };
}

void BindServer(services::FlagSet& flags, Options& o, Words& w) {
  flags.Custom(
      "target",
      [&](std::string_view text) -> Status {
        LLMD_ASSIGN_OR_RETURN(http::Url url, http::ParseUrl(text));
        AddTo(o.targets, w.targets_given, std::move(url));
        return OkStatus();
      },
      "http[s]://host:port of the server; several are taken in turn");
  flags.Custom(
      "api", [&](std::string_view text) { return SetApi(text, o); },
      "chat (default), completion, or raw: --method, --path and --body as they are");
  flags.Bool("stream", &o.stream, "ask for a stream of events");
  flags.String("model", &o.model, "default: the first of the server's /v1/models");
  flags.String("path", &o.path, "instead of the API's path");
  flags.String("method", &o.method, "of --api raw");
  flags.String("body", &o.body, "of --api raw");
  flags.Custom("body-file", Into(&o.body, [](auto t) { return ReadFile(std::string(t)); }),
               "of --api raw: the file's bytes");
  flags.Custom(
      "header", [&](std::string_view t) { return AddHeader(t, o.headers); },
      "'Name: value' for every request; may be repeated");
  flags.String("api-key", &o.api_key, "sent as Authorization: Bearer");
  flags.String("api-key-file", &w.api_key_file, "the key is the file's first line");
  flags.String("tls-ca", &w.tls_ca,
               "PEM file of whom to believe; default: whom the system believes");
  flags.String("tls-cert", &w.tls_cert, "PEM file to show to servers that ask");
  flags.String("tls-key", &w.tls_key, "PEM file with the certificate's key");
  flags.Bool("tls-verify", &o.tls.verify, "the server's certificate is checked");
  flags.String("extra-body", &o.extra_body, "JSON object whose members every body gets");
  flags.Bool("ignore-eos", &o.ignore_eos, "answers have the length asked for (vLLM, SGLang, llmd)");
  flags.Bool("usage", &o.include_usage, "ask for usage at a stream's end");
}

void BindLoad(services::FlagSet& flags, Options& o, Words& w) {
  flags.String("profile", &w.profile, "YAML with inference-perf's keys; flags go above it");
  flags.List("profile-without", &w.without, "a section of the profile to leave out, as tokenizer");
  flags.Double("rate", &w.rate, "open loop: requests (conversations) a second");
  flags.String("arrivals", &w.arrivals, "of --rate and --stage rate=: constant or poisson");
  flags.Int("concurrency", &w.concurrency, 0, 1'000'000, "closed loop: requests in flight");
  flags.Custom(
      "stage",
      [&](std::string_view text) -> Status {
        LLMD_ASSIGN_OR_RETURN(Stage stage, ParseStage(text));
        w.stages.push_back(stage);
        return OkStatus();
      },
      "rate=10,duration=30s or concurrency=8,requests=100; repeated, one after another");
  flags.Duration("stage-pause", &o.stage_pause, "between two stages");
  flags.Duration("duration", &w.duration, "no request begins after it");
  flags.Int("requests", &w.requests, 0, 1'000'000'000'000, "ends after so many (conversations)");
  flags.Duration("warmup", &o.warmup, "what begins in it is not counted");
  flags.Duration("timeout", &o.timeout, "of one request, connecting included");
  flags.Int("threads", &o.threads, 1, 256, "loops that send");
  flags.Int("max-connections", &o.max_connections, 1, 1'000'000,
            "requests in flight at most; arrivals above wait, and count as late");
  flags.Custom("seed",
               Into(&o.seed,
                    [](std::string_view t) -> StatusOr<uint64_t> {
                      uint64_t seed = 0;
                      const auto [end, ec] = std::from_chars(t.data(), t.data() + t.size(), seed);
                      if (ec == std::errc{} && end == t.data() + t.size()) return seed;
                      return InvalidArgument("expected an integer from 0 to 2^64 - 1, got '" +
                                             std::string(t) + "'");
                    }),
               "the same seed makes the same requests (default 0)");
}

void BindWorkload(services::FlagSet& flags, Options& o, Words& w) {
  flags.Custom("prompt-tokens", Into(&o.prompt, ParseLengths),
               "words of a prompt, its question with a shared prefix: N, uniform:MIN:MAX or "
               "normal:MEAN:DEVIATION[:MIN:MAX] (default 512)");
  flags.Custom("output-tokens", Into(&o.output, ParseLengths),
               "max_tokens, written the same way (default 64)");
  flags.Custom("prefix-groups",
               Into(&o.shared.groups, [](auto t) { return ParseCount(t, 1'000'000'000); }),
               "prompts begin with one of so many shared prefixes");
  flags.Custom("prefix-tokens",
               Into(&o.shared.system_tokens, [](auto t) { return ParseCount(t, kMaxTokens); }),
               "words of a shared prefix");
  flags.Custom("prefix-prompts",
               Into(&o.shared.prompts_per_group, [](auto t) { return ParseCount(t, 1'000'000); }),
               "questions of a prefix, that come round again; default: every one is new");
  flags.Custom("distinct-prompts",
               Into(&o.distinct_prompts, [](auto t) { return ParseCount(t, 1'000'000'000); }),
               "prompts come round again after so many; default: every one is new");
  flags.Int("turns", &o.turns, 1, kMaxTurns,
            "of a conversation; each carries the answers before it");
  flags.Duration("think-time", &o.think, "from an answer to the next turn");
  flags.Custom(
      "tenant",
      [&](std::string_view text) -> Status {
        LLMD_ASSIGN_OR_RETURN(Tenant tenant, ParseTenant(text));
        AddTo(o.tenants, w.tenants_given, std::move(tenant));
        return OkStatus();
      },
      "name=A,weight=3[,model=M][,fairness-id=F][,api-key=K][,api-key-file=F][,header=Name:value]; "
      "repeated, requests are drawn by weight");
  flags.String("trace", &o.trace, "replay of Mooncake JSON lines or Azure CSV");
  flags.String("trace-format", &o.trace_format, "mooncake or azure; default: by .jsonl or .csv");
  flags.Double("speed", &o.speed, "a trace's time runs so many times faster");
  flags.Custom("trace-block-tokens",
               Into(&o.trace_block_tokens, [](auto t) { return ParseCount(t, 1'000'000); }),
               "words of one of hash_ids' blocks (default 512)");
}

void BindReport(services::FlagSet& flags, Options& o, Words& w) {
  flags.Custom("slo", Into(&o.slo, ParseSlo), "goodput: ttft:500ms,tpot:50ms,e2e:10s");
  flags.Custom(
      "watch-pid",
      [&](std::string_view text) -> Status {
        LLMD_ASSIGN_OR_RETURN(Watched watched, ParseWatched(text));
        AddTo(o.watched, w.watched_given, std::move(watched));
        return OkStatus();
      },
      "NAME=PID: report that process's CPU; may be repeated");
  flags.Custom("percentiles", Into(&o.percentiles, ParsePercentiles), "default 50,90,99,99.9");
  flags.String("json", &o.json_path, "file for the report; - = stdout, the text then to stderr");
  flags.String("svg", &o.svg_path, "file for a chart");
  flags.String("progress", &w.progress, "a line while it runs, on stderr: auto, on, off");
}

Status SetStages(const Words& w, const services::FlagSet::Outcome& given, Options& o) {
  using Load = Options::Load;
  const bool one = given.Given("rate") || given.Given("concurrency");
  if (w.arrivals != "constant" && w.arrivals != "poisson") {
    return InvalidArgument("--arrivals: expected constant or poisson, got '" + w.arrivals + "'");
  }
  const Load open = w.arrivals == "poisson" ? Load::kPoisson : Load::kConstant;
  if (one + (given.Given("stage") ? 1 : 0) + (given.Given("trace") ? 1 : 0) > 1 ||
      (given.Given("rate") && given.Given("concurrency"))) {
    return InvalidArgument("--rate, --concurrency, --stage and --trace exclude each other");
  }
  if (one || given.Given("stage")) o.trace.clear();
  if (one) {
    o.load = given.Given("rate") ? open : Load::kClosed;
    o.stages = {{.rate = w.rate, .concurrency = w.concurrency}};
  } else if (given.Given("stage")) {
    o.stages = w.stages;
    o.load = w.stages[0].rate > 0 ? open : Load::kClosed;
    for (const Stage& stage : w.stages) {
      if ((stage.rate > 0) != (w.stages[0].rate > 0)) {
        return InvalidArgument("--stage: rate= and concurrency= do not mix in one run");
      }
    }
  } else if (!o.trace.empty()) {
    o.load = Load::kTrace;
    if (given.Given("trace") || o.stages.empty()) o.stages = {{}};
  } else if (given.Given("arrivals") && o.load != Load::kClosed) {
    o.load = open;
  }
  if (o.stages.empty()) {
    return InvalidArgument("what load? give --rate, --concurrency, --stage, --trace or --profile");
  }
  for (Stage& stage : o.stages) {
    if (given.Given("duration")) stage.duration = w.duration;
    if (given.Given("requests")) stage.requests = static_cast<uint64_t>(w.requests);
  }
  return OkStatus();
}

// A flag that would change nothing is a mistake of whoever gave it.
Status RefuseIdle(const services::FlagSet::Outcome& given, const Options& o) {
  const bool trace = o.load == Options::Load::kTrace, raw = o.api == Api::kRaw;
  const bool open = !trace && o.load != Options::Load::kClosed;
  const bool made = !trace && !raw;
  bool tls = false;
  for (const http::Url& target : o.targets) tls |= target.tls;
  const struct {
    const char* flag;
    bool used;
    const char* needs;
  } rules[] = {
      {"arrivals", open, "an open loop: --rate or --stage rate="},
      {"stage-pause", o.stages.size() > 1, "more than one stage"},
      {"think-time", o.turns > 1, "--turns above 1"},
      {"speed", trace, "--trace"},
      {"trace-format", trace, "--trace"},
      {"trace-block-tokens", trace, "--trace"},
      {"prefix-tokens", o.shared.groups != 0, "--prefix-groups"},
      {"prefix-prompts", o.shared.groups != 0, "--prefix-groups"},
      {"distinct-prompts", made && o.shared.prompts_per_group == 0,
       "prompts that are made, without --prefix-prompts"},
      {"prompt-tokens", made, "prompts that are made: neither --trace nor --api raw"},
      {"output-tokens", made, "prompts that are made: neither --trace nor --api raw"},
      {"model", !raw, "--api chat or completion"},
      {"stream", !raw, "--api chat or completion"},
      {"usage", !raw && o.stream, "--stream"},
      {"ignore-eos", !raw, "--api chat or completion"},
      {"tls-ca", tls, "a target with https"},
      {"tls-cert", tls, "a target with https"},
      {"tls-key", tls, "a target with https"},
      {"tls-verify", tls, "a target with https"},
  };
  for (const auto& rule : rules) {
    if (given.Given(rule.flag) && !rule.used) {
      return InvalidArgument("--" + std::string(rule.flag) + " needs " + rule.needs);
    }
  }
  return OkStatus();
}

Status CompleteRequest(const Words& w, const services::FlagSet::Outcome& given, Options& o) {
  if (o.api == Api::kRaw && !given.Given("method") && o.body.empty()) o.method = "GET";
  if (o.method.empty() ||
      o.method.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") != std::string::npos) {
    return InvalidArgument("--method: expected capital letters, got '" + o.method + "'");
  }
  for (const char* raw : {"method", "body", "body-file"}) {
    if (o.api != Api::kRaw && given.Given(raw)) {
      return InvalidArgument("--" + std::string(raw) + " needs --api raw");
    }
  }
  if (!o.path.empty() && (o.path[0] != '/' || o.path.find_first_of(" \r\n") != std::string::npos)) {
    return InvalidArgument("--path: expected /path, got '" + o.path + "'");
  }
  if (!w.api_key_file.empty()) {
    LLMD_ASSIGN_OR_RETURN(o.api_key, ReadKeyFile(w.api_key_file));
  }
  return OkStatus();
}

Status Complete(const Words& w, const services::FlagSet::Outcome& given, Options& o) {
  LLMD_RETURN_IF_ERROR(SetStages(w, given, o));
  LLMD_RETURN_IF_ERROR(CompleteRequest(w, given, o));
  LLMD_RETURN_IF_ERROR(RefuseIdle(given, o));
  for (const auto& [path, pem] :
       {std::pair(&w.tls_ca, &o.tls.ca), std::pair(&w.tls_cert, &o.tls.chain),
        std::pair(&w.tls_key, &o.tls.key)}) {
    if (path->empty()) continue;
    LLMD_ASSIGN_OR_RETURN(*pem, ReadFile(*path));
  }
  if (w.progress != "auto" && w.progress != "on" && w.progress != "off") {
    return InvalidArgument("--progress: expected auto, on or off, got '" + w.progress + "'");
  }
  o.progress = w.progress == "on" || (w.progress == "auto" && isatty(STDERR_FILENO) == 1);
  return Validate(o);
}

void Bind(services::FlagSet& flags, Options& options, Words& words) {
  BindServer(flags, options, words);
  BindLoad(flags, options, words);
  BindWorkload(flags, options, words);
  BindReport(flags, options, words);
}

CommandLine Refuse(const Status& status) {
  services::Fail(status);
  return {.exit = true, .code = 2};
}

}  // namespace

StatusOr<uint64_t> ParseCount(std::string_view text, uint64_t max) {
  uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec == std::errc{} && end == text.data() + text.size() && value >= 1 && value <= max) {
    return value;
  }
  return InvalidArgument("expected an integer from 1 to " + std::to_string(max) + ", got '" +
                         std::string(text) + "'");
}

CommandLine ReadCommandLine(int argc, const char* const* argv) {
  const std::string summary =
      "Sends load to an OpenAI server and measures it, without coordinated omission: in the open "
      "loop times count from when a request was to be sent (docs/load-testing.md).";
  CommandLine out;
  Words words;
  {
    // Flags go above the profile, so that is looked for first.
    Options ignored;
    services::FlagSet flags("llmd bench", summary);
    Bind(flags, ignored, words);
    const auto outcome = flags.Parse(argc, argv);
    if (outcome.exit) return {.exit = true, .code = outcome.code};
  }
  if (!words.profile.empty()) {
    StatusOr<Options> profile = LoadProfile(words.profile, words.without);
    if (!profile.ok()) return Refuse(profile.status());
    out.options = std::move(*profile);
  } else if (!words.without.empty()) {
    return Refuse(InvalidArgument("--profile-without needs --profile"));
  }
  words = {};
  services::FlagSet flags("llmd bench", summary);
  Bind(flags, out.options, words);
  const auto outcome = flags.Parse(argc, argv);
  if (outcome.exit) return {.exit = true, .code = outcome.code};
  const Status complete = Complete(words, outcome, out.options);
  if (!complete.ok()) return Refuse(complete);
  return out;
}

}  // namespace llmd::bench
