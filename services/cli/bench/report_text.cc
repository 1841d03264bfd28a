#include <cstdarg>
#include <cstdio>

#include "cli/bench/report.h"
#include "llmd/format.h"

namespace llmd::bench {
namespace {

[[gnu::format(printf, 2, 3)]] void Append(std::string& out, const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  const int n = std::vsnprintf(buffer, sizeof(buffer), format, arguments);
  va_end(arguments);
  if (n > 0) out.append(buffer, std::min(static_cast<size_t>(n), sizeof(buffer) - 1));
}

double Ms(int64_t nanos) {
  return static_cast<double>(nanos) / 1e6;
}

unsigned long long Wide(uint64_t value) {
  return value;
}

double Rate(uint64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

void AppendLatency(std::string& out, const char* name, const Histogram& histogram,
                   const std::vector<double>& percentiles) {
  if (histogram.count() == 0) return;
  Append(out, "  %-10s", name);
  for (const double percent : percentiles)
    Append(out, " %10.3f", Ms(histogram.Percentile(percent)));
  Append(out, " %10.3f %10.3f\n", Ms(histogram.max()), Ms(std::llround(histogram.Mean())));
}

void AppendLatencies(std::string& out, const Tally& tally, const Options& options) {
  Append(out, "  %-10s", "ms");
  for (const double percent : options.percentiles) {
    std::string name;
    AppendPythonFloat(name, percent);
    if (name.ends_with(".0")) name.resize(name.size() - 2);
    Append(out, " %10s", ("p" + name).c_str());
  }
  Append(out, " %10s %10s\n", "max", "mean");
  AppendLatency(out, "ttft", tally.ttft(), options.percentiles);
  AppendLatency(out, "gap", tally.gap(), options.percentiles);
  AppendLatency(out, "tpot", tally.tpot(), options.percentiles);
  AppendLatency(out, "e2e", tally.e2e(), options.percentiles);
  if (tally.lower_bounds() != 0) {
    Append(out,
           "    e2e: of %llu that timed out or were broken off the time waited, which is a lower "
           "bound\n",
           Wide(tally.lower_bounds()));
  }
  AppendLatency(out, "service", tally.service(), options.percentiles);
  AppendLatency(out, "lateness", tally.lateness(), options.percentiles);
}

void AppendCounts(std::string& out, const Tally& tally, const Options& options) {
  const double seconds = tally.Seconds();
  Append(out, "%llu sent, %llu completed, %llu failed", Wide(tally.sent()), Wide(tally.completed()),
         Wide(tally.failed()));
  if (tally.interrupted() != 0) Append(out, ", %llu interrupted", Wide(tally.interrupted()));
  Append(out, " in %.2f s\n", seconds);
  for (const auto& [name, count] : FailureCounts(tally)) {
    Append(out, "  failed: %s %llu\n", name.c_str(), Wide(count));
  }
  Append(out, "  %.2f requests/s", Rate(tally.completed(), seconds));
  if (options.api != Api::kRaw) {
    Append(out, ", tokens/s: %.1f in, %.1f out", Rate(tally.prompt_tokens(), seconds),
           Rate(tally.output_tokens(), seconds));
    if (tally.with_usage() < tally.completed()) {
      Append(out, " (%llu answers without usage: by words and events)",
             Wide(tally.completed() - tally.with_usage()));
    }
  }
  out += "\n";
  if (options.slo.any()) {
    const uint64_t ended = tally.completed() + tally.failed();
    Append(out, "  goodput: %.2f requests/s, %.1f %% within the SLOs\n",
           Rate(tally.good(), seconds), 100 * Rate(tally.good(), static_cast<double>(ended)));
  }
}

// What may have spoilt the measurement.
void AppendGenerator(std::string& out, const Options& options, const Result& r) {
  Append(out, "generator: %.2f s CPU, busiest of %lld threads %.0f %%, sent late by p99 %.3f ms\n",
         r.cpu_user_s + r.cpu_system_s, static_cast<long long>(options.threads),
         100 * r.busiest_loop, Ms(r.total.lateness().Percentile(99)));
  if (r.busiest_loop > 0.8) {
    out +=
        "  warning: a sending thread was busy for more than 80 % of the time: the numbers are "
        "partly its own; raise --threads\n";
  }
  for (const WatchedUse& use : r.watched) {
    if (use.gone) {
      Append(out, "%s (pid %lld): gone\n", use.name.c_str(), static_cast<long long>(use.pid));
      continue;
    }
    const uint64_t ended = r.total.completed() + r.total.failed();
    Append(out, "%s: %.3f s CPU, %.1f us a request\n", use.name.c_str(), use.cpu_s,
           ended > 0 ? use.cpu_s * 1e6 / static_cast<double>(ended) : 0);
  }
}

}  // namespace

std::vector<std::pair<std::string, uint64_t>> FailureCounts(const Tally& tally) {
  std::vector<std::pair<std::string, uint64_t>> out;
  for (size_t i = 1; i < kFailures; ++i) {
    const auto kind = static_cast<Failure>(i);
    if (kind == Failure::kStatus || tally.failures(kind) == 0) continue;
    out.emplace_back(Name(kind), tally.failures(kind));
  }
  for (int code = 100; code < 600; ++code) {
    if (tally.status(code) != 0) {
      out.emplace_back("http_" + std::to_string(code), tally.status(code));
    }
  }
  return out;
}

std::string TextReport(const Options& options, const Result& result) {
  std::string out;
  if (result.signal != 0) out += "interrupted: what follows is the run so far\n";
  AppendCounts(out, result.total, options);
  AppendLatencies(out, result.total, options);
  for (size_t i = 0; i < result.stages.size() && options.report_stages; ++i) {
    Append(out, "stage %zu: ", i);
    AppendCounts(out, result.stages[i], options);
    AppendLatencies(out, result.stages[i], options);
  }
  for (size_t i = 0; i < result.tenants.size(); ++i) {
    Append(out, "tenant %.100s: ", options.tenants[i].name.c_str());
    AppendCounts(out, result.tenants[i], options);
    AppendLatencies(out, result.tenants[i], options);
  }
  AppendGenerator(out, options, result);
  return out;
}

}  // namespace llmd::bench
