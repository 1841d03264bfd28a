#include "common/picker_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>

namespace llmd::services {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

PickerFlags Usable() {
  PickerFlags flags;
  flags.metrics_endpoint_auth = flags.tracing = false;
  return flags;
}

TEST(PickerFlags, MetricsAreReadAtMostTwentyTimesASecond) {
  PickerFlags flags = Usable();
  EXPECT_EQ(ToDirectorOptions(flags)->refresh_metrics_interval, milliseconds(50));
  flags.refresh_metrics_interval = milliseconds(0);
  EXPECT_EQ(ToDirectorOptions(flags)->refresh_metrics_interval, milliseconds(50));
  flags.refresh_metrics_interval = milliseconds(120);
  EXPECT_EQ(ToDirectorOptions(flags)->refresh_metrics_interval, milliseconds(120));
}

TEST(PickerFlags, TheConfigurationComesFromOnePlace) {
  PickerFlags flags = Usable();
  flags.config_text = "kind: x";
  EXPECT_EQ(ToDirectorOptions(flags)->config_yaml, "kind: x");
  flags.config_file = "/nowhere.yaml";
  EXPECT_THAT(ToDirectorOptions(flags).status().message(), HasSubstr("exclude each other"));
  flags.config_text.clear();
  EXPECT_THAT(ToDirectorOptions(flags).status().message(), HasSubstr("/nowhere.yaml"));
}

TEST(PickerFlags, TheSeedReachesTheDirector) {
  PickerFlags flags = Usable();
  FlagSet set("llmd-epp", "A picker.");
  AddPickerFlags(set, flags);
  const char* words[] = {"llmd-epp", "--seed", "9223372036854775807"};
  ASSERT_FALSE(set.Parse(3, words).exit);
  EXPECT_EQ(flags.seed, INT64_MAX);
  EXPECT_EQ(ToDirectorOptions(flags)->seed, uint64_t{INT64_MAX});
  FixSeed(flags);
  EXPECT_EQ(flags.seed, INT64_MAX);
  const char* negative[] = {"llmd-epp", "--seed", "-1"};
  EXPECT_EQ(set.Parse(3, negative).code, 2);
}

TEST(PickerFlags, WithoutASeedOneIsDrawnThatCanBeGivenAgain) {
  PickerFlags a = Usable(), b = Usable();
  EXPECT_EQ(ToDirectorOptions(a)->seed, 0u);
  FixSeed(a);
  FixSeed(b);
  EXPECT_NE(a.seed, b.seed);
  EXPECT_GT(a.seed, 0);
  EXPECT_EQ(static_cast<int64_t>(static_cast<double>(a.seed)), a.seed);
  EXPECT_EQ(ToDirectorOptions(a)->seed, static_cast<uint64_t>(a.seed));
}

}  // namespace
}  // namespace llmd::services
