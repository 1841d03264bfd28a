// Least attained service (docs/reference/flow-control.md): prompt + 2 x completion tokens,
// halved every half-life; score = .8 (1 - service) + .2 head wait, both min-max over the flows
// waiting, equal ones .5. The highest score goes next.
#include <algorithm>
#include <cmath>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "llmd/sched/fairness.h"
#include "math/repeatable.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

struct Settings {
  double half_life_s = 0, weight_service = 0, weight_wait = 0;
  Duration ttl{}, sweep{};
};

double Seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

// 0..1 within [min, max]; .5 when all are equal.
double Normal(double v, double min, double max) {
  return max > min ? (v - min) / (max - min) : 0.5;
}

// What the page shows of programs, all bands together. Thread-safe. Of program ids, which clients
// choose, the first 1,000 in use are kept apart, the rest shares "other".
class ProgramSeries {
 public:
  ProgramSeries(const Settings& settings, PluginArgs& args)
      : s_(settings),
        clock_(*args.env.clock),
        labels_({{"plugin_name", args.name}, {"plugin_type", args.type}}) {
    const auto add = [&](const char* name, const char* help, auto emit) {
      collectors_.push_back(args.env.metrics->AddGaugeCollector(
          "llm_d_epp_program_aware_" + std::string(name), help, [this, emit](const auto& out) {
            const std::lock_guard lock(mutex_);
            (this->*emit)(out);
          }));
    };
    add("jains_fairness_index", "Jain's index over the programs' mean waits; 1 = all wait alike",
        &ProgramSeries::EmitIndex);
    add("avg_wait_time_milliseconds", "Mean time in the queue of a program's requests",
        &ProgramSeries::EmitWaits);
    add("attained_service_tokens", "Tokens a program was served, older ones count less",
        &ProgramSeries::EmitService);
  }
  void Waited(const std::string& id, double seconds, TimePoint now) {
    const std::lock_guard lock(mutex_);
    Row& row = RowOf(id);
    row.waited_ms += seconds * 1e3;
    ++row.waits;
    row.used = now;
  }
  void Served(const std::string& id, double tokens, TimePoint now) {
    const std::lock_guard lock(mutex_);
    Row& row = RowOf(id);
    row.service = Decayed(row, now) + tokens;
    row.at = row.used = now;
  }
  void Sweep(TimePoint now) {
    const std::lock_guard lock(mutex_);
    std::erase_if(rows_, [&](const auto& r) { return now - r.second.used >= s_.ttl; });
  }

 private:
  static constexpr size_t kMaxPrograms = 1000;
  struct Row {
    double waited_ms = 0, service = 0;
    int64_t waits = 0;
    TimePoint at{}, used{};
    double mean() const { return waits > 0 ? waited_ms / static_cast<double>(waits) : 0; }
  };
  Row& RowOf(const std::string& id) {
    const auto it = rows_.find(id);
    if (it != rows_.end()) return it->second;
    return rows_[rows_.size() < kMaxPrograms ? id : "other"];
  }
  double Decayed(const Row& row, TimePoint now) const {
    return row.service * RepeatableExp2(-Seconds(now - row.at) / s_.half_life_s);
  }
  Labels LabelsOf(const std::string& id) const {
    Labels out = labels_;
    out.emplace_back("program_id", id);
    return out;
  }
  void EmitIndex(const MetricsRegistry::GaugeEmit& emit) {
    double sum = 0, squares = 0, n = 0;
    for (const auto& [id, row] : rows_) {
      if (row.waits == 0) continue;
      sum += row.mean();
      squares += row.mean() * row.mean();
      ++n;
    }
    emit(labels_, squares > 0 ? sum * sum / (n * squares) : 1);
  }
  void EmitWaits(const MetricsRegistry::GaugeEmit& emit) {
    for (const auto& [id, row] : rows_) {
      if (row.waits > 0) emit(LabelsOf(id), row.mean());
    }
  }
  void EmitService(const MetricsRegistry::GaugeEmit& emit) {
    const TimePoint now = clock_.Now();
    for (const auto& [id, row] : rows_) emit(LabelsOf(id), Decayed(row, now));
  }

  const Settings s_;
  const Clock& clock_;
  const Labels labels_;
  std::mutex mutex_;
  std::map<std::string, Row> rows_;                      // guarded by mutex_
  std::vector<std::shared_ptr<const void>> collectors_;  // end before what they read
};

