#include <cmath>
#include <limits>
#include <map>

#include "llmd/sched/scorer.h"
#include "testing/subject.h"

namespace llmd::sched::testing {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class ScorerCheck {
 public:
  explicit ScorerCheck(Subject& subject) : subject_(subject) {}

  void Run() {
    subject_.Check("range", [&] {
      for (const auto& pool : {subject_.Pool(2), subject_.Pool(50), TiedPool(20), UnknownPool(30)})
        InRange(pool);
    });
    subject_.Check("size", [&] {
      for (size_t count : {0, 1, 1000}) InRange(subject_.Pool(count));
    });
    subject_.Check("order", [&] { Order(); });
    subject_.Check("unlisted", [&] { Unlisted(); });
    subject_.Check("repeats", [&] { Repeats(); });
    subject_.Check("unknown", [&] { Unknown(); });
    if (subject_.options().threads > 0) subject_.Check("threads", [&] { Threads(); });
    if (subject_.options().allocations) subject_.Check("allocations", [&] { Allocations(); });
  }

 private:
  using ByName = std::map<std::string, double>;

  void RangeOf(const Scene& scene, const std::vector<double>& scores) {
    for (size_t i = 0; i < scores.size(); ++i) {
      if (std::isnan(scores[i]) || (scores[i] >= 0 && scores[i] <= 1)) continue;
      subject_.Fail("'" + scene.snapshot.info(i).name + "' of " + std::to_string(scores.size()) +
                    " endpoints has score " + std::to_string(scores[i]) +
                    ", expected 0 to 1, or NaN for not scored");
    }
  }
  void InRange(const std::vector<EndpointState>& pool) {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, pool);
    RangeOf(*scene, *plugin->Score(*scene));
    const auto bare = subject_.StageWithoutFacts(*plugin, pool);
    RangeOf(*bare, *plugin->Score(*bare));
  }

  // Scores by a plugin built for this call.
  ByName Fresh(const std::vector<EndpointState>& pool, const std::vector<uint32_t>& candidates) {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, pool);
    const std::vector<double> scores = *plugin->Score(*scene, candidates);
    ByName out;
    for (size_t i = 0; i < scores.size(); ++i)
      out[scene->snapshot.info(candidates[i]).name] = scores[i];
    return out;
  }
  void ExpectSame(const ByName& a, const ByName& b, const std::string& when) {
    for (const auto& [name, score] : a) {
      const double other = b.at(name);
      if (std::isnan(score) ? std::isnan(other)
                            : std::abs(score - other) <= subject_.options().tolerance)
        continue;
      subject_.Fail("'" + name + "' has score " + std::to_string(score) + ", and " +
                    std::to_string(other) + " " + when);
    }
  }

  void Order() {
    const std::vector<EndpointState> pool = subject_.Pool(40);
    const std::vector<uint32_t> all = Indexes(pool.size());
    const ByName want = Fresh(pool, all);
    ExpectSame(want, Fresh(pool, Shuffled(all)), "with the candidates in another order");
    ExpectSame(want, Fresh(Shuffled(pool), all), "with the endpoints in another order");
  }
  void Unlisted() {
    const std::vector<EndpointState> pool = subject_.Pool(40);
    const std::vector<uint32_t> even = EvenIndexes(pool.size());
    ExpectSame(Fresh(pool, even), Fresh(WithOtherOddOnes(pool), even),
               "when endpoints that are no candidates change");
  }
  void Repeats() {
    for (const auto& pool : {subject_.Pool(30), UnknownPool(30)}) {
      const std::vector<uint32_t> all = Indexes(pool.size());
      ExpectSame(Fresh(pool, all), Fresh(pool, all), "from a second object in the same state");
    }
  }
  void Unknown() {
    std::vector<EndpointState> pool = subject_.Pool(30);
    const std::vector<uint32_t> all = Indexes(pool.size());
    const ByName known = Fresh(pool, all);
    for (size_t i = 0; i < pool.size(); i += 2)
      pool[i].metrics.waiting = pool[i].metrics.running = pool[i].metrics.kv_usage = kNan;
    const ByName mixed = Fresh(pool, all);
    for (size_t i = 1; i < pool.size(); i += 2) {
      const std::string& name = pool[i].info.name;
      if (std::isnan(mixed.at(name)) && !std::isnan(known.at(name)))
        subject_.Fail("'" + name + "' loses its score when the gauges of others are unknown");
    }
  }
  void Threads() {
    const auto plugin = subject_.Make();
    subject_.OnThreads([&](const std::vector<EndpointState>& pool, int calls) {
      const auto scene = subject_.Stage(*plugin, pool);
      for (int i = 0; i < calls; ++i) RangeOf(*scene, *plugin->Score(*scene));
    });
  }
  void Allocations() {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, subject_.Pool(40));
    auto& scorer = dynamic_cast<Scorer&>(plugin->plugin());
    std::vector<double> scores(scene->all.size());
    subject_.WithoutAllocations([&] {
      std::fill(scores.begin(), scores.end(), kNan);
      scorer.Score(scene->request, scene->snapshot, scene->all, scores);
    });
  }

  Subject& subject_;
};

}  // namespace

Report CheckScorer(const PluginRegistry* registry, std::string_view type,
                   const PropertyOptions& options) {
  Subject subject(registry, type, options);
  if (subject.Builds<Scorer>("scorer")) ScorerCheck(subject).Run();
  return subject.Take();
}

}  // namespace llmd::sched::testing
