#include "llmd/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>

namespace llmd {
namespace {

using ::testing::HasSubstr;

// Printed by Python's prometheus_client for the same counters, gauge and histogram.
constexpr char kPythonPage[] = R"(# HELP app:latency_seconds Latency
# TYPE app:latency_seconds histogram
app:latency_seconds_bucket{le="0.005",model="m"} 1.0
app:latency_seconds_bucket{le="0.5",model="m"} 2.0
app:latency_seconds_bucket{le="1.0",model="m"} 3.0
app:latency_seconds_bucket{le="1e+06",model="m"} 4.0
app:latency_seconds_bucket{le="+Inf",model="m"} 5.0
app:latency_seconds_count{model="m"} 5.0
app:latency_seconds_sum{model="m"} 2.000003201e+06
# HELP app:latency_seconds_created Latency
# TYPE app:latency_seconds_created gauge
app:latency_seconds_created{model="m"} 1.7e+09
# HELP app:requests_total Requests "done"\nby \\ path
# TYPE app:requests_total counter
app:requests_total{code="200",path="/a\"b\\c\n"} 3.0
app:requests_total{code="500",path="/x"} 0.5
# HELP app:requests_created Requests "done"\nby \\ path
# TYPE app:requests_created gauge
app:requests_created{code="200",path="/a\"b\\c\n"} 1.7e+09
app:requests_created{code="500",path="/x"} 1.7e+09
# HELP app:running Running
# TYPE app:running gauge
app:running 1.234567e+06
)";

TEST(MetricsRegistry, PrintsThePageOfThePythonClientByteForByte) {
  const FakeClock clock(1'700'000'000'000'000'000);
  MetricsRegistry registry(clock);
  registry.ExposeCreated(true);
  constexpr char kHelp[] = "Requests \"done\"\nby \\ path";
  registry.AddCounter("app:requests_total", kHelp, {{"path", "/x"}, {"code", "500"}}).Add(0.5);
  registry.AddCounter("app:requests_total", kHelp, {{"path", "/a\"b\\c\n"}, {"code", "200"}})
      .Add(3);
  registry.AddGauge("app:running", "Running").Set(1234567);
  Histogram& latency = registry.AddHistogram("app:latency_seconds", "Latency",
                                             {0.005, 0.5, 1.0, 1e6}, {{"model", "m"}});
  for (const double v : {0.001, 0.5, 0.7, 2.0, 2e6}) latency.Observe(v);
  EXPECT_EQ(registry.Expose(), kPythonPage);
}

TEST(FormatMetricValue, PrintsAsThePythonClient) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const std::pair<double, const char*> cases[] = {
      {0.0, "0.0"},
      {-0.0, "-0.0"},
      {1.0, "1.0"},
      {0.1, "0.1"},
      {1e-05, "1e-05"},
      {0.0001, "0.0001"},
      {123456.0, "123456.0"},
      {999999.0, "999999.0"},
      {1e6, "1e+06"},
      {1234567.0, "1.234567e+06"},
      {1e7, "1e+07"},
      {123456789.125, "1.23456789125e+08"},
      {1e15, "1e+15"},
      {1234567890123456.0, "1.234567890123456e+15"},
      {1e16, "1e+16"},
      {1.5e16, "1.5e+16"},
      {1e100, "1e+100"},
      {-1e6, "-1000000.0"},
      {-1234567.5, "-1234567.5"},
      {kInf, "+Inf"},
      {-kInf, "-Inf"},
      {std::nan(""), "NaN"},
      {1.0 / 3, "0.3333333333333333"},
      {9007199254740992.0, "9.007199254740992e+15"},
      {5e-324, "5e-324"},
      {1.7976931348623157e+308, "1.7976931348623157e+308"},
      {1000000.5, "1.0000005e+06"}};
  for (const auto& [value, text] : cases) EXPECT_EQ(FormatMetricValue(value), text);
}

TEST(MetricsRegistry, GivesTheSameSeriesForTheSameLabelsInAnyOrder) {
  MetricsRegistry registry;
  Counter& a = registry.AddCounter("c_total", "h", {{"x", "1"}, {"y", "2"}});
  EXPECT_EQ(&a, &registry.AddCounter("c_total", "h", {{"y", "2"}, {"x", "1"}}));
  EXPECT_NE(&a, &registry.AddCounter("c_total", "h", {{"x", "1"}}));
}

TEST(MetricsRegistryDeathTest, RefusesOurOwnMistakes) {
  MetricsRegistry registry;
  registry.AddCounter("c_total", "h");
  registry.AddHistogram("h", "h", {1, 2});
  EXPECT_DEATH(registry.AddGauge("c_total", "h"), "check failed");
  EXPECT_DEATH(registry.AddHistogram("h", "h", {1, 3}), "check failed");
  EXPECT_DEATH(registry.AddHistogram("h2", "h", {2, 1}), "check failed");
  EXPECT_DEATH(registry.AddCounter("1bad", "h"), "check failed");
  EXPECT_DEATH(registry.AddCounter("ok", "h", {{"a-b", ""}}), "check failed");
}

