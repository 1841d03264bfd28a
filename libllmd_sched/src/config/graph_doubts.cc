#include "config/graph_doubts.h"

#include <algorithm>

namespace llmd::sched {
namespace {

using Lines = std::vector<std::string>;

std::string Millis(Duration d) {
  return std::to_string(d.count() / 1'000'000) + "ms";
}

// Between two reads that far apart every endpoint counts as stale.
void Freshness(const Graph& graph, const LoadOptions& options, Lines& out) {
  for (const SourceBinding& binding : graph.sources) {
    if (!binding.gauges) continue;
    const Duration own = binding.source->page().interval;
    const Duration interval = own > Duration::zero() ? own : options.refresh_interval;
    if (interval < options.metrics_staleness) continue;
    out.push_back("'" + binding.source->name() + "' reads every " + Millis(interval) +
                  ", but metrics count for " + Millis(options.metrics_staleness) +
                  " only (--metrics-staleness-threshold): endpoints will be stale in between");
  }
}

void Sources(const Graph& graph, Lines& out) {
  const auto bound = [&](auto matches) {
    return std::any_of(graph.sources.begin(), graph.sources.end(), matches);
  };
  for (const auto& plugin : graph.plugins) {
    if (auto* source = dynamic_cast<Source*>(plugin.get())) {
      if (!bound([&](const SourceBinding& b) { return b.source == source; }))
        out.push_back("data source '" + plugin->name() +
                      "' is not in dataLayer.sources and is never read");
    }
    if (auto* extractor = dynamic_cast<Extractor*>(plugin.get())) {
      const auto has = [&](const SourceBinding& b) {
        return std::find(b.extractors.begin(), b.extractors.end(), extractor) != b.extractors.end();
      };
      if (!bound(has))
        out.push_back("extractor '" + plugin->name() +
                      "' hangs on no source of dataLayer.sources: what it fills stays missing");
    }
  }
  if (!graph.sources.empty() && !graph.ReadsGauges())
    out.push_back(
        "no source of dataLayer.sources feeds the queue, running and KV gauges: they "
        "stay 0");
}

bool InSomeProfile(const Graph& graph, const Plugin* plugin) {
  const auto is = [&](const auto& timed) {
    return dynamic_cast<const Plugin*>(timed.plugin) == plugin;
  };
  return std::any_of(graph.profiles.begin(), graph.profiles.end(), [&](const Profile& p) {
    return std::any_of(p.filters.begin(), p.filters.end(), is) ||
           std::any_of(p.scorers.begin(), p.scorers.end(), is) || is(p.picker);
  });
}

void Profiles(const Graph& graph, Lines& out) {
  for (const auto& plugin : graph.plugins) {
    const char* kind = dynamic_cast<Scorer*>(plugin.get())   ? "scorer"
                       : dynamic_cast<Filter*>(plugin.get()) ? "filter"
                       : dynamic_cast<Picker*>(plugin.get()) ? "picker"
                                                             : nullptr;
    if (kind == nullptr || dynamic_cast<SaturationDetector*>(plugin.get())) continue;
    if (!InSomeProfile(graph, plugin.get()))
      out.push_back(std::string(kind) + " '" + plugin->name() + "' is in no profile");
  }
  for (const Profile& p : graph.profiles) {
    for (const WeightedScorer& s : p.scorers) {
      if (s.weight == 0)
        out.push_back("profile '" + p.name + "': the scorer '" + s.plugin->name() +
                      "' has weight 0 and decides nothing");
    }
  }
  const std::vector<std::string> run = graph.handler->Profiles();
  for (const Profile& p : graph.profiles) {
    if (!run.empty() && std::find(run.begin(), run.end(), p.name) == run.end())
      out.push_back("profile '" + p.name + "' is never run by '" + graph.handler->name() + "'");
  }
}

}  // namespace

std::vector<std::string> DoubtsOf(const Graph& graph, const LoadOptions& options) {
  Lines out;
  Freshness(graph, options, out);
  Sources(graph, out);
  Profiles(graph, out);
  return out;
}

}  // namespace llmd::sched
