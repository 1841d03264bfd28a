#include <bit>
#include <cmath>
#include <limits>
#include <map>

#include "llmd/sched/scorer.h"
#include "testing/clock_reads.h"
#include "testing/inputs.h"
#include "testing/subject.h"

namespace llmd::sched::testing {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
// Places before and behind the scores that a scorer must leave alone; at least the whole pool, for
// those that write by snapshot index.
constexpr size_t kGuard = 64;
constexpr double kGuardValue = -7777.25;
constexpr int kCalls = 60;

// What scores come in as: a NaN that no arithmetic makes, so that one left alone is told from one
// computed.
double Unwritten() {
  return std::bit_cast<double>(uint64_t{0x7ff8'00ab'cdef'0123});
}
bool IsUnwritten(double v) {
  return std::bit_cast<uint64_t>(v) == std::bit_cast<uint64_t>(Unwritten());
}

struct Scored {
  std::vector<double> scores;  // by candidate
  bool overrun = false;        // wrote outside of them
};

Scored CallGuarded(PluginUnderTest& plugin, Scene& scene, std::span<const uint32_t> candidates) {
  const size_t guard = kGuard + scene.snapshot.size();
  std::vector<double> room(candidates.size() + 2 * guard, kGuardValue);
  const std::span<double> scores(room.data() + guard, candidates.size());
  std::fill(scores.begin(), scores.end(), Unwritten());
  dynamic_cast<Scorer&>(plugin.plugin()).Score(scene.request, scene.snapshot, candidates, scores);
  Scored out{{scores.begin(), scores.end()}};
  for (size_t i = 0; i < guard; ++i)
    out.overrun |= room[i] != kGuardValue || room[room.size() - 1 - i] != kGuardValue;
  return out;
}

class ScorerCheck {
 public:
  explicit ScorerCheck(Subject& subject) : subject_(subject) {}

  void Run() {
    subject_.Check("length", [&] { Length(); });
    subject_.Check("nan", [&] {
      for (const auto& pool : {subject_.Pool(2), subject_.Pool(50), TiedPool(20)}) NoNan(pool);
    });
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
    subject_.Check("calls", [&] { Calls(); });
    if (SeesClockReads()) subject_.Check("clock", [&] { ClockReads(); });
    subject_.Check("input", [&] { Input(); });
    subject_.Check("unknown", [&] { Unknown(); });
    if (subject_.options().threads > 0) subject_.CheckThreads([&] { Threads(); });
    if (subject_.options().allocations) subject_.Check("allocations", [&] { Allocations(); });
  }

 private:
  using ByName = std::map<std::string, double>;

  static std::vector<double> Score(PluginUnderTest& plugin, Scene& scene) {
    return CallGuarded(plugin, scene, scene.all).scores;
  }

  void Length() {
    for (const size_t count : {1, 2, 50}) {
      const std::vector<EndpointState> pool = subject_.Pool(count);
      LengthOf(pool, Indexes(count));
      LengthOf(pool, EvenIndexes(count));
    }
  }
  void LengthOf(const std::vector<EndpointState>& pool, std::vector<uint32_t> candidates) {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, pool);
    const std::string of = std::to_string(candidates.size()) + " scores";
    const Scored forth = CallGuarded(*plugin, *scene, candidates);
    if (forth.overrun) return subject_.Fail("it writes outside of its " + of);
    const std::vector<uint32_t> there = candidates;
    std::reverse(candidates.begin(), candidates.end());
    const Scored back = CallGuarded(*subject_.Make(), *scene, candidates);
    for (size_t i = 0; i < there.size(); ++i) {
      const size_t j = there.size() - 1 - i;
      if (IsUnwritten(forth.scores[i]) == IsUnwritten(back.scores[j])) continue;
      const size_t left = IsUnwritten(forth.scores[i]) ? i : j;
      subject_.Fail("it leaves out score " + std::to_string(left) + " of its " + of + ", of '" +
                    scene->snapshot.info(there[i]).name + "', which it scores at another place");
    }
  }

  // Of endpoints whose gauges are known.
  void NoNan(const std::vector<EndpointState>& pool) {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, pool);
    NoNanOf(*scene, Score(*plugin, *scene));
    const auto bare = subject_.StageWithoutFacts(*plugin, pool);
    NoNanOf(*bare, Score(*plugin, *bare));
  }
  void NoNanOf(const Scene& scene, const std::vector<double>& scores) {
    for (size_t i = 0; i < scores.size(); ++i) {
      if (!std::isnan(scores[i]) || IsUnwritten(scores[i])) continue;
      subject_.Fail("'" + scene.snapshot.info(i).name + "' of " + std::to_string(scores.size()) +
                    " endpoints has score NaN although its gauges are known; leave a score "
                    "untouched that you do not know");
    }
  }

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
    RangeOf(*scene, Score(*plugin, *scene));
    const auto bare = subject_.StageWithoutFacts(*plugin, pool);
    RangeOf(*bare, Score(*plugin, *bare));
  }

