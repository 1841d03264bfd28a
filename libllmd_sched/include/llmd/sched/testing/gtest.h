// GoogleTest's words for the kit: EXPECT_TRUE(Holds(CheckScorer(…))),
// EXPECT_TRUE(IsOk(CheckGolden(…))). The kit itself does not need GoogleTest.
#pragma once

#include <gtest/gtest.h>

#include "llmd/sched/testing/properties.h"
#include "llmd/status.h"

namespace llmd::sched::testing {

inline ::testing::AssertionResult IsOk(const Status& status) {
  if (status.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << status.ToString();
}

inline ::testing::AssertionResult Holds(const Report& report) {
  if (report.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << report.ToText();
}

}  // namespace llmd::sched::testing
