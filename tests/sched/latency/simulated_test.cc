// The producer and its consumers on simulated engines: how well it predicts, and what that is
// worth. Loads are requests per second on four engines that hold about 34 together.
#include "sched/support.h"
#include "support/cluster_sim.h"

namespace llmd::sched {
namespace {

const std::string kProducer =
    "{type: predicted-latency-producer, parameters: {streamingMode: true}}";
const std::string kSpreading =
    "{type: latency-scorer, parameters: {headroomSelectionStrategy: most}}";
constexpr size_t kLearning = 1000;  // requests

std::vector<SimOutcome> Simulate(const std::vector<std::string>& plugins,
                                 const SimWorkload& workload) {
  return SimCluster(Config(plugins), std::vector<SimEngineCosts>(4)).Run(workload);
}

// Mean |predicted − measured| / measured, in percent.
double Error(const std::vector<SimOutcome>& outcomes, double LatencyPrediction::* predicted,
             double SimOutcome::* measured) {
  double sum = 0;
  for (size_t i = kLearning; i < outcomes.size(); ++i) {
    const double p = outcomes[i].predicted.*predicted, m = outcomes[i].*measured;
    EXPECT_TRUE(p >= 0) << i << ": " << p;
    sum += std::abs(p - m) / m;
  }
  return 100 * sum / static_cast<double>(outcomes.size() - kLearning);
}

double Met(const std::vector<SimOutcome>& outcomes) {
  return static_cast<double>(std::count_if(outcomes.begin() + kLearning, outcomes.end(),
                                           [](const SimOutcome& o) { return o.met; }));
}

double MeanTtft(const std::vector<SimOutcome>& outcomes) {
  double sum = 0;
  for (size_t i = kLearning; i < outcomes.size(); ++i) sum += outcomes[i].ttft_ms;
  return sum / static_cast<double>(outcomes.size() - kLearning);
}

TEST(SimulatedLatency, TtftIsPredictedWithinAQuarterAfterAThousandRequests) {
  for (const auto& [rate, ttft_bound, tpot_bound] :
       {std::tuple{12.0, 15.0, 25.0}, {24.0, 25.0, 45.0}, {32.0, 25.0, 60.0}}) {
    const auto outcomes = Simulate(
        {kProducer, "{type: queue-scorer}", "{type: prefix-cache-scorer}"}, {.per_second = rate});
    EXPECT_LT(Error(outcomes, &LatencyPrediction::ttft_ms, &SimOutcome::ttft_ms), ttft_bound)
        << rate;
    // What arrives after a request decides most of its TPOT under load.
    EXPECT_LT(Error(outcomes, &LatencyPrediction::tpot_ms, &SimOutcome::tpot_ms), tpot_bound)
        << rate;
  }
}

TEST(SimulatedLatency, NothingIsPredictedAtFirst) {
  const auto outcomes = Simulate({kProducer, kSpreading}, {.requests = 200});
  EXPECT_FALSE(outcomes[0].predicted.valid);
  EXPECT_FALSE(outcomes[30].predicted.valid);
  EXPECT_TRUE(outcomes[199].predicted.valid);
}

TEST(SimulatedLatency, MoreSlosAreMetThanByQueuesAlone) {
  for (double rate : {24.0, 28.0, 32.0}) {
    double by_queue = 0, by_latency = 0;
    for (uint64_t seed : {1, 2, 3}) {
      const SimWorkload load{.per_second = rate, .seed = seed};
      by_queue += Met(Simulate({"{type: queue-scorer}"}, load));
      by_latency += Met(Simulate({kProducer, kSpreading}, load));
    }
    EXPECT_GT(by_latency, by_queue) << rate;
  }
}

TEST(SimulatedLatency, WithoutSlosTheMeanTtftFallsByAQuarter) {
  const SimWorkload load{.per_second = 28, .slo_ttft_ms = -1, .slo_tpot_ms = -1};
  EXPECT_LT(MeanTtft(Simulate({kProducer, "{type: latency-scorer}"}, load)),
            0.75 * MeanTtft(Simulate({"{type: queue-scorer}"}, load)));
}

TEST(SimulatedLatency, TheSameSeedGivesTheSameRun) {
  const SimWorkload load{.requests = 500};
  const auto a = Simulate({kProducer, kSpreading}, load),
             b = Simulate({kProducer, kSpreading}, load);
  for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i].ttft_ms, b[i].ttft_ms) << i;
}

}  // namespace
}  // namespace llmd::sched
