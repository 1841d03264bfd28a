// One filter, scorer or picker built as the services build it, and run alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"
#include "llmd/sched/config_loader.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/picker.h"
#include "llmd/sched/plugin.h"
#include "llmd/sched/testing/request.h"
#include "llmd/status.h"

namespace llmd::sched::testing {

// A request parsed against a snapshot, with its facts in place: what a plugin is called with.
// Reusable: plugins may leave state in `request`.
struct Scene {
  RequestSpec spec;
  Snapshot snapshot;
  RequestContext request;
  std::vector<uint32_t> all;  // 0, 1, … of every endpoint
};

struct Picks {
  std::vector<uint32_t> picked;  // snapshot indexes, best first
  int tied = 0;
};

// The plugin and the graph it stands in. Thread-safe as far as the plugin is; scenes are not shared
// between threads.
class PluginUnderTest {
 public:
  // Builds `type` of `registry` (null = BuiltinPlugins()) with `parameters` in YAML or JSON
  // ("{best: a}"), the producers it reads from and nothing else but `beside`: entries as under
  // `plugins`, say of an extractor whose attributes it reads. INVALID_ARGUMENT as a configuration
  // would report it.
  static StatusOr<std::unique_ptr<PluginUnderTest>> Create(
      const PluginRegistry* registry, std::string_view type, std::string_view parameters = "{}",
      const std::vector<std::string>& beside = {});
  ~PluginUnderTest();

  Plugin& plugin() { return *plugin_; }
  FakeClock& clock() { return *clock_; }
  // "DataType/producer" of everything it or its producers read or make.
  std::vector<std::string> DataKeys() const;
  std::vector<std::string> Warnings() const;

  // INVALID_ARGUMENT when the body does not parse or a fact is given that nothing here reads.
  // `seed` starts the request's random numbers.
  StatusOr<std::unique_ptr<Scene>> Set(const FakeRequest& request,
                                       std::span<const EndpointState> endpoints,
                                       uint64_t seed = 1) const;

  // Raw scores, NaN = not scored, of `candidates` (snapshot indexes) or of every endpoint.
  // FAILED_PRECONDITION when it is no scorer; so for the other kinds.
  StatusOr<std::vector<double>> Score(Scene& scene,
                                      std::optional<std::span<const uint32_t>> candidates = {});
  // The candidates that stay.
  StatusOr<std::vector<uint32_t>> Keep(Scene& scene,
                                       std::optional<std::span<const uint32_t>> candidates = {});
  // `totals` by candidate.
  StatusOr<Picks> Pick(Scene& scene, std::span<const double> totals,
                       std::optional<std::span<const uint32_t>> candidates = {});

  // Set and Score in one, for one-line tests.
  StatusOr<std::vector<double>> ScoreOf(const FakeRequest& request,
                                        std::span<const EndpointState> endpoints);
  // Set and Keep in one; names of the endpoints that stay.
  StatusOr<std::vector<std::string>> KeptOf(const FakeRequest& request,
                                            std::span<const EndpointState> endpoints);

 private:
  PluginUnderTest();
  std::unique_ptr<FakeClock> clock_;
  std::shared_ptr<Graph> graph_;
  Plugin* plugin_ = nullptr;
};

}  // namespace llmd::sched::testing
