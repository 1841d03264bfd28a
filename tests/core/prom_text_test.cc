#include "llmd/prom_text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "llmd/metrics.h"
#include "support/prom_page.h"

namespace llmd {
namespace {

struct Seen {
  size_t name;
  std::string labels;
  double value;
  friend bool operator==(const Seen&, const Seen&) = default;
};

std::vector<Seen> ScanAll(const PromScanner& scanner, std::string_view page,
                          PromScanResult* result = nullptr) {
  std::vector<Seen> seen;
  const auto r = scanner.Scan(
      page, [&](const PromSample& s) { seen.push_back({s.name, std::string(s.labels), s.value}); });
  if (result) *result = r;
  return seen;
}

TEST(PromScanner, GivesChosenSeriesOnly) {
  const PromScanner scanner({"vllm:num_requests_running", "vllm:kv_cache_usage_perc"});
  const std::string page =
      "# HELP vllm:num_requests_running x\n# TYPE vllm:num_requests_running gauge\n"
      "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3.0\n"
      "vllm:num_requests_running_total{engine=\"0\"} 9.0\n"
      "vllm:num_requests_runnin{engine=\"0\"} 9.0\n"
      "vllm:kv_cache_usage_perc 2.5e-01\n"
      "other 1\n";
  const std::vector<Seen> expected = {{0, "engine=\"0\",model_name=\"m\"", 3.0}, {1, "", 0.25}};
  EXPECT_EQ(ScanAll(scanner, page), expected);
}

TEST(PromScanner, ReadsEveryShapeOfALine) {
  const PromScanner scanner({"a"});
  const std::pair<const char*, double> cases[] = {{"a 1", 1},
                                                  {"a\t 1", 1},
                                                  {"a{} 2", 2},
                                                  {"a {x=\"y\"} 3", 3},
                                                  {"a 4 1700000000000", 4},
                                                  {"a 5\r\n", 5},
                                                  {"a{l=\"}\"} 6", 6},
                                                  {"a{l=\"\\\"}\"}7", 7},
                                                  {"a +8", 8},
                                                  {"a -9e2", -900},
                                                  {"a{l=\"{#\"} 1\n", 1}};
  for (const auto& [line, value] : cases) {
    const auto seen = ScanAll(scanner, line);
    ASSERT_EQ(seen.size(), 1u) << line;
    EXPECT_EQ(seen[0].value, value) << line;
  }
  EXPECT_TRUE(std::isnan(ScanAll(scanner, "a NaN")[0].value));
  EXPECT_EQ(ScanAll(scanner, "a +Inf")[0].value, INFINITY);
  EXPECT_EQ(ScanAll(scanner, "a{x=\"1\"} -Inf")[0].value, -INFINITY);
}

TEST(PromScanner, CountsMalformedLinesAndGoesOn) {
  const PromScanner scanner({"a"});
  PromScanResult result;
  const auto seen = ScanAll(scanner, "a\na \na x\na{ 1\na{l=\"} 1\na 1x\na 2\n\n\n", &result);
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].value, 2);
  EXPECT_EQ(result.samples, 1u);
  EXPECT_EQ(result.malformed, 5u);
  EXPECT_TRUE(ScanAll(scanner, "").empty());
  EXPECT_TRUE(ScanAll(PromScanner({}), "a 1\n").empty());
}

TEST(PromScanner, ReadsBackWhatTheRegistryWrites) {
  MetricsRegistry registry;
  const std::string nasty = "q\"b\\n}\n,=";
  registry.AddGauge("g", "h", {{"a", nasty}, {"b", "2"}}).Set(1234567.5);
  registry.AddHistogram("h", "h", {1}).Observe(3);
  const PromScanner scanner({"h_sum", "g"});
  std::vector<Seen> seen = ScanAll(scanner, registry.Expose());
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].value, 1234567.5);
  EXPECT_EQ(UnescapeLabel(*FindLabel(seen[0].labels, "a")), nasty);
  EXPECT_EQ(*FindLabel(seen[0].labels, "b"), "2");
  EXPECT_EQ(seen[1], (Seen{0, "", 3.0}));
}

TEST(PromScanner, FindsAllOnAPageOfAnEngine) {
  const std::string page = test::EnginePage(57'000);
  EXPECT_GT(page.size(), 55'000u);
  const PromScanner scanner(test::ScrapedNames());
  PromScanResult result;
  const auto seen = ScanAll(scanner, page, &result);
  EXPECT_EQ(result.malformed, 0u);
  ASSERT_EQ(seen.size(), test::ScrapedNames().size());
  for (size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].value, test::ScrapedValue(seen[i].name));
    EXPECT_EQ(*FindLabel(seen[i].labels, "model_name"), "meta-llama/Llama-3.1-8B-Instruct");
  }
}

TEST(FindLabel, FindsWholeNamesAndRefusesBrokenLabels) {
  constexpr char kLabels[] = R"(engine="0", model_name = "a\"b,engine=\"7\"",x="",)";
  EXPECT_EQ(*FindLabel(kLabels, "engine"), "0");
  EXPECT_EQ(*FindLabel(kLabels, "model_name"), R"(a\"b,engine=\"7\")");
  EXPECT_EQ(*FindLabel(kLabels, "x"), "");
  EXPECT_FALSE(FindLabel(kLabels, "name").has_value());
  EXPECT_FALSE(FindLabel(kLabels, "eng").has_value());
  for (const char* broken : {"", "engine", "engine=", "engine=0", "engine=\"0", "engine=\"\\"}) {
    EXPECT_FALSE(FindLabel(broken, "engine").has_value()) << broken;
  }
}

TEST(PromScanner, SurvivesMangledPages) {
  std::mt19937 random(5);
  const PromScanner scanner({"a", "ab"});
  for (int i = 0; i < 5000; ++i) {
    std::string page;
    for (size_t n = random() % 60; n > 0; --n) page += "ab{}\"\\=, \n1e+.#"[random() % 16];
    scanner.Scan(page, [&](const PromSample& s) {
      ASSERT_LE(s.labels.size(), page.size());
      FindLabel(s.labels, "a");
    });
  }
}

}  // namespace
}  // namespace llmd
