#include "llmd/sched/picker.h"
#include "testing/clock_reads.h"
#include "testing/inputs.h"
#include "testing/subject.h"

namespace llmd::sched::testing {
namespace {

constexpr int kCalls = 60;

class PickerCheck {
 public:
  explicit PickerCheck(Subject& subject) : subject_(subject) {}

  void Run() {
    subject_.Check("subset", [&] {
      for (const auto& pool : {subject_.Pool(2), subject_.Pool(50), UnknownPool(30)}) Subset(pool);
    });
    subject_.Check("size", [&] {
      for (size_t count : {0, 1, 1000}) Subset(subject_.Pool(count));
    });
    subject_.Check("repeats", [&] { Repeats(); });
    subject_.Check("calls", [&] { Calls(); });
    if (SeesClockReads()) subject_.Check("clock", [&] { ClockReads(); });
    subject_.Check("input", [&] { Input(); });
    subject_.Check("ties", [&] { Ties(); });
    if (subject_.options().threads > 0) subject_.CheckThreads([&] { Threads(); });
    if (subject_.options().allocations) subject_.Check("allocations", [&] { Allocations(); });
  }

 private:
  // Varied, with ties and zeros among them.
  static std::vector<double> TotalsFor(const Scene& scene) {
    std::vector<double> out;
    out.reserve(scene.all.size());
    for (size_t i = 0; i < scene.all.size(); ++i) out.push_back(static_cast<double>(i * 7 % 5) / 2);
    return out;
  }
  void SubsetOf(PluginUnderTest& plugin, Scene& scene) {
    const Picks picks = *plugin.Pick(scene, TotalsFor(scene));
    const std::string of = ", of " + std::to_string(scene.all.size()) + " candidates";
    if (const std::string wrong = WrongSubset(scene, scene.all, picks.picked); !wrong.empty())
      subject_.Fail(wrong + of);
    if (picks.picked.empty() && !scene.all.empty()) subject_.Fail("it picks nothing" + of);
  }
  void Subset(const std::vector<EndpointState>& pool) {
    const auto plugin = subject_.Make();
    SubsetOf(*plugin, *subject_.Stage(*plugin, pool));
  }
  // What a plugin built for this call picks with that seed.
  std::vector<uint32_t> Fresh(const std::vector<EndpointState>& pool, uint64_t seed,
                              const std::vector<double>& totals) {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, pool, seed);
    return (*plugin->Pick(*scene, totals)).picked;
  }
  void Repeats() {
    const std::vector<EndpointState> pool = subject_.Pool(20);
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      const std::vector<double> totals(pool.size(), 1);
      if (Fresh(pool, seed, totals) != Fresh(pool, seed, totals))
        subject_.Fail("seed " + std::to_string(seed) + " gives two different picks");
    }
  }
  void Ties() {
    const std::vector<EndpointState> pool = TiedPool(4);
    std::vector<int> seen(pool.size());
    for (uint64_t seed = 1; seed <= 64; ++seed) {
      const std::vector<uint32_t> picked = Fresh(pool, seed * 0x9e3779b97f4a7c15, {1, 1, 1, 1});
      if (!picked.empty()) ++seen[picked[0]];
    }
    for (size_t i = 0; i < seen.size(); ++i) {
      if (seen[i] == 0)
        subject_.Fail("'" + pool[i].info.name +
                      "', one of four equals, is never first in 64 draws");
    }
  }
  std::vector<uint32_t> PickOf(PluginUnderTest& plugin, const std::vector<EndpointState>& pool,
                               uint64_t seed) {
    const auto scene = subject_.Stage(plugin, pool, seed);
    return (*plugin.Pick(*scene, TotalsFor(*scene))).picked;
  }
  void Calls() {
    const auto plugin = subject_.Make();
    const std::vector<EndpointState> pool = TiedPool(20);
    const std::vector<uint32_t> want = PickOf(*plugin, pool, 5);
    for (int call = 2; call <= kCalls; ++call) {
      if (PickOf(*plugin, pool, 5) != want)
        subject_.Fail("call " + std::to_string(call) +
                      " of the same object picks others than the first, with the same seed");
    }
  }
  void ClockReads() {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, subject_.Pool(12));
    const std::vector<double> totals = TotalsFor(*scene);
    const uint64_t before = ClockReadsSoFar();
    (void)plugin->Pick(*scene, totals);
    subject_.ExpectNoClockReads(ClockReadsSoFar() - before);
  }
  void Input() {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, subject_.Pool(20));
    std::vector<double> totals = TotalsFor(*scene);
    std::vector<uint32_t> candidates = scene->all, picked;
    const std::vector<double> given = totals;
    const Inputs before(*scene);
    dynamic_cast<Picker&>(plugin->plugin())
        .Pick(scene->request, scene->snapshot, candidates, totals, picked);
    if (candidates != scene->all) subject_.Fail("it changes its input: the candidates");
    if (totals != given) subject_.Fail("it changes its input: the totals");
    if (const std::string what = before.Changed(*scene); !what.empty())
      subject_.Fail("it changes its input: " + what);
  }
  // Against what another object picks alone, by the same seeds.
  void Threads() {
    const auto plugin = subject_.Make();
    subject_.OnThreads([&](const std::vector<EndpointState>& pool, int calls) {
      const auto alone = subject_.Make();
      const std::vector<uint32_t> want = PickOf(*alone, pool, 5);
      for (int i = 0; i < calls; ++i) {
        if (PickOf(*plugin, pool, 5) != want)
          subject_.Fail("it picks others while other threads call it too");
      }
    });
  }
  void Allocations() {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, subject_.Pool(40));
    auto& picker = dynamic_cast<Picker&>(plugin->plugin());
    const std::vector<double> totals = TotalsFor(*scene);
    std::vector<uint32_t> picked;
    subject_.WithoutAllocations([&] {
      picked.clear();
      picker.Pick(scene->request, scene->snapshot, scene->all, totals, picked);
    });
  }

  Subject& subject_;
};

}  // namespace

Report CheckPicker(const PluginRegistry* registry, std::string_view type,
                   const PropertyOptions& options) {
  Subject subject(registry, type, options);
  if (subject.Builds<Picker>("picker")) PickerCheck(subject).Run();
  return subject.Take();
}

}  // namespace llmd::sched::testing
