// What the property checks share: building the plugin, setting scenes, collecting violations.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "llmd/sched/testing/plugin_under_test.h"
#include "llmd/sched/testing/properties.h"

namespace llmd::sched::testing {

// One plugin type under examination. Owned by one check; Fail may come from several threads.
class Subject {
 public:
  Subject(const PluginRegistry* registry, std::string_view type, const PropertyOptions& options);

  // False, with the violation "builds", when the plugin or a scene cannot be made: then nothing
  // else is checked.
  template <typename Kind>
  bool Builds(const char* kind) {
    return TryBuild([](Plugin& plugin) { return dynamic_cast<Kind*>(&plugin) != nullptr; }, kind);
  }
  // Runs `check` under that name, unless it is excepted. An exception is a violation.
  void Check(const char* property, const std::function<void()>& check);
  // Check("threads", check), with a note on what only ThreadSanitizer sees.
  void CheckThreads(const std::function<void()>& check);
  // Fails unless `reads`, of the machine's clock in one call, are none.
  void ExpectNoClockReads(uint64_t reads);
  // Notes a violation of the property being checked; the first one counts.
  void Fail(const std::string& detail);

  std::unique_ptr<PluginUnderTest> Make() const;
  // The options' request on these endpoints, with made-up facts where it has none.
  std::unique_ptr<Scene> Stage(const PluginUnderTest& plugin,
                               std::span<const EndpointState> endpoints, uint64_t seed = 1) const;
  std::unique_ptr<Scene> StageWithoutFacts(const PluginUnderTest& plugin,
                                           std::span<const EndpointState> endpoints) const;
  // Runs `call(thread's own pool, call number)` on all threads at once.
  void OnThreads(const std::function<void(const std::vector<EndpointState>&, int)>& calls);
  // Fails when `call` allocates after three runs.
  void WithoutAllocations(const std::function<void()>& call);

  const PropertyOptions& options() const { return options_; }
  std::vector<EndpointState> Pool(size_t count) const { return options_.pool(count, 7); }
  Report Take() { return std::move(report_); }

 private:
  bool TryBuild(const std::function<bool(Plugin&)>& is_kind, const char* kind);
  FakeRequest WithFacts(const PluginUnderTest& plugin,
                        std::span<const EndpointState> endpoints) const;

  const PluginRegistry* const registry_;
  const std::string type_;
  const PropertyOptions& options_;
  Report report_;
  std::string property_;
  std::mutex mutex_;
  bool failed_ = false;  // guarded by mutex_
};

// The even endpoints of `pool` as they are, the odd ones replaced by others.
std::vector<EndpointState> WithOtherOddOnes(const std::vector<EndpointState>& pool);
// 0, 1, ... below `count`.
std::vector<uint32_t> Indexes(size_t count);
std::vector<uint32_t> EvenIndexes(size_t count);

template <typename T>
std::vector<T> Shuffled(std::vector<T> values) {
  std::mt19937_64 random(3);
  std::shuffle(values.begin(), values.end(), random);
  return values;
}

// Names of these endpoints, in alphabetical order.
std::vector<std::string> NamesOf(const Scene& scene, const std::vector<uint32_t>& indexes);
std::string Joined(const std::vector<std::string>& names);
// What is wrong with a result that must be a subset of `candidates` without repetition, or "".
std::string WrongSubset(const Scene& scene, std::span<const uint32_t> candidates,
                        const std::vector<uint32_t>& result);

}  // namespace llmd::sched::testing