class ProgramBand final : public FairnessBand {
 public:
  ProgramBand(const Settings& settings, const OrderingPolicy& ordering, ProgramSeries& series)
      : s_(settings), ordering_(ordering), series_(series) {}

  void Add(FlowState& flow) noexcept override {
    flow.scratch.position = flows_.size();
    Program& program = Of(flow.id);
    idle_.erase(program.idle);
    program.idle = idle_.end();
    flows_.push_back({&flow, &program});
  }
  void Remove(FlowState& flow) noexcept override {
    const size_t at = std::exchange(flow.scratch.position, SIZE_MAX);
    Program& program = *flows_[at].program;
    program.idle = idle_.insert(idle_.end(), &program);
    flows_[at] = flows_.back();
    flows_[at].flow->scratch.position = at;
    flows_.pop_back();
    flow.scratch.position = SIZE_MAX;
  }
  FlowState& Next(TimePoint now, FlowCharge*) noexcept override {
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
    series_.Waited(best->flow->id, best->wait, now);
    return *best->flow;
  }
  void Completed(FlowState& flow, const QueuedItem&, TimePoint now, const FlowCharge&,
                 const FlowUsage& usage) noexcept override {
    if (now - swept_ >= s_.sweep) Sweep(now);
    if (!usage.known) return;
    Program& program = Of(flow.id);
    if (program.idle != idle_.end()) idle_.splice(idle_.end(), idle_, program.idle);
    const double tokens = usage.prompt_tokens + 2 * usage.output_tokens;
    series_.Served(flow.id, tokens, now);
    program.service = Decayed(program, now) + tokens;
    program.at = program.used = now;
  }

 private:
  // Ids are the clients' to choose. More than flows wait in a band.
  static constexpr size_t kMaxPrograms = 8192;
  struct Program {
    double service = 0;
    TimePoint at{}, used{};
    const std::string* id = nullptr;       // its key
    std::list<Program*>::iterator idle{};  // its place in idle_, the end while its flow waits
  };
  struct Member {
    FlowState* flow;
    Program* program;
    double service = 0, wait = 0;
  };
  double Decayed(const Program& p, TimePoint now) const {
    return p.service * RepeatableExp2(-Seconds(now - p.at) / s_.half_life_s);
  }
  // A new one is idle; where there are too many it takes the place of the one longest so.
  Program& Of(const std::string& id) {
    if (const auto known = programs_.find(id); known != programs_.end()) return known->second;
    if (programs_.size() >= kMaxPrograms && !idle_.empty()) {
      const std::string gone = *idle_.front()->id;
      idle_.pop_front();
      programs_.erase(gone);
    }
    const auto at = programs_.try_emplace(id).first;
    at->second.id = &at->first;
    at->second.idle = idle_.insert(idle_.end(), &at->second);
    return at->second;
  }
  // Forgets programs that were not used for the TTL; those waiting stay.
  void Sweep(TimePoint now) {
    swept_ = now;
    series_.Sweep(now);
    for (Member& m : flows_) m.program->used = now;
    std::erase_if(programs_, [&](const auto& p) {
      if (now - p.second.used < s_.ttl) return false;
      idle_.erase(p.second.idle);  // those that wait were used just now
      return true;
    });
  }

  const Settings& s_;
  const OrderingPolicy& ordering_;
  ProgramSeries& series_;  // of the policy, which outlives its bands
  std::vector<Member> flows_;
  std::unordered_map<std::string, Program> programs_;  // references stay valid
  std::list<Program*> idle_;                           // whose flow does not wait, by last use
  TimePoint swept_{};
};

class ProgramAware final : public FairnessPolicy {
 public:
  ProgramAware(Settings settings, PluginArgs& args) : s_(settings), series_(s_, args) {}
  std::unique_ptr<FairnessBand> MakeBand(const OrderingPolicy& ordering) const noexcept override {
    return std::make_unique<ProgramBand>(s_, ordering, series_);
  }
  bool wants_usage() const override { return true; }

 private:
  const Settings s_;
  mutable ProgramSeries series_;
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
         return Done(params, std::make_unique<ProgramAware>(s, args));
       }});
}

}  // namespace llmd::sched
