// Least attained service per program (endpoint-picker.md §7): service = prompt + 2 x completion
// tokens, halved every half-life; score = .8 (1 - service) + .2 head wait, both min-max over the
// flows waiting, equal ones .5. The highest score goes next.
#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>
#include <vector>

#include "llmd/sched/fairness.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

struct Settings {
  double half_life_s = 60, weight_service = 0.8, weight_wait = 0.2;
  Duration ttl = std::chrono::seconds(3600), sweep = std::chrono::seconds(300);
};

double Seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

// 0..1 within [min, max]; .5 when all are equal.
double Normal(double v, double min, double max) {
  return max > min ? (v - min) / (max - min) : 0.5;
}

class ProgramBand final : public FairnessBand {
 public:
  ProgramBand(const Settings& settings, const OrderingPolicy& ordering)
      : s_(settings), ordering_(ordering) {}

  void Add(FlowState& flow) override {
    flow.scratch.position = flows_.size();
    flows_.push_back({&flow, &programs_[flow.id]});
  }
  void Remove(FlowState& flow) override {
    const size_t at = std::exchange(flow.scratch.position, SIZE_MAX);
    flows_[at] = flows_.back();
    flows_[at].flow->scratch.position = at;
    flows_.pop_back();
    flow.scratch.position = SIZE_MAX;
  }
  FlowState& Next(TimePoint now, double*) override {
    double least = INFINITY, most = -INFINITY, shortest = INFINITY, longest = -INFINITY;
    for (Member& m : flows_) {
      m.service = Decayed(*m.program, now);
      m.wait = Seconds(now - m.flow->head->enqueued);
      least = std::min(least, m.service);
      most = std::max(most, m.service);
      shortest = std::min(shortest, m.wait);
      longest = std::max(longest, m.wait);
    }
    const Member* best = nullptr;
    double best_score = 0;
    for (const Member& m : flows_) {
      const double score = s_.weight_service * (1 - Normal(m.service, least, most)) +
                           s_.weight_wait * Normal(m.wait, shortest, longest);
      const bool better =
          best == nullptr || score > best_score ||
          (score == best_score && ordering_.Before(*m.flow->head, *best->flow->head));
      if (better) {
        best = &m;
        best_score = score;
      }
    }
    best->program->used = now;
    return *best->flow;
  }
  void Completed(FlowState& flow, TimePoint now, double, const FlowUsage& usage) override {
    if (now - swept_ >= s_.sweep) Sweep(now);
    if (!usage.known) return;
    Program& program = programs_[flow.id];
    program.service = Decayed(program, now) + usage.prompt_tokens + 2 * usage.output_tokens;
    program.at = program.used = now;
  }

 private:
  struct Program {
    double service = 0;
    TimePoint at{}, used{};
  };
  struct Member {
    FlowState* flow;
    Program* program;
    double service = 0, wait = 0;
  };
  double Decayed(const Program& p, TimePoint now) const {
    return p.service * std::exp2(-Seconds(now - p.at) / s_.half_life_s);
  }
  // Forgets programs that were not used for the TTL; those waiting stay.
  void Sweep(TimePoint now) {
    swept_ = now;
    for (Member& m : flows_) m.program->used = now;
    std::erase_if(programs_, [&](const auto& p) { return now - p.second.used >= s_.ttl; });
  }

  const Settings& s_;
  const OrderingPolicy& ordering_;
  std::vector<Member> flows_;
  std::unordered_map<std::string, Program> programs_;  // references stay valid
  TimePoint swept_{};
};

class ProgramAware final : public FairnessPolicy {
 public:
  explicit ProgramAware(Settings settings) : s_(settings) {}
  std::unique_ptr<FairnessBand> MakeBand(const OrderingPolicy& ordering) const override {
    return std::make_unique<ProgramBand>(s_, ordering);
  }
  bool wants_usage() const override { return true; }

 private:
  const Settings s_;
};

}  // namespace

Status RegisterProgramAwareFairness(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "program-aware-fairness",
       .kind = "fairness policy",
       .help = "The program (fairness id) with the least attained service first, waiting counted "
               "in; looks at every waiting flow for each choice.",
       .params = {{"lasHalfLifeSeconds", "60", "time in which attained service halves"},
                  {"lasWeightService", "0.8", "weight of little service"},
                  {"lasWeightHeadWait", "0.2", "weight of the head's wait"},
                  {"evictionTtlSeconds", "3600", "programs unused for so long are forgotten"},
                  {"evictionSweepSeconds", "300", "how often that is looked at"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         Settings s;
         s.half_life_s = params.Double("lasHalfLifeSeconds", 60, 1e-3, 1e9);
         s.weight_service = params.Double("lasWeightService", 0.8, 0, 1e6);
         s.weight_wait = params.Double("lasWeightHeadWait", 0.2, 0, 1e6);
         if (s.weight_service + s.weight_wait <= 0)
           params.Fail("lasWeightService", "expected a weight above 0, of service or head wait");
         s.ttl = std::chrono::seconds(params.Int("evictionTtlSeconds", 3600, 1, INT32_MAX));
         s.sweep = std::chrono::seconds(params.Int("evictionSweepSeconds", 300, 1, INT32_MAX));
         return Done(params, std::make_unique<ProgramAware>(s));
       }});
}

}  // namespace llmd::sched