TEST(MetricsRegistry, ShowsBytesThatAreNoUtf8AsTheReplacementCharacter) {
  MetricsRegistry registry;
  const std::string bad = "Jos\xE9 n\xC3( \xED\xA0\x80 \xC0\xAF \xF5 \xC3";
  const std::string fffd = "\xEF\xBF\xBD";
  const std::string good = "Jos" + fffd + " n" + fffd + "( " + fffd + fffd + fffd + " " + fffd +
                           fffd + " " + fffd + " " + fffd;
  registry.AddCounter("c_total", "help \xFF", {{"a", bad}}).Add();
  registry.AddHistogram("h", "", {1}, {{"a", bad}, {"z", bad}}).Observe(1);
  registry.AddGaugeCallback("g", "", {{"a", bad}}, [] { return 1.0; });
  const auto held = registry.AddGaugeCollector(
      "k", "",
      [&](const MetricsRegistry::GaugeEmit& emit) { emit({{"a", bad + "\n\"\xC3\xA9"}}, 2); });
  const std::string page = registry.Expose();
  EXPECT_THAT(page, HasSubstr("# HELP c_total help " + fffd + "\n"));
  EXPECT_THAT(page, HasSubstr("c_total{a=\"" + good + "\"} 1.0\n"));
  EXPECT_THAT(page, HasSubstr("h_bucket{a=\"" + good + "\",le=\"1.0\",z=\"" + good + "\"} 1.0\n"));
  EXPECT_THAT(page, HasSubstr("g{a=\"" + good + "\"} 1.0\n"));
  EXPECT_THAT(page, HasSubstr("k{a=\"" + good + "\\n\\\"\xC3\xA9\"} 2.0\n"));
}

TEST(MetricsRegistry, ReadsCallbacksAtExposition) {
  MetricsRegistry registry;
  double value = 1;
  registry.AddGaugeCallback("g", "help", {{"k", "v"}}, [&] { return value; });
  value = 2.5;
  EXPECT_EQ(registry.Expose(), "# HELP g help\n# TYPE g gauge\ng{k=\"v\"} 2.5\n");
  // A callback may use the registry: no lock is held.
  registry.AddGaugeCallback("g", "help", {{"k", "v"}},
                            [&] { return registry.AddGauge("other", "o").value() + 7; });
  EXPECT_NE(registry.Expose().find("g{k=\"v\"} 7.0\n"), std::string::npos);
}

TEST(MetricsRegistry, ExposesAliasesUnderBothNames) {
  MetricsRegistry registry;
  registry.AddAlias("new_name", "old_name");
  EXPECT_EQ(registry.Expose(), "");
  registry.AddGauge("new_name", "h").Set(4);
  EXPECT_EQ(registry.Expose(),
            "# HELP new_name h\n# TYPE new_name gauge\nnew_name 4.0\n"
            "# HELP old_name h\n# TYPE old_name gauge\nold_name 4.0\n");
}

TEST(MetricsRegistry, AliasesMayRenameALabelAndBeLeftOut) {
  MetricsRegistry registry;
  registry.AddAlias("depth", "old_depth", "endpoint", "pod");  // before the family
  registry.AddAlias("took", "old_took", "zone", "place");
  EXPECT_EQ(registry.Expose(), "");
  registry.AddGauge("depth", "h", {{"endpoint", "a"}, {"an_endpoint", "b"}}).Set(2);
  registry.AddHistogram("took", "h", {1}, {{"a", "1"}, {"zone", "z"}}).Observe(0.5);
  const std::string page = registry.Expose();
  EXPECT_NE(page.find("\ndepth{an_endpoint=\"b\",endpoint=\"a\"} 2.0\n"), std::string::npos);
  EXPECT_NE(page.find("old_depth{an_endpoint=\"b\",pod=\"a\"} 2.0\n"), std::string::npos);
  EXPECT_NE(page.find("old_took_bucket{a=\"1\",le=\"1.0\",place=\"z\"} 1.0\n"), std::string::npos);
  registry.ExposeAliases(false);
  EXPECT_EQ(registry.Expose().find("old_"), std::string::npos);
}

