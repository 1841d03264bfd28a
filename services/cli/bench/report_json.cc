#include <cmath>

#include "cli/bench/report.h"
#include "llmd/format.h"

namespace llmd::bench {
namespace {

double Round(double value, double unit) {
  return std::round(value / unit) * unit;
}

// Milliseconds to the microsecond.
double Ms(int64_t nanos) {
  return static_cast<double>(std::llround(static_cast<double>(nanos) / 1e3)) / 1e3;
}

double Rate(uint64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

std::string PercentileName(double percent) {
  std::string name = "p";
  AppendPythonFloat(name, percent);
  if (name.ends_with(".0")) name.resize(name.size() - 2);
  return name;
}

json::Value Latency(const Histogram& histogram, const std::vector<double>& percentiles) {
  json::Value out{json::Object{}};
  out.Set("count", histogram.count());
  out.Set("mean", Ms(std::llround(histogram.Mean())));
  out.Set("min", Ms(histogram.min()));
  for (const double percent : percentiles) {
    out.Set(PercentileName(percent), Ms(histogram.Percentile(percent)));
  }
  out.Set("max", Ms(histogram.max()));
  return out;
}

// What is said of the run, of a stage and of a tenant alike.
json::Value Numbers(const Tally& tally, const Options& options) {
  const double seconds = tally.Seconds();
  json::Value errors{json::Object{}};
  for (const auto& [name, count] : FailureCounts(tally)) errors.Set(name, count);
  json::Value out{json::Object{}};
  out.Set("seconds", seconds);
  out.Set("requests", json::Object{{"sent", tally.sent()},
                                   {"completed", tally.completed()},
                                   {"failed", tally.failed()},
                                   {"interrupted", tally.interrupted()},
                                   {"e2e_lower_bounds", tally.lower_bounds()}});
  out.Set("errors", std::move(errors));
  out.Set("throughput", json::Object{{"requests_per_s", Rate(tally.completed(), seconds)},
                                     {"prompt_tokens_per_s", Rate(tally.prompt_tokens(), seconds)},
                                     {"output_tokens_per_s", Rate(tally.output_tokens(), seconds)},
                                     {"bytes_out_per_s", Rate(tally.bytes_out(), seconds)},
                                     {"bytes_in_per_s", Rate(tally.bytes_in(), seconds)}});
  out.Set("tokens", json::Object{{"prompt", tally.prompt_tokens()},
                                 {"output", tally.output_tokens()},
                                 {"cached", tally.cached_tokens()},
                                 {"answers_with_usage", tally.with_usage()}});
  if (options.slo.any()) {
    const uint64_t ended = tally.completed() + tally.failed();
    out.Set("goodput", json::Object{{"requests", tally.good()},
                                    {"requests_per_s", Rate(tally.good(), seconds)},
                                    {"share", Rate(tally.good(), static_cast<double>(ended))}});
  }
  const auto& p = options.percentiles;
  out.Set("latency_ms", json::Object{{"ttft", Latency(tally.ttft(), p)},
                                     {"gap", Latency(tally.gap(), p)},
                                     {"tpot", Latency(tally.tpot(), p)},
                                     {"e2e", Latency(tally.e2e(), p)},
                                     {"service", Latency(tally.service(), p)},
                                     {"lateness", Latency(tally.lateness(), p)}});
  return out;
}

json::Value OfLengths(const Lengths& lengths) {
  constexpr const char* kKinds[] = {"fixed", "uniform", "normal"};
  return json::Object{{"kind", kKinds[static_cast<int>(lengths.kind)]},
                      {"min", lengths.min},
                      {"max", lengths.max},
                      {"mean", lengths.mean},
                      {"deviation", lengths.deviation}};
}

json::Value OfStages(const Options& options) {
  json::Array out;
  for (const Stage& stage : options.stages) {
    out.push_back(json::Object{{"rate", stage.rate},
                               {"concurrency", stage.concurrency},
                               {"duration_s", static_cast<double>(stage.duration.count()) * 1e-9},
                               {"requests", stage.requests}});
  }
  return out;
}

json::Value Config(const Options& o) {
  json::Array targets;
  for (const http::Url& target : o.targets) {
    targets.emplace_back(std::string(target.tls ? "https://" : "http://") + target.peer.ToString() +
                         target.target);
  }
  const auto seconds = [](Duration d) { return static_cast<double>(d.count()) * 1e-9; };
  json::Value out{json::Object{{"targets", std::move(targets)},
                               {"api", Name(o.api)},
                               {"path", PathOf(o)},
                               {"model", o.model},
                               {"stream", o.stream},
                               {"load", Name(o.load)},
                               {"stages", OfStages(o)},
                               {"warmup_s", seconds(o.warmup)},
                               {"timeout_s", seconds(o.timeout)},
                               {"threads", o.threads},
                               {"max_connections", o.max_connections},
                               {"seed", o.seed}}};
  if (o.load == Options::Load::kTrace) {
    out.Set("trace", o.trace);
    out.Set("speed", o.speed);
  } else if (o.api != Api::kRaw) {
    out.Set("prompt_tokens", OfLengths(o.prompt));
    out.Set("output_tokens", OfLengths(o.output));
    out.Set("turns", o.turns);
    out.Set("shared_prefix", json::Object{{"groups", o.shared.groups},
                                          {"prompts_per_group", o.shared.prompts_per_group},
                                          {"tokens", o.shared.system_tokens}});
  }
  return out;
}

json::Value Generator(const Result& r) {
  return json::Object{{"cpu_user_s", r.cpu_user_s},
                      {"cpu_system_s", r.cpu_system_s},
                      {"busiest_loop", Round(r.busiest_loop, 1e-4)},
                      {"connections", r.connections},
                      {"most_in_flight", r.most_in_flight},
                      {"reconnects", r.reconnects}};
}

json::Value WatchedJson(const Result& r) {
  json::Array out;
  for (const WatchedUse& use : r.watched) {
    json::Value one{json::Object{{"name", use.name}, {"pid", use.pid}, {"gone", use.gone}}};
    if (!use.gone) {
      const uint64_t ended = r.total.completed() + r.total.failed();
      one.Set("cpu_s", use.cpu_s);
      one.Set("cores", use.elapsed_s > 0 ? use.cpu_s / use.elapsed_s : 0);
      one.Set("cpu_us_per_request", ended > 0 ? use.cpu_s * 1e6 / static_cast<double>(ended) : 0);
    }
    out.push_back(std::move(one));
  }
  return out;
}

json::Value SeriesJson(const Series& series) {
  json::Array windows;
  for (size_t i = 0; i < series.windows().size(); ++i) {
    const Series::Window& w = series.windows()[i];
    windows.push_back(
        json::Object{{"at_s", static_cast<double>(series.width()) * static_cast<double>(i) * 1e-9},
                     {"completed", w.completed},
                     {"failed", w.failed},
                     {"output_tokens", w.output_tokens},
                     {"ttft_p50_ms", Ms(w.ttft.Percentile(50))},
                     {"ttft_p99_ms", Ms(w.ttft.Percentile(99))},
                     {"e2e_p50_ms", Ms(w.e2e.Percentile(50))},
                     {"e2e_p99_ms", Ms(w.e2e.Percentile(99))}});
  }
  return json::Object{{"width_s", static_cast<double>(series.width()) * 1e-9},
                      {"windows", std::move(windows)}};
}

}  // namespace

json::Value JsonReport(const Options& options, const Result& result) {
  json::Value out{json::Object{{"schema", "llmd-bench/1"},
                               {"interrupted", result.signal != 0},
                               {"config", Config(options)},
                               {"elapsed_s", result.elapsed_s},
                               {"warmup_requests", result.warmup_requests}}};
  const json::Value numbers = Numbers(result.total, options);
  for (const auto& [name, value] : numbers.AsObject()) out.Set(name, value);
  out.Set("generator", Generator(result));
  out.Set("watched", WatchedJson(result));
  json::Array stages, tenants;
  for (size_t i = 0; i < result.stages.size() && options.report_stages; ++i) {
    json::Value stage = Numbers(result.stages[i], options);
    stage.Set("stage", i);
    stages.push_back(std::move(stage));
  }
  for (size_t i = 0; i < result.tenants.size(); ++i) {
    json::Value tenant = Numbers(result.tenants[i], options);
    tenant.Set("tenant", options.tenants[i].name);
    tenants.push_back(std::move(tenant));
  }
  out.Set("stages", std::move(stages));
  out.Set("tenants", std::move(tenants));
  out.Set("series", SeriesJson(result.series));
  return out;
}

}  // namespace llmd::bench
