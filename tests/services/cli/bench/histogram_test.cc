#include "cli/bench/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cli/bench/random.h"
#include "cli/bench/tally.h"

namespace llmd::bench {
namespace {

TEST(Histogram, KeepsSmallValuesExactly) {
  Histogram h(10);
  for (int64_t v = 0; v < 2048; ++v) h.Record(v);
  EXPECT_EQ(h.count(), 2048u);
  EXPECT_EQ(h.Percentile(50), 1023);
  EXPECT_EQ(h.Percentile(100), 2047);
  EXPECT_EQ(h.Percentile(0), 0);
  EXPECT_DOUBLE_EQ(h.Mean(), 1023.5);
}

// Against the sorted values, for precisions and sizes of all kinds.
TEST(Histogram, PercentilesAreAboveTheValueByTheErrorAtMost) {
  for (const int bits : {1, 4, 7, 10}) {
    Histogram h(bits);
    Random random(1, Random::kShape, static_cast<uint64_t>(bits));
    std::vector<int64_t> values;
    for (int i = 0; i < 20000; ++i) {
      values.push_back(static_cast<int64_t>(std::exp(random.Uniform() * 29)));
      h.Record(values.back());
    }
    std::sort(values.begin(), values.end());
    for (const double p : {0.1, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
      const auto rank = static_cast<size_t>(std::ceil(p / 100 * 20000));
      const int64_t exact = values[std::max<size_t>(rank, 1) - 1];
      EXPECT_GE(h.Percentile(p), exact) << bits << " bits, p" << p;
      const double allowed = static_cast<double>(exact) * (1 + std::ldexp(1, -bits)) + 1;
      EXPECT_LE(static_cast<double>(h.Percentile(p)), allowed) << bits << " bits, p" << p;
    }
  }
}

TEST(Histogram, BoundsAndEmptiness) {
  Histogram h;
  EXPECT_EQ(h.Percentile(99), 0);
  EXPECT_EQ(h.min(), 0);
  EXPECT_EQ(h.max(), 0);
  EXPECT_EQ(h.Mean(), 0);
  h.Record(-5);
  h.Record(INT64_MAX);
  EXPECT_EQ(h.min(), 0);
  EXPECT_EQ(h.max(), Histogram::kMaxNanos);
  EXPECT_EQ(h.Percentile(100), Histogram::kMaxNanos);
}

TEST(Histogram, MergingIsTheSameAsRecordingAll) {
  Histogram one, two, all, empty;
  Random random(3, Random::kShape, 0);
  for (int i = 0; i < 5000; ++i) {
    const auto v = static_cast<int64_t>(random.Below(1'000'000'000));
    (i % 3 ? one : two).Record(v);
    all.Record(v);
  }
  one.Merge(two);
  one.Merge(empty);
  empty.Merge(one);
  for (const Histogram* h : {&one, &empty}) {
    EXPECT_EQ(h->count(), all.count());
    EXPECT_EQ(h->min(), all.min());
    EXPECT_EQ(h->max(), all.max());
    EXPECT_EQ(h->Percentile(99), all.Percentile(99));
  }
}

TEST(Histogram, BucketsHoldEveryValueOnce) {
  Histogram h(3);
  for (const int64_t v : {0, 7, 8, 15, 16, 17, 1000, 1001}) h.Record(v);
  uint64_t total = 0;
  int64_t last = -1;
  for (const Histogram::Bucket& b : h.Buckets()) {
    EXPECT_GT(b.from, last);
    EXPECT_GE(b.to, b.from);
    last = b.to;
    total += b.count;
  }
  EXPECT_EQ(total, 8u);
}

Outcome Answered(int64_t intended, int64_t sent, int64_t first, int64_t last, int64_t end,
                 uint64_t tokens) {
  return {.intended = intended,
          .sent = sent,
          .first_token = first,
          .last_token = last,
          .end = end,
          .status = 200,
          .prompt_tokens = 10,
          .output_tokens = tokens};
}

// A request that was to be sent at 1 s but could be only at 3 s has waited all that time.
TEST(Tally, LatenciesCountFromTheIntendedTime) {
  constexpr int64_t s = 1'000'000'000;
  Tally tally;
  tally.Sent(2 * s);
  tally.Add(Answered(1 * s, 3 * s, 4 * s, 6 * s, 7 * s, 5), {});
  EXPECT_EQ(tally.ttft().max(), 3 * s);
  EXPECT_EQ(tally.e2e().max(), 6 * s);
  EXPECT_EQ(tally.service().max(), 4 * s);
  EXPECT_EQ(tally.lateness().max(), 2 * s);
  EXPECT_EQ(tally.tpot().max(), s / 2);  // 2 s for 4 gaps
  EXPECT_DOUBLE_EQ(tally.Seconds(), 6);
}

TEST(Tally, GoodputNeedsEveryObjective) {
  constexpr int64_t ms = 1'000'000;
  const Slo slo{.ttft = Duration(100 * ms), .tpot = Duration(10 * ms), .e2e = Duration(300 * ms)};
  Tally tally;
  tally.Add(Answered(0, 1, 90 * ms, 180 * ms, 200 * ms, 10), slo);   // good
  tally.Add(Answered(0, 1, 110 * ms, 180 * ms, 200 * ms, 10), slo);  // late first token
  tally.Add(Answered(0, 1, 90 * ms, 290 * ms, 299 * ms, 10), slo);   // slow tokens
  tally.Add(Answered(0, 1, 90 * ms, 180 * ms, 301 * ms, 10), slo);   // late end
  tally.Add(Answered(0, 1, 0, 0, 200 * ms, 10), slo);                // never a first token
  Outcome failed = Answered(0, 1, 90 * ms, 180 * ms, 200 * ms, 10);
  failed.failure = Failure::kStreamCut;
  tally.Add(failed, slo);
  EXPECT_EQ(tally.good(), 1u);
  EXPECT_EQ(tally.completed(), 5u);
  EXPECT_EQ(tally.failed(), 1u);
}

TEST(Series, GrowsCoarserInsteadOfLonger) {
  Series series;
  for (int i = 0; i < 1000; ++i) {
    series.Add(Answered(i * Series::kFirstWidth, 0, 0, 0, i * Series::kFirstWidth + 5, 1));
  }
  EXPECT_EQ(series.width(), 8 * Series::kFirstWidth);
  ASSERT_EQ(series.windows().size(), 125u);
  for (const Series::Window& w : series.windows()) EXPECT_EQ(w.completed, 8u);
  Series fine;
  fine.Add(Answered(0, 0, 0, 0, 5, 1));
  fine.Merge(series);
  EXPECT_EQ(fine.windows()[0].completed, 9u);
  EXPECT_EQ(fine.width(), series.width());
}

}  // namespace
}  // namespace llmd::bench