TEST(MetricsRegistry, CollectorsOfOneSeriesStandOnceOnThePage) {
  MetricsRegistry registry;
  const auto two = [](const MetricsRegistry::GaugeEmit& emit) { emit({{"e", "a"}}, 2); };
  const auto three = [](const MetricsRegistry::GaugeEmit& emit) { emit({{"e", "a"}}, 3); };
  const auto c1 = registry.AddCounterCollector("c_total", "h", two);
  const auto c2 = registry.AddCounterCollector("c_total", "h", three);
  const auto g1 = registry.AddGaugeCollector("g", "h", two);
  const auto g2 = registry.AddGaugeCollector("g", "h", three);
  EXPECT_EQ(registry.Expose(),
            "# HELP c_total h\n# TYPE c_total counter\nc_total{e=\"a\"} 5.0\n"
            "# HELP g h\n# TYPE g gauge\ng{e=\"a\"} 3.0\n");
}

TEST(MetricsRegistry, SeriesOfACollectorStandInOrderHoweverTheyCome) {
  MetricsRegistry registry;
  const auto held =
      registry.AddGaugeCollector("g", "h", [](const MetricsRegistry::GaugeEmit& emit) {
        for (const char* of : {"c", "a", "b"}) emit({{"of", of}}, 1);
      });
  EXPECT_NE(registry.Expose().find("g{of=\"a\"} 1.0\ng{of=\"b\"} 1.0\ng{of=\"c\"} 1.0\n"),
            std::string::npos)
      << registry.Expose();
}

TEST(MetricsRegistry, CollectorsGiveSeriesThatComeAndGo) {
  MetricsRegistry registry(SystemClock(), {{"pool", "p"}});
  std::vector<std::string> pods = {"a", "b"};
  auto handle =
      registry.AddGaugeCollector("depth", "h", [&](const MetricsRegistry::GaugeEmit& emit) {
        for (const std::string& pod : pods) emit({{"pod", pod}}, 1);
      });
  EXPECT_NE(registry.Expose().find("depth{pod=\"b\",pool=\"p\"} 1.0"), std::string::npos);
  pods = {"c"};
  EXPECT_EQ(registry.Expose(),
            "# HELP depth h\n# TYPE depth gauge\ndepth{pod=\"c\",pool=\"p\"} 1.0\n");
  handle.reset();
  EXPECT_EQ(registry.Expose().find("pod="), std::string::npos);
}

TEST(MetricsRegistry, SeveralGiveOnePage) {
  MetricsRegistry one(SystemClock(), {{"pool", "x"}}), two(SystemClock(), {{"pool", "y"}}), own;
  one.AddCounter("a_total", "h").Add(1);
  two.AddCounter("a_total", "h").Add(2);
  two.AddHistogram("h", "h", {1}).Observe(3);
  own.AddGauge("b", "h");
  EXPECT_EQ(
      MetricsRegistry::ExposeTogether({&one, &two, &own}),
      "# HELP a_total h\n# TYPE a_total counter\na_total{pool=\"x\"} 1.0\na_total{pool=\"y\"} "
      "2.0\n# HELP b h\n# TYPE b gauge\nb 0.0\n# HELP h h\n# TYPE h histogram\n"
      "h_bucket{le=\"1.0\",pool=\"y\"} 0.0\nh_bucket{le=\"+Inf\",pool=\"y\"} 1.0\n"
      "h_count{pool=\"y\"} 1.0\nh_sum{pool=\"y\"} 3.0\n");
}

TEST(Histogram, PutsBoundsIntoTheirOwnBucket) {
  Histogram h({1, 2});
  h.Observe(1);
  h.Observe(1.5, 3);
  h.Observe(2.5);
  h.Observe(std::nan(""));
  EXPECT_EQ(h.Counts(), (std::vector<uint64_t>{1, 3, 2}));
  EXPECT_EQ(h.count(), 6u);
  EXPECT_TRUE(std::isnan(h.sum()));
}

TEST(MetricsRegistry, CountsExactlyFromManyThreads) {
  MetricsRegistry registry;
  constexpr int kThreads = 4, kRounds = 2000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&registry, t] {
      for (int i = 0; i < kRounds; ++i) {
        registry.AddCounter("c_total", "h").Add();
        registry.AddGauge("g", "h", {{"t", std::to_string(t)}}).Add(1);
        registry.AddHistogram("h", "h", {0.5}).Observe(i % 2);
        if (i % 500 == 0) EXPECT_FALSE(registry.Expose().empty());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(registry.AddCounter("c_total", "h").value(), kThreads * kRounds);
  EXPECT_EQ(registry.AddGauge("g", "h", {{"t", "3"}}).value(), kRounds);
  EXPECT_EQ(registry.AddHistogram("h", "h", {0.5}).count(), uint64_t{kThreads} * kRounds);
  EXPECT_EQ(registry.AddHistogram("h", "h", {0.5}).sum(), kThreads * kRounds / 2.0);
}

}  // namespace
}  // namespace llmd
