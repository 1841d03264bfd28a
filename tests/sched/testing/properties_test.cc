// Each property is broken by a plugin made to break it, and by no other.
#include "llmd/sched/testing/properties.h"

#include <atomic>
#include <cmath>
#include <functional>
#include <stdexcept>

#include "llmd/sched/filter.h"
#include "llmd/sched/picker.h"
#include "llmd/sched/scorer.h"
#include "llmd/sched/testing/allocation_counter.h"
#include "llmd/sched/testing/gtest.h"
#include "sched/support.h"
#include "testing/clock_reads.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Candidates = std::span<const uint32_t>;
using ScoreFn =
    std::function<void(RequestContext&, const Snapshot&, Candidates, std::span<double>)>;
using KeepFn = std::function<void(RequestContext&, const Snapshot&, std::vector<uint32_t>&)>;
using PickFn = std::function<void(RequestContext&, Candidates, std::vector<uint32_t>&)>;

struct FnScorer final : Scorer {
  explicit FnScorer(ScoreFn f) : fn(std::move(f)) {}
  void Score(RequestContext& r, const Snapshot& s, Candidates c, std::span<double> out) override {
    fn(r, s, c, out);
  }
  ScoreFn fn;
};
struct FnFilter final : Filter {
  explicit FnFilter(KeepFn f) : fn(std::move(f)) {}
  void Keep(RequestContext& r, const Snapshot& s, std::vector<uint32_t>& c) override {
    fn(r, s, c);
  }
  KeepFn fn;
};
struct FnPicker final : Picker {
  explicit FnPicker(PickFn f) : fn(std::move(f)) {}
  int Pick(RequestContext& r, const Snapshot&, Candidates c, std::span<const double>,
           std::vector<uint32_t>& picked) override {
    fn(r, c, picked);
    return 0;
  }
  PickFn fn;
};

template <typename Kind, typename Fn>
PluginRegistry With(const char* kind, Fn fn) {
  PluginRegistry registry = BuiltinPlugins();
  EXPECT_EQ(AddPlugin(registry, {.type = "mine",
                                 .kind = kind,
                                 .help = "Test.",
                                 .make = [fn](PluginArgs&) -> StatusOr<std::unique_ptr<Plugin>> {
                                   return std::unique_ptr<Plugin>(std::make_unique<Kind>(fn));
                                 }}),
            OkStatus());
  return registry;
}

testing::PropertyOptions Options() {
  testing::PropertyOptions options;
  options.allocations = testing::AllocationsSoFar;
  return options;
}

std::vector<std::string> Broken(const testing::Report& report) {
  std::vector<std::string> out;
  for (const testing::Violation& v : report.violations) out.push_back(v.property);
  return out;
}
testing::Report Scorers(ScoreFn fn) {
  const PluginRegistry registry = With<FnScorer>("scorer", std::move(fn));
  return testing::CheckScorer(&registry, "mine", Options());
}
testing::Report Filters(KeepFn fn) {
  const PluginRegistry registry = With<FnFilter>("filter", std::move(fn));
  return testing::CheckFilter(&registry, "mine", Options());
}
testing::Report Pickers(PickFn fn) {
  const PluginRegistry registry = With<FnPicker>("picker", std::move(fn));
  return testing::CheckPicker(&registry, "mine", Options());
}

// Half the reciprocal of the queue, unscored where it is unknown: holds everything.
void Reciprocal(RequestContext&, const Snapshot& s, Candidates c, std::span<double> out) {
  for (size_t i = 0; i < c.size(); ++i) out[i] = 0.5 / (1 + s.waiting[c[i]]);
}

TEST(CheckScorer, AGoodOneHoldsAndSaysWhatWasChecked) {
  const testing::Report report = Scorers(Reciprocal);
  EXPECT_TRUE(testing::Holds(report));
  std::vector<std::string> want = {"builds", "length",   "nan",     "range",      "size",
                                   "order",  "unlisted", "repeats", "calls",      "clock",
                                   "input",  "unknown",  "threads", "allocations"};
  if (!testing::SeesClockReads()) std::erase(want, "clock");
  EXPECT_EQ(report.checked, want);
  EXPECT_EQ(report.ToStatus(), OkStatus());
}

