#include "llmd/sched/plugin.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

config::Node Yaml(const std::string& text) {
  StatusOr<config::Node> node = config::Parse(text);
  EXPECT_TRUE(node.ok()) << node.status().ToString();
  return node.ok() ? *node : config::Node();
}

TEST(Params, ReadsEveryKind) {
  Params p(Yaml("{d: 0.5, i: 7, b: true, s: text, c: two, t: 150ms, l: [x, y]}"));
  EXPECT_EQ(p.Double("d", 0, 0, 1), 0.5);
  EXPECT_EQ(p.Int("i", 0, 0, 10), 7);
  EXPECT_TRUE(p.Bool("b", false));
  EXPECT_EQ(p.String("s", ""), "text");
  EXPECT_EQ(p.Choice("c", "one", {"one", "two"}), "two");
  EXPECT_EQ(p.Time("t", {}), std::chrono::milliseconds(150));
  EXPECT_THAT(p.Strings("l"), ElementsAre("x", "y"));
  EXPECT_TRUE(p.Finish().ok());
}

TEST(Params, GivesTheDefaultsOfAnAbsentMap) {
  Params p{config::Node()};
  EXPECT_EQ(p.Double("d", 0.25, 0, 1), 0.25);
  EXPECT_EQ(p.Int("i", -3, 0, 10), -3);  // a default need not be in the range of what may be given
  EXPECT_TRUE(p.Bool("b", true));
  EXPECT_EQ(p.String("s", "x"), "x");
  EXPECT_EQ(p.Choice("c", "one", {"one"}), "one");
  EXPECT_EQ(p.Time("t", std::chrono::seconds(2)), std::chrono::seconds(2));
  EXPECT_THAT(p.Strings("l"), IsEmpty());
  EXPECT_FALSE(p.Has("d"));
  EXPECT_TRUE(p.Finish().ok());
}

TEST(Params, CollectsEveryErrorWithItsLineAndGoesOnWithTheDefaults) {
  Params p(Yaml("d: 2\ni: 11\nb: maybe\nc: three\nt: -1s\nl: 5\nextra: 1\n"));
  EXPECT_EQ(p.Double("d", 0.5, 0, 1), 0.5);
  EXPECT_EQ(p.Int("i", 1, 0, 10), 1);
  EXPECT_FALSE(p.Bool("b", false));
  EXPECT_EQ(p.Choice("c", "one", {"one", "two"}), "one");
  EXPECT_EQ(p.Time("t", std::chrono::seconds(1)), std::chrono::seconds(1));
  EXPECT_THAT(p.Strings("l"), IsEmpty());
  const std::string all = p.Finish().message();
  EXPECT_THAT(all, AllOf(HasSubstr("line 1"), HasSubstr("from 0 to 1, got 2"),
                         HasSubstr("from 0 to 10, got 11"), HasSubstr("line 3"),
                         HasSubstr("one of one, two, got 'three'"), HasSubstr("line 6"),
                         HasSubstr("extra")));
}

TEST(Params, ReportsWhatIsNoMap) {
  Params p(Yaml("[1, 2]"));
  EXPECT_THAT(p.Finish().message(), HasSubstr("expected a map of parameters"));
}

TEST(Params, OwnFailuresComeWithTheirPlace) {
  Params p(Yaml("a: 1\nb: 2\n"));
  p.Int("a", 0, 0, 9);
  p.Int("b", 0, 0, 9);
  p.Fail("b", "not with a");
  EXPECT_THAT(p.Collected().message(), AllOf(HasSubstr("line 2"), HasSubstr("not with a")));
  EXPECT_THAT(p.Collected().message(), Not(HasSubstr("line 1")));
}

}  // namespace
}  // namespace llmd::sched
