#include "llmd/format.h"

#include <gtest/gtest.h>

#include "llmd/clock.h"
#include "llmd/registry.h"

namespace llmd {
namespace {

TEST(FormatRfc3339, PrintsUtc) {
  EXPECT_EQ(FormatRfc3339(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(FormatRfc3339(951'782'399'999'999'999), "2000-02-28T23:59:59Z");
  EXPECT_EQ(FormatRfc3339(951'868'799'000'000'000), "2000-02-29T23:59:59Z");
  EXPECT_EQ(FormatRfc3339(-1), "1969-12-31T23:59:59Z");
  EXPECT_EQ(FormatRfc3339(4'107'542'400'000'000'000), "2100-03-01T00:00:00Z");
  EXPECT_EQ(FormatRfc3339Nano(1'747'412'104'982'282'940), "2025-05-16T16:15:04.98228294Z");
  EXPECT_EQ(FormatRfc3339Nano(1'747'412'104'000'000'001), "2025-05-16T16:15:04.000000001Z");
  EXPECT_EQ(FormatRfc3339Nano(1'747'412'104'000'000'000), "2025-05-16T16:15:04Z");
}

TEST(FormatGoDuration, PrintsAsGo) {
  const std::pair<int64_t, const char*> cases[] = {{0, "0s"},
                                                   {1, "1ns"},
                                                   {1100, "1.1µs"},
                                                   {2'200'000, "2.2ms"},
                                                   {3'300'000'000, "3.3s"},
                                                   {245'000'000'000, "4m5s"},
                                                   {245'001'000'000, "4m5.001s"},
                                                   {18'367'001'000'000, "5h6m7.001s"},
                                                   {480'000'000'001, "8m0.000000001s"},
                                                   {3'600'000'000'000, "1h0m0s"},
                                                   {-1'500'000, "-1.5ms"},
                                                   {INT64_MIN, "-2562047h47m16.854775808s"}};
  for (const auto& [nanos, text] : cases) EXPECT_EQ(FormatGoDuration(nanos), text);
}

TEST(Text, LowersComparesAndTrims) {
  EXPECT_EQ(ToLower("X-Request-ID é"), "x-request-id é");
  EXPECT_TRUE(EqualsIgnoreCase("Content-Type", "content-type"));
  EXPECT_FALSE(EqualsIgnoreCase("a", "ab"));
  EXPECT_EQ(Trim(" \t a b\r\n"), "a b");
  EXPECT_EQ(Trim(" \n"), "");
}

TEST(FakeClock, MovesOnlyWhenTold) {
  FakeClock clock(1000);
  const TimePoint start = clock.Now();
  EXPECT_EQ(clock.UnixNanos(), 1000);
  clock.Advance(std::chrono::seconds(2));
  EXPECT_EQ(clock.Now() - start, std::chrono::seconds(2));
  EXPECT_EQ(clock.UnixNanos(), 2'000'001'000);
}

TEST(SystemClock, NeverGoesBack) {
  const TimePoint before = SystemClock().Now();
  EXPECT_GE(SystemClock().Now(), before);
  EXPECT_GT(SystemClock().UnixNanos(), 1'700'000'000'000'000'000);
}

TEST(Registry, KnowsItsTypes) {
  Registry<int> registry;
  EXPECT_TRUE(registry.Register("b", 2).ok());
  EXPECT_TRUE(registry.Register("a", 1).ok());
  EXPECT_EQ(registry.Register("a", 3).code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(**registry.Find("a"), 1);
  EXPECT_EQ(registry.Find("c").status().message(), "unknown plugin type 'c'; known: a, b");
  EXPECT_EQ(registry.Types(), (std::vector<std::string>{"a", "b"}));
}

}  // namespace
}  // namespace llmd
