#include "llmd/sched/decision_log.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <locale>
#include <random>

#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

DecisionTrace Sample(uint64_t decision_ns) {
  auto s = MakeScheduler(Config({"{type: queue-scorer}"}));
  DecisionTrace out = Must(*s, Prompt("p"), {Ep("a", 1), Ep("b", 2)}).trace;
  out.decision_ns = decision_ns;
  return out;
}

std::string TotalsOf(const std::vector<double>& totals) {
  DecisionTrace trace;
  trace.profiles.emplace_back();
  trace.profiles[0].totals = totals;
  return ToLogJson(trace)["profiles"].AsArray()[0]["totals"].Dump();
}

TEST(DecisionLog, LeavesOutWhatTheMachineMeasuredOfItself) {
  EXPECT_EQ(ToLogLine(Sample(123)), ToLogLine(Sample(456)));
  EXPECT_NE(ToJson(Sample(123)).Dump(), ToJson(Sample(456)).Dump());
  EXPECT_THAT(ToLogLine(Sample(123)), Not(HasSubstr("decision_ns")));
  EXPECT_THAT(ToLogLine(Sample(123)), Not(HasSubstr("\n")));
}

TEST(DecisionLog, IsReadBack) {
  const auto back = DecisionFromJson(*json::Parse(ToLogLine(Sample(123))));
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(back->decision_ns, 0u);
  EXPECT_EQ(ToLogLine(*back), ToLogLine(Sample(0)));
}

TEST(DecisionLog, HardNumbersAreTheShortestThatReadBack) {
  EXPECT_EQ(TotalsOf({0.1, 0.3, 2.0 / 3, 1e23, 5e-324, 2.2250738585072014e-308,
                      1.7976931348623157e308, 9007199254740993.0, -0.0, 1e16, 123456.7, 1e-5}),
            "[0.1,0.3,0.6666666666666666,1e+23,5e-324,2.2250738585072014e-308,"
            "1.7976931348623157e+308,9007199254740992.0,-0.0,1e+16,123456.7,1e-05]");
  EXPECT_EQ(TotalsOf({0.1 + 0.2, std::nan(""), std::numeric_limits<double>::infinity()}),
            "[0.30000000000000004,null,null]");
}

TEST(DecisionLog, EveryNumberReadsBackToItself) {
  std::mt19937_64 random(19);
  for (int i = 0; i < 20'000; ++i) {
    const double v = i % 2 == 0 ? std::bit_cast<double>(random())
                                : static_cast<double>(random() >> 11) * 0x1.0p-53;
    if (!std::isfinite(v)) continue;
    const std::string text = TotalsOf({v});
    double back = 0;
    std::from_chars(text.data() + 1, text.data() + text.size() - 1, back);
    EXPECT_EQ(std::bit_cast<uint64_t>(back), std::bit_cast<uint64_t>(v)) << text;
  }
}

struct CommaPoint final : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

TEST(DecisionLog, TheGlobalLocaleChangesNothing) {
  const std::locale old =
      std::locale::global(std::locale(std::locale::classic(), new CommaPoint()));
  const std::string text = TotalsOf({1234567.5, 0.25});
  std::locale::global(old);
  EXPECT_EQ(text, "[1234567.5,0.25]");
}

}  // namespace
}  // namespace llmd::sched