TEST(CheckScorer, RangeNamesTheScoreAndTheEndpoint) {
  const testing::Report report = Scorers([](auto&, const Snapshot& s, Candidates c, auto out) {
    for (size_t i = 0; i < c.size(); ++i) out[i] = s.info(c[i]).name == "e3" ? 1.5 : 0.5;
  });
  EXPECT_THAT(Broken(report), ElementsAre("range", "size"));
  EXPECT_THAT(report.ToText(),
              HasSubstr("plugin 'mine', property 'range': 'e3' of 50 endpoints has "
                        "score 1.5"));
  EXPECT_EQ(report.ToStatus().code(), StatusCode::kFailedPrecondition);
}

TEST(CheckScorer, SizeFindsWhatFailsOnManyEndpoints) {
  EXPECT_THAT(Broken(Scorers([](auto& r, const Snapshot& s, Candidates c, auto out) {
                Reciprocal(r, s, c, out);
                if (c.size() > 500) out[500] = -1;
              })),
              ElementsAre("size"));
}

TEST(CheckScorer, OrderFindsPositions) {
  EXPECT_THAT(Broken(Scorers([](auto&, auto&, Candidates c, auto out) {
                for (size_t i = 0; i < c.size(); ++i) out[i] = 1.0 / static_cast<double>(1 + i);
              })),
              ElementsAre("order"));
  EXPECT_THAT(Broken(Scorers([](auto&, auto&, Candidates c, auto out) {  // of the snapshot
                for (size_t i = 0; i < c.size(); ++i) out[i] = c[i] % 8 == 0 ? 1 : 0;
              })),
              ElementsAre("order"));
}

TEST(CheckScorer, UnlistedFindsALookAtTheWholePool) {
  const testing::Report report = Scorers([](auto&, const Snapshot& s, Candidates c, auto out) {
    double longest = 1;
    for (double w : s.waiting) longest = std::isnan(w) ? longest : std::max(longest, w);
    for (size_t i = 0; i < c.size(); ++i) out[i] = s.waiting[c[i]] / longest;
  });
  EXPECT_THAT(Broken(report), ElementsAre("unlisted"));
}

TEST(CheckScorer, RepeatsFindsAGlobalCounter) {
  auto calls = std::make_shared<std::atomic<int>>(0);
  const std::vector<std::string> broken =
      Broken(Scorers([calls](auto&, auto&, Candidates c, auto out) {
        const double score = 1.0 / (1 + calls->fetch_add(1));
        for (size_t i = 0; i < c.size(); ++i) out[i] = score;
      }));
  EXPECT_THAT(broken, ::testing::Contains("repeats"));
}

TEST(CheckScorer, UnknownFindsNanThatSpreads) {
  EXPECT_THAT(Broken(Scorers([](auto&, const Snapshot& s, Candidates c, auto out) {
                double sum = 1;
                for (uint32_t e : c) sum += s.kv_usage[e];
                for (size_t i = 0; i < c.size(); ++i) out[i] = s.kv_usage[c[i]] / sum;
              })),
              ElementsAre("unknown"));
}

TEST(CheckScorer, AllocationsAreFound) {
  if (!testing::kCountsAllocations) GTEST_SKIP() << "nothing is counted under this sanitizer";
  EXPECT_THAT(Broken(Scorers([](auto& r, const Snapshot& s, Candidates c, auto out) {
                const std::vector<uint32_t> copy(c.begin(), c.end());
                Reciprocal(r, s, copy, out);
              })),
              ElementsAre("allocations"));
}

