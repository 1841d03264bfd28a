#include "math/repeatable.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace llmd::sched {
namespace {

// ln 2 in two parts: the first has 21 trailing zero bits, so that products with exponents are
// exact.
constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Beyond these every result is infinite or 0.
constexpr double kMostExp = 710, kMostExp2 = 1100;

// e^r for |r| <= 0.35 by its series; the next term is below 1e-17.
double SmallExp(double r) {
  double sum = 0;
  for (int n = 14; n > 0; --n) sum = (sum + 1) * r / n;
  return sum + 1;
}

double WholePower(double base, int power) {
  double out = 1;
  for (double square = base; power > 0; power /= 2, square *= square) {
    if (power % 2 == 1) out *= square;
  }
  return out;
}

}  // namespace

double RepeatableLog(double x) {
  if (std::isnan(x) || x < 0) return std::numeric_limits<double>::quiet_NaN();
  if (x == 0) return -kInfinity;
  if (x == kInfinity) return x;
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // [0.5, 1)
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  // ln m = 2 artanh f; |f| <= 0.172, the next term of the series is below 1e-18.
  const double f = (m - 1) / (m + 1), s = f * f;
  double sum = 0;
  for (int n = 23; n >= 3; n -= 2) sum = (sum + 1.0 / n) * s;
  const double e = exponent;
  return e * kLn2High + (2 * f + (2 * f * sum + e * kLn2Low));
}

double RepeatableExp(double x) {
  if (std::isnan(x)) return x;
  x = std::clamp(x, -2 * kMostExp, 2 * kMostExp);
  const double k = std::floor(x * 1.4426950408889634 + 0.5);
  return std::ldexp(SmallExp((x - k * kLn2High) - k * kLn2Low), static_cast<int>(k));
}

double RepeatableExp2(double x) {
  if (std::isnan(x)) return x;
  x = std::clamp(x, -kMostExp2, kMostExp2);
  const double k = std::floor(x + 0.5);
  return std::ldexp(SmallExp((x - k) * (kLn2High + kLn2Low)), static_cast<int>(k));
}

double RepeatablePow(double base, double power) {
  constexpr double kMostWhole = 64;
  if (power >= 0 && power <= kMostWhole && power == std::floor(power))
    return WholePower(base, static_cast<int>(power));
  if (base == 0) return power > 0 ? 0 : kInfinity;
  return RepeatableExp(power * RepeatableLog(base));
}

}  // namespace llmd::sched
