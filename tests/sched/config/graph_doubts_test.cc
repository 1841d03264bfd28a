#include "config/graph_doubts.h"

#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> Doubts(const std::string& yaml, LoadOptions options = {}) {
  const auto graph = LoadGraph(yaml, options);
  EXPECT_TRUE(graph.ok()) << graph.status().ToString();
  return graph.ok() ? DoubtsOf(**graph, options) : std::vector<std::string>();
}

const std::string kMetrics = "{type: metrics-data-source, parameters: {interval: 3s}}";

TEST(GraphDoubts, TheDefaultHasNone) {
  EXPECT_THAT(Doubts(""), IsEmpty());
}

TEST(GraphDoubts, ReadingSlowerThanMetricsCount) {
  LoadOptions slow;
  slow.refresh_interval = std::chrono::seconds(2);
  EXPECT_THAT(Doubts("", slow), Contains(HasSubstr("reads every 2000ms, but metrics count for "
                                                   "2000ms only")));
  EXPECT_THAT(Doubts(Config({kMetrics, "{type: queue-scorer}"})),
              Contains(HasSubstr("'metrics-data-source' reads every 3000ms")));
  LoadOptions patient;
  patient.metrics_staleness = std::chrono::seconds(10);
  EXPECT_THAT(Doubts(Config({kMetrics, "{type: queue-scorer}"}), patient), IsEmpty());
}

TEST(GraphDoubts, SourcesAndExtractorsThatHangInTheAir) {
  const std::string loose =
      Config({"{type: queue-scorer}", "{type: dcgm-data-source}", "{type: dcgm-extractor}"});
  EXPECT_THAT(Doubts(loose), Contains(HasSubstr("'dcgm-data-source' is not in dataLayer.sources")));
  EXPECT_THAT(Doubts(loose), Contains(HasSubstr("'dcgm-extractor' hangs on no source")));
  const std::string only = loose +
                           "dataLayer: {sources: [{pluginRef: dcgm-data-source, extractors: "
                           "[{pluginRef: dcgm-extractor}]}]}\n";
  EXPECT_THAT(Doubts(only), ::testing::ElementsAre(HasSubstr("no source of dataLayer.sources feeds "
                                                             "the queue")));
}

TEST(GraphDoubts, ScorersThatDecideNothing) {
  const std::string yaml =
      Config({"{type: queue-scorer}", "{type: load-aware-scorer}", "{type: decode-filter}",
              "{type: random-picker}", "{type: max-score-picker}",
              "{type: utilization-detector}"}) +
      "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer, weight: 0}, {pluginRef: "
      "max-score-picker}]}]\n";
  EXPECT_THAT(
      Doubts(yaml),
      ::testing::UnorderedElementsAre(
          "scorer 'load-aware-scorer' is in no profile", "filter 'decode-filter' is in no profile",
          "picker 'random-picker' is in no profile",
          "profile 'p': the scorer 'queue-scorer' has weight 0 and decides nothing"));
}

TEST(GraphDoubts, ProfilesThatAreNeverRun) {
  EXPECT_THAT(Doubts(Config({"{type: queue-scorer}", "{type: disagg-profile-handler}"}) +
                     "schedulingProfiles: [{name: decode, plugins: [{pluginRef: queue-scorer}]}, "
                     "{name: prefill, plugins: [{pluginRef: queue-scorer}]}]\n"),
              ::testing::ElementsAre("profile 'prefill' is never run by 'disagg-profile-handler'"));
}

}  // namespace
}  // namespace llmd::sched
