// Kinds of bad plugin: the kit refuses each of them, and says which kind it is.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <ctime>
#include <functional>
#include <stdexcept>
#include <thread>

#include "llmd/sched/filter.h"
#include "llmd/sched/picker.h"
#include "llmd/sched/scorer.h"
#include "llmd/sched/testing/gtest.h"
#include "sched/support.h"
#include "testing/clock_reads.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

using Candidates = std::span<const uint32_t>;
using Scores = std::span<double>;
using ScoreFn = std::function<void(RequestContext&, const Snapshot&, Candidates, Scores)>;
using KeepFn = std::function<void(RequestContext&, const Snapshot&, std::vector<uint32_t>&)>;
using PickFn = std::function<void(RequestContext&, const Snapshot&, Candidates,
                                  std::span<const double>, std::vector<uint32_t>&)>;

struct FnScorer final : Scorer {
  explicit FnScorer(ScoreFn f) : fn(std::move(f)) {}
  void Score(RequestContext& r, const Snapshot& s, Candidates c, Scores out) override {
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
  int Pick(RequestContext& r, const Snapshot& s, Candidates c, std::span<const double> totals,
           std::vector<uint32_t>& picked) override {
    fn(r, s, c, totals, picked);
    return 0;
  }
  PickFn fn;
};

// `make` gives each object its own function, and so its own state.
template <typename Kind, typename Make>
PluginRegistry With(const char* kind, Make make) {
  PluginRegistry registry = BuiltinPlugins();
  EXPECT_EQ(AddPlugin(registry, {.type = "mine",
                                 .kind = kind,
                                 .help = "Test.",
                                 .make = [make](PluginArgs&) -> StatusOr<std::unique_ptr<Plugin>> {
                                   return std::unique_ptr<Plugin>(std::make_unique<Kind>(make()));
                                 }}),
            OkStatus());
  return registry;
}

// Says whether another thread is inside a call at the same time; waits for one a while.
class Meeting {
 public:
  bool Enter() {
    inside_.fetch_add(1);
    bool met = false;
    for (int i = 0; i < 1000 && !met; ++i) {
      met = inside_.load() > 1;
      std::this_thread::yield();
    }
    return met;
  }
  void Leave() { inside_.fetch_sub(1); }

