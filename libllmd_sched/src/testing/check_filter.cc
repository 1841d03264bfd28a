#include "llmd/sched/filter.h"
#include "testing/subject.h"

namespace llmd::sched::testing {
namespace {

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
    subject_.Check("unknown", [&] { Subset(UnknownPool(30)); });
    if (subject_.options().threads > 0) subject_.Check("threads", [&] { Threads(); });
    if (subject_.options().allocations) subject_.Check("allocations", [&] { Allocations(); });
  }

 private:
  using Names = std::vector<std::string>;

  void SubsetOf(PluginUnderTest& plugin, Scene& scene) {
    const std::vector<uint32_t> kept = *plugin.Keep(scene);
    if (const std::string wrong = WrongSubset(scene, scene.all, kept); !wrong.empty())
      subject_.Fail(wrong + ", of " + std::to_string(scene.all.size()) + " endpoints");
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
  void Threads() {
    const auto plugin = subject_.Make();
    subject_.OnThreads([&](const std::vector<EndpointState>& pool, int calls) {
      const auto scene = subject_.Stage(*plugin, pool);
      for (int i = 0; i < calls; ++i) SubsetOf(*plugin, *scene);
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
