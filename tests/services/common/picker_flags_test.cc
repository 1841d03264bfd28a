#include "common/picker_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace llmd::services