 private:
  std::atomic<int> inside_{0};
};

void Good(RequestContext&, const Snapshot& s, Candidates c, Scores out) {
  for (size_t i = 0; i < c.size(); ++i) out[i] = 0.5 / (1 + s.waiting[c[i]]);
}
void Fill(Scores out, double score) {
  std::fill(out.begin(), out.end(), score);
}

ScoreFn ComputesNan() {  // (x - min) / (max - min) where all are alike
  return [](auto&, const Snapshot& s, Candidates c, Scores out) {
    double low = INFINITY, high = -INFINITY;
    for (uint32_t e : c) low = std::min(low, s.waiting[e]), high = std::max(high, s.waiting[e]);
    for (size_t i = 0; i < c.size(); ++i) out[i] = (s.waiting[c[i]] - low) / (high - low);
  };
}
ScoreFn OutOfRange() {
  return [](auto&, auto&, Candidates, Scores out) { Fill(out, 100); };
}
ScoreFn WritesByIndex() {
  return [](auto&, const Snapshot& s, Candidates, Scores out) {
    for (size_t i = 0; i < s.size(); ++i) out.data()[i] = 0.5;
  };
}
ScoreFn WritesOneMore() {
  return [](auto&, auto&, Candidates, Scores out) {
    for (size_t i = 0; i <= out.size(); ++i) out.data()[i] = 0.5;
  };
}
ScoreFn LeavesOutTheLast() {
  return [](auto&, auto&, Candidates, Scores out) {
    if (!out.empty()) Fill(out.first(out.size() - 1), 0.5);
  };
}
ScoreFn ByOrder() {
  return [](auto&, auto&, Candidates c, Scores out) {
    for (size_t i = 0; i < c.size(); ++i) out[i] = 1.0 / static_cast<double>(1 + i);
  };
}
ScoreFn ByCalls() {
  auto calls = std::make_shared<std::atomic<int>>(0);
  return [calls](auto&, auto&, Candidates, Scores out) {
    Fill(out, calls->fetch_add(1) % 50 == 49 ? 0.25 : 0.5);
  };
}
ScoreFn BySteadyClock() {
  return [](auto&, auto&, Candidates, Scores out) {
    const auto hours = std::chrono::duration_cast<std::chrono::hours>(
        std::chrono::steady_clock::now().time_since_epoch());
    Fill(out, hours.count() % 2 == 0 ? 0.25 : 0.5);
  };
}
ScoreFn ByTime() {
  return [](auto&, auto&, Candidates, Scores out) {
    Fill(out, std::time(nullptr) / 86'400 % 7 == 0 ? 0.25 : 0.5);
  };
}
ScoreFn ChangesRequest() {
  return [](RequestContext& r, const Snapshot& s, Candidates c, Scores out) {
    r.target_model = "another";
    Good(r, s, c, out);
  };
}
ScoreFn ChangesFacts() {
  return [](RequestContext& r, const Snapshot& s, Candidates c, Scores out) {
    r.Put(0).total = 3;
    Good(r, s, c, out);
  };
}
ScoreFn ChangesSnapshot() {
  return [](RequestContext& r, const Snapshot& s, Candidates c, Scores out) {
    Good(r, s, c, out);
    if (!c.empty()) ++const_cast<Snapshot&>(s).running[c[0]];
  };
}
ScoreFn ChangesCandidates() {
  return [](RequestContext& r, const Snapshot& s, Candidates c, Scores out) {
    Good(r, s, c, out);
    if (!c.empty()) const_cast<uint32_t&>(c[0]) = c.back();
  };
}
ScoreFn Throws() {
  return [](auto&, auto&, auto, auto) { throw std::runtime_error("no such model"); };
}
ScoreFn ThrowsAnInt() {
  return [](auto&, auto&, auto, auto) { throw 42; };
}
// Keeps the pool of the present call in a member. Atomic, so that only the result is wrong.
ScoreFn Racy() {
  auto size = std::make_shared<std::atomic<size_t>>(0);
  auto meeting = std::make_shared<Meeting>();
  return [size, meeting](auto&, const Snapshot& s, Candidates, Scores out) {
    size->store(s.size());
    (void)meeting->Enter();
    Fill(out, 1.0 / static_cast<double>(1 + size->load()));
    meeting->Leave();
  };
}

template <typename Make>
struct Bad {
  const char* name;
  Make make;
  const char *property, *says;
};
using BadScorer = Bad<ScoreFn (*)()>;

constexpr BadScorer kBadScorers[] = {
    {"ComputesNan", ComputesNan, "nan", "has score NaN although its gauges are known"},
    {"OutOfRange", OutOfRange, "range", "expected 0 to 1"},
    {"WritesByIndex", WritesByIndex, "length", "writes outside of its 1 scores"},
    {"WritesOneMore", WritesOneMore, "length", "writes outside of its 1 scores"},
    {"LeavesOutTheLast", LeavesOutTheLast, "length", "leaves out score 1 of its 2 scores"},
    {"ByOrder", ByOrder, "order", "with the candidates in another order"},
    {"ByCalls", ByCalls, "calls", "of the same object"},
    {"BySteadyClock", BySteadyClock, "clock", "reads the machine's clock (1 times in one call)"},
    {"ByTime", ByTime, "clock", "reads the machine's clock"},
    {"ChangesRequest", ChangesRequest, "input", "changes its input: the request's target_model"},
    {"ChangesFacts", ChangesFacts, "input", "changes its input: the request's facts"},
    {"ChangesSnapshot", ChangesSnapshot, "input", "changes its input: the snapshot's running"},
    {"ChangesCandidates", ChangesCandidates, "input", "changes its input: the candidates"},
    {"Throws", Throws, "range", "throws an exception: no such model"},
    {"ThrowsAnInt", ThrowsAnInt, "threads", "throws an exception that is no std::exception"},
    {"Racy", Racy, "threads", "while other threads call it too"}};

bool SeenHere(const char* property) {
  return std::string_view(property) != "clock" || testing::SeesClockReads();
}
std::vector<std::string> Broken(const testing::Report& report) {
  std::vector<std::string> out;
  for (const testing::Violation& v : report.violations) out.push_back(v.property);
  return out;
}
std::string DetailOf(const testing::Report& report, std::string_view property) {
  for (const testing::Violation& v : report.violations) {
    if (v.property == property) return v.detail;
  }
  return "";
}

class CheckScorerRefuses : public ::testing::TestWithParam<BadScorer> {};

TEST_P(CheckScorerRefuses, ItAndNamesTheKind) {
  if (!SeenHere(GetParam().property)) GTEST_SKIP() << "clock reads are not seen here";
  const PluginRegistry registry = With<FnScorer>("scorer", GetParam().make);
  const testing::Report report = testing::CheckScorer(&registry, "mine");
  EXPECT_THAT(Broken(report), Contains(GetParam().property)) << report.ToText();
  EXPECT_THAT(DetailOf(report, GetParam().property), HasSubstr(GetParam().says));
}
INSTANTIATE_TEST_SUITE_P(Kinds, CheckScorerRefuses, ::testing::ValuesIn(kBadScorers),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(CheckScorer, AReportSaysThatRacesAreSeenUnderTsan) {
  const PluginRegistry registry = With<FnScorer>("scorer", [] { return ScoreFn(Good); });
  const testing::Report report = testing::CheckScorer(&registry, "mine");
  EXPECT_TRUE(testing::Holds(report));
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  GTEST_SKIP() << "it is run under TSan";
#endif
#endif
  EXPECT_THAT(report.ToText(), HasSubstr("run it under TSan"));
  testing::PropertyOptions alone;
  alone.threads = 0;
  EXPECT_EQ(testing::CheckScorer(&registry, "mine", alone).ToText(), "");
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
// An unguarded counter: its results are right, only the sanitizer sees the fault.
TEST(CheckScorer, TsanSeesARace) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        int64_t calls = 0;
        const PluginRegistry registry = With<FnScorer>("scorer", [&calls] {
          return ScoreFn([&calls](auto& r, const auto& s, Candidates c, Scores out) {
            ++calls;
            Good(r, s, c, out);
          });
        });
        (void)testing::CheckScorer(&registry, "mine");
        std::exit(1);
      },
      "data race");
}
#endif
#endif

using BadFilter = Bad<KeepFn (*)()>;

void KeepIdle(const Snapshot& s, std::vector<uint32_t>& c) {
  std::erase_if(c, [&](uint32_t e) { return !(s.waiting[e] < 4); });
}

constexpr BadFilter kBadFilters[] = {
    {"Reorders",
     +[] { return KeepFn([](auto&, auto&, auto& c) { std::reverse(c.begin(), c.end()); }); },
     "subset", "changes the order of the candidates"},
    {"Adds",
     +[] {
       return KeepFn([](auto&, const Snapshot& s, auto& c) {
         if (!c.empty()) c.push_back(static_cast<uint32_t>(s.size()));
       });
     },
     "subset", "is no candidate"},
    {"ByCalls",
     +[] {
       auto calls = std::make_shared<std::atomic<int>>(0);
       return KeepFn([calls](auto&, auto&, auto& c) {
         if (calls->fetch_add(1) % 40 == 39) c.clear();
       });
     },
     "calls", "of the same object"},
    {"ByClock",
     +[] {
       return KeepFn([](auto&, auto&, auto& c) {
         if (std::time(nullptr) / 86'400 % 7 == 0) c.clear();
       });
     },
     "clock", "reads the machine's clock"},
    {"ChangesRequest",
     +[] { return KeepFn([](RequestContext& r, auto&, auto&) { r.priority = 3; }); }, "input",
     "changes its input: the request's priority"},
    {"ChangesSnapshot",
     +[] {
       return KeepFn([](auto&, const Snapshot& s, auto&) {
         if (s.size() > 0) const_cast<Snapshot&>(s).kv_usage[0] = 0.125;
       });
     },
     "input", "changes its input: the snapshot's kv_usage"},
    {"Throws", +[] { return KeepFn([](auto&, auto&, auto&) { throw std::runtime_error("no"); }); },
     "subset", "throws an exception: no"},
    {"Racy",
     +[] {
       auto meeting = std::make_shared<Meeting>();
       return KeepFn([meeting](auto&, const Snapshot& s, auto& c) {
         if (meeting->Enter()) c.clear();
         KeepIdle(s, c);
         meeting->Leave();
       });
     },
     "threads", "while other threads call it too"}};

class CheckFilterRefuses : public ::testing::TestWithParam<BadFilter> {};

TEST_P(CheckFilterRefuses, ItAndNamesTheKind) {
  if (!SeenHere(GetParam().property)) GTEST_SKIP() << "clock reads are not seen here";
  const PluginRegistry registry = With<FnFilter>("filter", GetParam().make);
  const testing::Report report = testing::CheckFilter(&registry, "mine");
  EXPECT_THAT(Broken(report), Contains(GetParam().property)) << report.ToText();
  EXPECT_THAT(DetailOf(report, GetParam().property), HasSubstr(GetParam().says));
}
INSTANTIATE_TEST_SUITE_P(Kinds, CheckFilterRefuses, ::testing::ValuesIn(kBadFilters),
                         [](const auto& info) { return std::string(info.param.name); });

using BadPicker = Bad<PickFn (*)()>;

void PickAny(RequestContext& r, Candidates c, std::vector<uint32_t>& picked) {
  if (!c.empty()) picked.push_back(c[RandomBelow(r.random, c.size())]);
}

constexpr BadPicker kBadPickers[] = {
    {"ByCalls",
     +[] {
       auto calls = std::make_shared<std::atomic<size_t>>(0);
       return PickFn([calls](auto&, auto&, Candidates c, auto, auto& picked) {
         if (!c.empty()) picked.push_back(c[calls->fetch_add(1) % c.size()]);
       });
     },
     "calls", "of the same object"},
    {"ByClock",
     +[] {
       return PickFn([](auto& r, auto&, Candidates c, auto, auto& picked) {
         (void)std::chrono::system_clock::now();
         PickAny(r, c, picked);
       });
     },
     "clock", "reads the machine's clock"},
    {"ChangesTotals",
     +[] {
       return PickFn([](auto& r, auto&, Candidates c, std::span<const double> t, auto& picked) {
         if (!t.empty()) const_cast<double&>(t[0]) = 9;
         PickAny(r, c, picked);
       });
     },
     "input", "changes its input: the totals"},
    {"ChangesRequest",
     +[] {
       return PickFn([](auto& r, auto&, Candidates c, auto, auto& picked) {
         r.model = "another";
         PickAny(r, c, picked);
       });
     },
     "input", "changes its input: the request's model"},
    {"Throws",
     +[] {
       return PickFn([](auto&, auto&, auto, auto, auto&) { throw std::runtime_error("no"); });
     },
     "subset", "throws an exception: no"},
    {"Racy",
     +[] {
       auto meeting = std::make_shared<Meeting>();
       return PickFn([meeting](auto& r, auto&, Candidates c, auto, auto& picked) {
         if (meeting->Enter() && !c.empty())
           picked.push_back(c.back());
         else
           PickAny(r, c, picked);
         meeting->Leave();
       });
     },
     "threads", "while other threads call it too"}};

class CheckPickerRefuses : public ::testing::TestWithParam<BadPicker> {};

TEST_P(CheckPickerRefuses, ItAndNamesTheKind) {
  if (!SeenHere(GetParam().property)) GTEST_SKIP() << "clock reads are not seen here";
  const PluginRegistry registry = With<FnPicker>("picker", GetParam().make);
  const testing::Report report = testing::CheckPicker(&registry, "mine");
  EXPECT_THAT(Broken(report), Contains(GetParam().property)) << report.ToText();
  EXPECT_THAT(DetailOf(report, GetParam().property), HasSubstr(GetParam().says));
}
INSTANTIATE_TEST_SUITE_P(Kinds, CheckPickerRefuses, ::testing::ValuesIn(kBadPickers),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace llmd::sched
