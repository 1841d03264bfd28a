// The elementary functions that decisions use, made of +, -, *, / and powers of two only: the same
// bits with every compiler, C library and CPU of IEEE 754 doubles. libm's differ between versions,
// and within one by whether the CPU has fused multiply-add. Relative error below 1e-14 for results
// that are normal numbers.
#pragma once

namespace llmd::sched {

// Natural logarithm; -infinity of 0, NaN below.
double RepeatableLog(double x);
double RepeatableExp(double x);
// Exact for whole x.
double RepeatableExp2(double x);
// Of base >= 0. Exact where a whole power of up to 64 is.
double RepeatablePow(double base, double power);

}  // namespace llmd::sched
