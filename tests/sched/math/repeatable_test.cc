#include "math/repeatable.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

namespace llmd::sched {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void ExpectClose(double got, double want, double x) {
  EXPECT_LE(std::abs(got - want), 1e-14 * std::abs(want)) << "at " << x;
}

TEST(RepeatableMath, IsCloseToTheCLibrary) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 100'000; ++i) {
    const double unit = (static_cast<double>(random() >> 11) + 0.5) * 0x1.0p-53;
    const double wide = (unit - 0.5) * 600;
    EXPECT_NEAR(RepeatableLog(unit), std::log(unit), 1e-14 * (1 + std::abs(std::log(unit))));
    ExpectClose(RepeatableExp(wide), std::exp(wide), wide);
    ExpectClose(RepeatableExp2(wide), std::exp2(wide), wide);
    const double large = std::ldexp(unit, static_cast<int>(random() % 2000) - 1000);
    ExpectClose(RepeatableLog(large), std::log(large), large);
    EXPECT_NEAR(RepeatablePow(unit * 3, wide / 100) / std::pow(unit * 3, wide / 100), 1, 1e-13);
  }
}

TEST(RepeatableMath, IsExactWhereItSaysSo) {
  for (int k = -1074; k <= 1023; ++k) EXPECT_EQ(RepeatableExp2(k), std::ldexp(1.0, k)) << k;
  EXPECT_EQ(RepeatableLog(1), 0);
  EXPECT_EQ(RepeatableExp(0), 1);
  EXPECT_EQ(RepeatablePow(3, 5), 243);
  EXPECT_EQ(RepeatablePow(0.5, 10), 0x1.0p-10);
  EXPECT_EQ(RepeatablePow(7, 0), 1);
}

TEST(RepeatableMath, TheEdges) {
  EXPECT_EQ(RepeatableLog(0), -kInfinity);
  EXPECT_EQ(RepeatableLog(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(RepeatableLog(-1)));
  EXPECT_TRUE(std::isnan(RepeatableExp(std::nan(""))));
  EXPECT_EQ(RepeatableExp(-1e9), 0);
  EXPECT_EQ(RepeatableExp(1e9), kInfinity);
  EXPECT_EQ(RepeatableExp2(-kInfinity), 0);
  EXPECT_EQ(RepeatableExp2(kInfinity), kInfinity);
  EXPECT_EQ(RepeatablePow(0, 0.5), 0);
  EXPECT_EQ(RepeatablePow(0, -0.5), kInfinity);
}

// The bits, as every compiler and CPU must give them: FNV-1a over many results.
TEST(RepeatableMath, GivesTheSameBitsEverywhere) {
  std::mt19937_64 random(5);
  uint64_t hash = 14695981039346656037u;
  const auto add = [&](double v) { hash = (hash ^ std::bit_cast<uint64_t>(v)) * 1099511628211u; };
  for (int i = 0; i < 10'000; ++i) {
    const double unit = (static_cast<double>(random() >> 11) + 0.5) * 0x1.0p-53;
    add(RepeatableLog(unit));
    add(RepeatableExp(-20 * unit));
    add(RepeatableExp2(-20 * unit));
    add(RepeatablePow(unit, 2.5));
  }
  EXPECT_EQ(hash, 2248526776633553435u);
}

}  // namespace
}  // namespace llmd::sched