TEST(CheckScorer, ExceptionsAreFound) {
  const testing::Report thrown = Scorers([](auto& r, const Snapshot& s, Candidates c, auto out) {
    if (s.size() > 900) throw std::out_of_range("too many");
    Reciprocal(r, s, c, out);
  });
  EXPECT_THAT(Broken(thrown), ElementsAre("size"));
  EXPECT_THAT(thrown.ToText(), HasSubstr("throws an exception: too many"));
}

TEST(CheckScorer, WhatCannotBeBuiltIsOneViolation) {
  testing::PropertyOptions options = Options();
  options.parameters = "{bogus: 1}";
  const testing::Report report = testing::CheckScorer(nullptr, "queue-scorer", options);
  EXPECT_THAT(Broken(report), ElementsAre("builds"));
  EXPECT_THAT(report.ToText(), HasSubstr("bogus"));
  EXPECT_THAT(testing::CheckFilter(nullptr, "queue-scorer").ToText(), HasSubstr("is no filter"));
  EXPECT_THAT(testing::CheckScorer(nullptr, "qeue-scorer").ToText(),
              HasSubstr("unknown plugin type"));
}

TEST(CheckScorer, ExceptedPropertiesAreLeftOut) {
  const PluginRegistry registry =
      With<FnScorer>("scorer", ScoreFn([](auto&, auto&, Candidates c, auto out) {
                       for (size_t i = 0; i < c.size(); ++i)
                         out[i] = 1.0 / static_cast<double>(1 + i);
                     }));
  testing::PropertyOptions options = Options();
  options.except = {"order"};
  EXPECT_TRUE(testing::Holds(testing::CheckScorer(&registry, "mine", options)));
}

TEST(CheckFilter, FindsRepetitionOrderAndTheRest) {
  EXPECT_TRUE(testing::Holds(Filters([](auto&, const Snapshot& s, auto& c) {
    std::erase_if(c, [&](uint32_t e) { return !(s.waiting[e] < 4); });
  })));
  EXPECT_THAT(Broken(Filters([](auto&, auto&, std::vector<uint32_t>& c) {
                if (!c.empty()) c.push_back(c[0]);
              })),
              ::testing::IsSupersetOf({"subset", "size", "unknown"}));
  EXPECT_THAT(Broken(Filters([](auto&, auto&, std::vector<uint32_t>& c) {
                if (c.size() > 3) c.resize(3);
              })),
              ElementsAre("order"));
  EXPECT_THAT(Broken(Filters([](auto&, const Snapshot& s, std::vector<uint32_t>& c) {
                double longest = 0;
                for (double w : s.waiting) longest = std::isnan(w) ? longest : std::max(longest, w);
                std::erase_if(c, [&](uint32_t e) { return s.waiting[e] * 2 > longest; });
              })),
              ElementsAre("unlisted"));
  EXPECT_THAT(Broken(Filters([](auto&, const Snapshot& s, std::vector<uint32_t>& c) {
                c.clear();
                c.push_back(static_cast<uint32_t>(s.size()));
              })),
              ::testing::Contains("subset"));
}

TEST(CheckPicker, FindsTheFirstOneAlwaysTheUnseededAndTheEmpty) {
  EXPECT_TRUE(testing::Holds(Pickers([](RequestContext& r, Candidates c, auto& picked) {
    if (!c.empty()) picked.push_back(c[RandomBelow(r.random, c.size())]);
  })));
  EXPECT_THAT(Broken(Pickers([](auto&, Candidates c, auto& picked) {
                if (!c.empty()) picked.push_back(c[0]);
              })),
              ElementsAre("ties"));
  auto calls = std::make_shared<std::atomic<size_t>>(0);
  EXPECT_THAT(Broken(Pickers([calls](auto&, Candidates c, auto& picked) {
                if (!c.empty()) picked.push_back(c[calls->fetch_add(1) % c.size()]);
              })),
              ElementsAre("repeats", "calls", "threads"));
  EXPECT_THAT(Pickers([](auto&, auto, auto&) {}).ToText(), HasSubstr("it picks nothing, of 2"));
}

}  // namespace
}  // namespace llmd::sched
