#include "plugins/data/metric_spec.h"

#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(MetricSpec, ReadsNamesAndLabels) {
  EXPECT_EQ(ParseMetricSpec("vllm:x_total")->name, "vllm:x_total");
  EXPECT_THAT(ParseMetricSpec("x")->labels, IsEmpty());
  EXPECT_THAT(ParseMetricSpec("x{}")->labels, IsEmpty());
  EXPECT_THAT(ParseMetricSpec(" q { tier = gold , kind=\"a,b\" } ")->labels,
              ::testing::ElementsAre(Pair("tier", "gold"), Pair("kind", "a,b")));
}

TEST(MetricSpec, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> kBad[] = {
      {"", "no metric name"},      {"9x", "no metric name"},      {"x y", "no metric name"},
      {"x{a=b", "not closed"},     {"x{a}", "has no value"},      {"x{a=\"b}", "not closed"},
      {"x{9=b}", "no label name"}, {"x{a:b=c}", "no label name"}, {"x{a=\"b\"c=d}", "comma"},
      {"x{a=b}y", "not closed"}};
  for (const auto& [text, why] : kBad)
    EXPECT_THAT(ParseMetricSpec(text).status().message(), HasSubstr(why)) << text;
}

TEST(MetricSpec, MatchesWhenAllLabelsDo) {
  const MetricSpec spec = *ParseMetricSpec("x{a=1,b=2}");
  EXPECT_TRUE(spec.Matches("b=\"2\",c=\"3\",a=\"1\""));
  EXPECT_FALSE(spec.Matches("a=\"1\""));
  EXPECT_FALSE(spec.Matches("a=\"1\",b=\"3\""));
  EXPECT_TRUE(ParseMetricSpec("x")->Matches(""));
}

}  // namespace
}  // namespace llmd::sched
