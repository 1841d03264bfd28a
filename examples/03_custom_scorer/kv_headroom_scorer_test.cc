// The scorer's test with llmd's kit, without a test framework (llmd/sched/testing/gtest.h has the
// words for GoogleTest). usage: kv_headroom_scorer_test DIRECTORY_OF_THIS_EXAMPLE
#include "kv_headroom_scorer.h"

#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "llmd/sched/testing/allocation_counter.h"
#include "llmd/sched/testing/golden.h"
#include "llmd/sched/testing/plugin_under_test.h"
#include "llmd/sched/testing/pool.h"
#include "llmd/sched/testing/properties.h"

namespace {

using namespace llmd::sched;
using namespace llmd::sched::testing;

// A prompt of 62 bytes is 64 with its quotes: 16 tokens; with max_tokens 16 two blocks of 16.
llmd::Status FollowsTheFormula(const PluginRegistry& registry) {
  LLMD_ASSIGN_OR_RETURN(auto scorer, PluginUnderTest::Create(&registry, "kv-headroom-scorer"));
  const std::vector<EndpointState> pool{FakeEndpoint("half").KvUsage(0.5).Cache(16, 100),
                                        FakeEndpoint("full").KvUsage(1).Cache(16, 100),
                                        FakeEndpoint("silent").NeverScraped()};
  LLMD_ASSIGN_OR_RETURN(
      const std::vector<double> scores,
      scorer->ScoreOf(FakeRequest::Completions(std::string(62, 'x')).MaxTokens(16), pool));
  if (std::abs(scores[0] - 0.48) > 1e-12 || scores[1] != 0 || !std::isnan(scores[2])) {
    return llmd::FailedPrecondition("expected 0.48, 0 and NaN, got " + std::to_string(scores[0]) +
                                    ", " + std::to_string(scores[1]) + " and " +
                                    std::to_string(scores[2]));
  }
  return llmd::OkStatus();
}

llmd::Status HoldsWhatEveryScorerMust(const PluginRegistry& registry) {
  PropertyOptions options;
  options.allocations = AllocationsSoFar;
  return CheckScorer(&registry, "kv-headroom-scorer", options).ToStatus();
}

// LLMD_UPDATE_GOLDEN=1 rewrites the decisions in the file.
llmd::Status DecidesAsRecorded(const PluginRegistry& registry, const std::string& directory) {
  std::stringstream yaml;
  yaml << std::ifstream(directory + "/scheduler.yaml").rdbuf();
  GoldenOptions options;
  options.path = directory + "/golden.json";
  options.config_yaml = yaml.str();
  options.registry = &registry;
  return CheckGolden(options);
}

}  // namespace

int main(int argc, char** argv) {
  PluginRegistry registry = BuiltinPlugins();
  int failed = 0;
  for (const llmd::Status& status :
       {RegisterKvHeadroomScorer(registry), FollowsTheFormula(registry),
        HoldsWhatEveryScorerMust(registry),
        DecidesAsRecorded(registry, argc > 1 ? argv[1] : ".")}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    ++failed;
  }
  std::printf("%s\n", failed ? "failed" : "ok");
  return failed ? 1 : 0;
}
