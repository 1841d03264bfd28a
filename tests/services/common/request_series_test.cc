// Counts of loops, and the bound on their labels.
#include "common/request_series.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/refusal_reason.h"

namespace llmd::services {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

size_t CountOf(const std::string& page, std::string_view text) {
  size_t n = 0;
  for (size_t at = page.find(text); at != std::string::npos; at = page.find(text, at + 1)) ++n;
  return n;
}

TEST(NameCap, KeepsTheFirstAndSumsUpTheRest) {
  NameCap cap(2);
  NameCap::Reader one(cap), two(cap);
  EXPECT_EQ(one.Of("a", true), "a");
  EXPECT_EQ(two.Of("b", false), "other") << "a name that is not admitted takes no place";
  EXPECT_EQ(two.Of("c", true), "c");
  EXPECT_EQ(one.Of("d", true), "other");
  EXPECT_EQ(one.Of("c", false), "c") << "all loops have the same names";
  EXPECT_EQ(one.Of("", true), "");
}

TEST(NameCap, CutsLongNamesBetweenCharacters) {
  NameCap cap(10);
  NameCap::Reader reader(cap);
  const std::string whole(NameCap::kMaxBytes - 1, 'x');
  EXPECT_EQ(reader.Of(whole + "\xC3\xA4", true), whole);
  EXPECT_EQ(reader.Of(std::string(100'000, 'y'), true).size(), NameCap::kMaxBytes);
}

TEST(RequestSeries, ShowsHistogramsFromTheStart) {
  MetricsRegistry metrics;
  const RequestSeries all(metrics, "p_", "requests_total", {"route", "model", "endpoint"});
  EXPECT_THAT(metrics.Expose(),
              HasSubstr("p_ttft_seconds_count{endpoint=\"\",model=\"\",route=\"\"} 0.0"));
}

TEST(RequestSeries, HandsOverWhatALoopHasCounted) {
  MetricsRegistry metrics;
  RequestSeries all(metrics, "p_", "requests_total", {"route", "model", "endpoint"});
  RequestShard a(all), b(all);
  for (RequestShard* shard : {&a, &b}) {
    RequestShard::Series& series = shard->Of({"/r", "m", "e"});
    shard->Touch(series);
    series.Request(200);
    series.ttft.Observe(0.001);  // a bound belongs to its bucket
    series.ttft.Observe(0.3);
    series.ttft.Observe(1e9);
    series.completion_tokens.Add(5);
  }
  a.HandOver();
  a.HandOver();
  b.HandOver();
  const std::string page = metrics.Expose();
  EXPECT_THAT(page,
              HasSubstr(R"(p_requests_total{endpoint="e",model="m",route="/r",status="200"} 2.0)"));
  EXPECT_THAT(
      page,
      HasSubstr(R"(p_ttft_seconds_bucket{endpoint="e",le="0.001",model="m",route="/r"} 2.0)"));
  EXPECT_THAT(
      page, HasSubstr(R"(p_ttft_seconds_bucket{endpoint="e",le="0.25",model="m",route="/r"} 2.0)"));
  EXPECT_THAT(
      page, HasSubstr(R"(p_ttft_seconds_bucket{endpoint="e",le="0.5",model="m",route="/r"} 4.0)"));
  EXPECT_THAT(page, HasSubstr(R"(p_ttft_seconds_count{endpoint="e",model="m",route="/r"} 6.0)"));
  EXPECT_THAT(page, HasSubstr(R"(type="completion"} 10.0)"));
  Histogram& sum = metrics.AddHistogram(
      "p_ttft_seconds", "", {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                             1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560},
      {{"route", "/r"}, {"model", "m"}, {"endpoint", "e"}});
  EXPECT_DOUBLE_EQ(sum.sum(), 2 * (0.001 + 0.3 + 1e9));
}

TEST(RequestSeries, AHandleKeepsCountingAfterItWasHandedOver) {
  MetricsRegistry metrics;
  RequestSeries all(metrics, "p_", "requests_total", {"route", "model", "endpoint"});
  {
    RequestShard shard(all);
    RequestShard::Series& series = shard.Of({"/r", "m", "e"});
    shard.HandOver();
    shard.Touch(series);
    series.Request(0);
  }
  EXPECT_THAT(metrics.Expose(), HasSubstr("status=\"0\"} 1.0"));
}

TEST(RequestSeries, CombinationsAboveTheBoundShareOne) {
  MetricsRegistry metrics;
  RequestSeries all(metrics, "p_", "requests_total", {"route", "model", "endpoint"});
  RequestShard a(all), b(all);
  for (size_t i = 0; i < RequestSeries::kMaxSeries + 50; ++i) {
    const std::string model = "m" + std::to_string(i);
    RequestShard::Series& series = a.Of({"/r", model, "e"});
    a.Touch(series);
    series.Request(200);
  }
  RequestShard::Series& known = b.Of({"/r", "m0", "e"});
  EXPECT_EQ(&known, &b.Of({"/r", "m0", "e"}));
  b.Touch(known);
  known.Request(200);
  a.HandOver();
  b.HandOver();
  const std::string page = metrics.Expose();
  EXPECT_THAT(
      page, HasSubstr(R"(p_requests_total{endpoint="e",model="m0",route="/r",status="200"} 2.0)"));
  EXPECT_THAT(
      page,
      HasSubstr(
          R"(p_requests_total{endpoint="other",model="other",route="other",status="200"} 50.0)"));
  EXPECT_EQ(CountOf(page, "p_requests_total{"), RequestSeries::kMaxSeries + 1);
}

TEST(RequestSeries, StatusesOfOneSeriesAreBounded) {
  MetricsRegistry metrics;
  RequestSeries all(metrics, "p_", "requests_total", {"route", "model", "endpoint"});
  RequestShard shard(all);
  RequestShard::Series& series = shard.Of({"/r", "m", "e"});
  shard.Touch(series);
  for (int status = 200; status < 300; ++status) series.Request(status);
  shard.HandOver();
  const std::string page = metrics.Expose();
  EXPECT_THAT(page, HasSubstr("status=\"other\"} 68.0"));
  EXPECT_EQ(CountOf(page, "p_requests_total{"), 33U);
}

TEST(RefusalReason, NamesEveryTextAndFallsBackOnTheStatus) {
  const auto of = [](int status, std::string_view text) {
    return kRefusalReasons[RefusalReason(status, text)];
  };
  EXPECT_EQ(of(400, "malformed request line"), "request_line");
  EXPECT_EQ(of(400, "folded header line"), "header");
  EXPECT_EQ(of(400, "missing Host"), "host");
  EXPECT_EQ(of(400, "both Content-Length and Transfer-Encoding"), "framing");
  EXPECT_EQ(of(431, "too many header lines"), "head_size");
  EXPECT_EQ(of(408, "the request head did not arrive in time"), "head_slow");
  EXPECT_EQ(of(503, "too many connections"), "connections");
  EXPECT_EQ(of(413, "a new text"), "body_size");
  EXPECT_EQ(of(599, "a new text"), "other");
}

}  // namespace
}  // namespace llmd::services
