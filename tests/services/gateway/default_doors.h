// The doors with the flags' defaults, which let every request of the tests in.
#pragma once

#include <gtest/gtest.h>

#include "gateway/doors/door_flags.h"
#include "gateway/doors/doors.h"

namespace llmd::gateway {

inline std::unique_ptr<doors::Doors> DefaultDoors(MetricsRegistry& metrics) {
  auto options = doors::ToDoorOptions(doors::DoorFlags(), {}, 1);
  EXPECT_TRUE(options.ok()) << options.status().ToString();
  auto made = doors::Doors::Create(std::move(*options), Logger(), metrics, SystemClock());
  EXPECT_TRUE(made.ok()) << made.status().ToString();
  return std::move(*made);
}

}  // namespace llmd::gateway