  // Scores by a plugin built for this call.
  ByName Fresh(const std::vector<EndpointState>& pool, const std::vector<uint32_t>& candidates) {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, pool);
    const std::vector<double> scores = CallGuarded(*plugin, *scene, candidates).scores;
    ByName out;
    for (size_t i = 0; i < scores.size(); ++i)
      out[scene->snapshot.info(candidates[i]).name] = scores[i];
    return out;
  }
  bool Same(double a, double b) const {
    return std::isnan(a) ? std::isnan(b) : std::abs(a - b) <= subject_.options().tolerance;
  }
  void ExpectSame(const ByName& a, const ByName& b, const std::string& when) {
    for (const auto& [name, score] : a) {
      const double other = b.at(name);
      if (Same(score, other)) continue;
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
  void ExpectSame(const Scene& scene, const std::vector<double>& want,
                  const std::vector<double>& got, const std::string& when) {
    for (size_t i = 0; i < want.size(); ++i) {
      if (Same(want[i], got[i])) continue;
      subject_.Fail("'" + scene.snapshot.info(i).name + "' has score " + std::to_string(want[i]) +
                    ", and " + std::to_string(got[i]) + " " + when);
    }
  }
  void Calls() {
    const auto plugin = subject_.Make();
    const std::vector<EndpointState> pool = subject_.Pool(12);
    const auto scene = subject_.Stage(*plugin, pool);
    const std::vector<double> want = Score(*plugin, *scene);
    for (int call = 2; call <= kCalls; ++call) {
      const std::string when = "in call " + std::to_string(call) + " of the same object";
      ExpectSame(*scene, want, Score(*plugin, *scene), when);
      ExpectSame(*scene, want, Score(*plugin, *subject_.Stage(*plugin, pool)), when);
    }
  }
  void ClockReads() {
    const auto plugin = subject_.Make();
    const auto scene = subject_.Stage(*plugin, subject_.Pool(12));
    const uint64_t before = ClockReadsSoFar();
    (void)Score(*plugin, *scene);
    subject_.ExpectNoClockReads(ClockReadsSoFar() - before);
  }
  void Input() {
    for (const auto& pool : {subject_.Pool(20), UnknownPool(20)}) {
      const auto plugin = subject_.Make();
      const auto scene = subject_.Stage(*plugin, pool);
      std::vector<uint32_t> candidates = EvenIndexes(pool.size());
      const std::vector<uint32_t> given = candidates;
      const Inputs before(*scene);
      (void)CallGuarded(*plugin, *scene, candidates);
      if (candidates != given) subject_.Fail("it changes its input: the candidates");
      if (const std::string what = before.Changed(*scene); !what.empty())
        subject_.Fail("it changes its input: " + what);
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
  // Against what another object says alone.
  void Threads() {
    const auto plugin = subject_.Make();
    subject_.OnThreads([&](const std::vector<EndpointState>& pool, int calls) {
      const auto alone = subject_.Make();
      const auto scene = subject_.Stage(*plugin, pool);
      const std::vector<double> want = Score(*alone, *subject_.Stage(*alone, pool));
      for (int i = 0; i < calls; ++i)
        ExpectSame(*scene, want, Score(*plugin, *scene), "while other threads call it too");
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
