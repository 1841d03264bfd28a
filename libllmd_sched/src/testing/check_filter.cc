#include "llmd/sched/filter.h"
#include "testing/clock_reads.h"
#include "testing/inputs.h"
#include "testing/subject.h"

namespace llmd::sched::testing {
namespace {

constexpr int kCalls = 60;

class FilterCheck {
 public:
  explicit FilterCheck(Subject& subject) : subject_(subject) {}

  void Run() {
    subject_.Check("subset", [&] {
      for (const auto& pool : {subject_.Pool(2), subject_.Pool(50), TiedPool(20)}) Subset(pool);
    });
    subject_.Check("size", [&] {
      for (size_t count : {0, 1, 1000}) Subset(subject_.Pool(count));
    });
    subject_.Check("order", [&] { Order(); });
    subject_.Check("unlisted", [&] { Unlisted(); });
    subject_.Check("repeats", [&] { Repeats(); });
    subject_.Check("calls", [&] { Calls(); });
    if (SeesClockReads()) subject_.Check("clock", [&] { ClockReads(); });
    subject_.Check("input", [&] { Input(); });
    subject_.Check("unknown", [&] { Subset(UnknownPool(30)); });
    if (subject_.options().threads > 0) subject_.CheckThreads([&] { Threads(); });
    if (subject_.options().allocations) subject_.Check("allocations", [&] { Allocations(); });
  }

 private:
  using Names = std::vector<std::string>;

  void SubsetOf(PluginUnderTest& plugin, Scene& scene) {
    const std::vector<uint32_t> kept = *plugin.Keep(scene);
    if (const std::string wrong = WrongSubset(scene, scene.all, kept); !wrong.empty())
      subject_.Fail(wrong + ", of " + std::to_string(scene.all.size()) + " endpoints");
    if (!std::is_sorted(kept.begin(), kept.end()))
      subject_.Fail("it changes the order of the candidates that it keeps");
  }
  void Subset(const std::vector<EndpointState>& pool) {
    const auto plugin = subject_.Make();
    SubsetOf(*plugin, *subject_.Stage(*plugin, pool));
    SubsetOf(*plugin, *subject_.StageWithoutFacts(*plugin, pool));
  }
  // Names kept by a plugin built for this call.
  Names Fresh(const std::vector<EndpointState>& pool, const std::vector<uint32_t>& candidates) {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, pool);
    return NamesOf(*scene, *plugin->Keep(*scene, candidates));
  }
  void ExpectSame(const Names& a, const Names& b, const std::string& when) {
    if (a != b) subject_.Fail("it keeps " + Joined(a) + ", and " + Joined(b) + " " + when);
  }
  static std::vector<uint32_t> All(const std::vector<EndpointState>& pool) {
    return Indexes(pool.size());
  }

  void Order() {
    const std::vector<EndpointState> pool = subject_.Pool(40);
    const Names want = Fresh(pool, All(pool));
    ExpectSame(want, Fresh(pool, Shuffled(All(pool))), "with the candidates in another order");
    ExpectSame(want, Fresh(Shuffled(pool), All(pool)), "with the endpoints in another order");
  }
  void Unlisted() {
    const std::vector<EndpointState> pool = subject_.Pool(40);
    const std::vector<uint32_t> even = EvenIndexes(pool.size());
    ExpectSame(Fresh(pool, even), Fresh(WithOtherOddOnes(pool), even),
               "when endpoints that are no candidates change");
  }
  void Repeats() {
    for (const auto& pool : {subject_.Pool(30), UnknownPool(30)})
      ExpectSame(Fresh(pool, All(pool)), Fresh(pool, All(pool)),
                 "from a second object in the same state");
  }
  void Calls() {
    const auto plugin = subject_.Make();
    const std::vector<EndpointState> pool = subject_.Pool(30);
    const auto scene = subject_.Stage(*plugin, pool);
    const Names want = NamesOf(*scene, *plugin->Keep(*scene));
    for (int call = 2; call <= kCalls; ++call) {
      const auto fresh = subject_.Stage(*plugin, pool);
      ExpectSame(want, NamesOf(*fresh, *plugin->Keep(*fresh)),
                 "in call " + std::to_string(call) + " of the same object");
    }
  }
  void ClockReads() {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, subject_.Pool(12));
    const uint64_t before = ClockReadsSoFar();
    (void)plugin->Keep(*scene);
    subject_.ExpectNoClockReads(ClockReadsSoFar() - before);
  }
  void Input() {
    for (const auto& pool : {subject_.Pool(20), UnknownPool(20)}) {
      const auto plugin = subject_.Make();
      const auto scene = subject_.Stage(*plugin, pool);
      const Inputs before(*scene);
      (void)plugin->Keep(*scene);
      if (const std::string what = before.Changed(*scene); !what.empty())
        subject_.Fail("it changes its input: " + what);
    }
  }
  // Against what another object says alone.
  void Threads() {
    const auto plugin = subject_.Make();
    subject_.OnThreads([&](const std::vector<EndpointState>& pool, int calls) {
      const auto alone = subject_.Make();
      const auto scene = subject_.Stage(*plugin, pool);
      const Names want = NamesOf(*scene, *alone->Keep(*subject_.Stage(*alone, pool)));
      for (int i = 0; i < calls; ++i)
        ExpectSame(want, NamesOf(*scene, *plugin->Keep(*scene)), "while other threads call it too");
    });
  }
  void Allocations() {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, subject_.Pool(40));
    auto& filter = dynamic_cast<Filter&>(plugin->plugin());
    std::vector<uint32_t> candidates;
    subject_.WithoutAllocations([&] {
      candidates.assign(scene->all.begin(), scene->all.end());
      filter.Keep(scene->request, scene->snapshot, candidates);
    });
  }

  Subject& subject_;
};

}  // namespace

Report CheckFilter(const PluginRegistry* registry, std::string_view type,
                   const PropertyOptions& options) {
  Subject subject(registry, type, options);
  if (subject.Builds<Filter>("filter")) FilterCheck(subject).Run();
  return subject.Take();
}

}  // namespace llmd::sched::testing
