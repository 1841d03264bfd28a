#include "pass/scheduling_pass.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "llmd/tracing.h"
#include "pass/plugin_guard.h"
#include "pass/stopwatch.h"
#include "trace/schedule_log.h"

namespace llmd::sched {
namespace {

// NaN gives 0.
double Clamp(double score) {
  const double above = 0.0 < score ? score : 0.0;
  return above < 1.0 ? above : 1.0;
}

// Without a branch in its loop, so that several are done at once.
void AddWeighted(std::span<double> totals, std::span<const double> raw, double weight) {
  double* __restrict const out = totals.data();
  const double* __restrict const in = raw.data();
  for (size_t i = 0; i < totals.size(); ++i) out[i] += weight * Clamp(in[i]);
}

void DescribeScores(const WeightedScorer& scorer, std::span<const double> raw, ScopedSpan& span) {
  double best = 0, sum = 0;
  for (const double score : raw) {
    best = std::max(best, Clamp(score));
    sum += Clamp(score);
  }
  span.Add("llm_d.epp.scorer.name", scorer.plugin->name());
  span.Add("llm_d.epp.scorer.weight", scorer.weight);
  span.Add("llm_d.epp.score.max", best);
  span.Add("llm_d.epp.score.mean", sum / static_cast<double>(raw.size()));
}

}  // namespace

void ForgetProduced(const Plugin& producer, const Graph& graph, RequestContext& request) {
  for (size_t key = 0; key < graph.data_keys.size() && key < request.attributes.size(); ++key) {
    if (graph.data_keys[key].second == producer.name()) request.attributes[key].Clear();
  }
}

bool RunProducer(Producer& producer, const Graph& graph, RequestContext& request,
                 const Snapshot& snapshot, Status& failed) {
  Status said;
  if (Guarded(
          producer, [&] { said = producer.Produce(request, snapshot); },
          [&](Status s) { failed = std::move(s); })) {
    schedule_log::ProducerFailed(request, producer, said);
    return true;
  }
  ForgetProduced(producer, graph, request);
  return false;
}

void SchedulingPass::Produce() {
  Stopwatch watch(*graph_.clock);
  for (const TimedProducer& producer : graph_.producers) {
    Status failed;
    if (!RunProducer(*producer.plugin, graph_, request_, snapshot_, failed))
      NoteFailure(*producer.plugin, std::move(failed));
    watch.Lap(producer.duration);
  }
}

void SchedulingPass::Schedule(ScheduleOutcome& outcome) {
  outcome.Clear();
  // One profile alone leaves nothing to choose between.
  const bool stages = graph_.profiles.size() > 1;
  const ScopedSpan span(stages ? request_.spans : nullptr, "pick_disagg_profile");
  if (!Succeeds(*graph_.handler, [&] { graph_.handler->Schedule(request_, *this, outcome); }))
    outcome.Clear();
  record_.decision_type = outcome.decision_type;
  record_.primary = outcome.primary.empty() ? -1 : static_cast<int>(outcome.primary[0]);
}

int SchedulingPass::Find(std::string_view profile) const {
  for (size_t i = 0; i < graph_.profiles.size(); ++i) {
    if (graph_.profiles[i].name == profile) return static_cast<int>(i);
  }
  return -1;
}

ProfileRecord& SchedulingPass::NextRecord(int profile) {
  // Room for every profile twice; a handler may run more.
  if (record_.profile_count == 0) record_.profiles.reserve(graph_.profiles.size() * 2);
  if (record_.profiles.size() == record_.profile_count) {
    if (record_.profiles.size() == record_.profiles.capacity()) Grow();
    record_.profiles.emplace_back();
  }
  ProfileRecord& out = record_.profiles[record_.profile_count++];
  out.profile = profile;
  out.kept.clear();
  out.kept_ends.clear();
  out.candidates = request_.eligible;
  out.raw.clear();
  out.totals.clear();
  out.picked.clear();
  out.tied = 0;
  out.saturated = false;
  return out;
}

// What Run handed out stays where it is.
void SchedulingPass::Grow() {
  std::vector<ProfileRecord> grown;
  grown.reserve(record_.profiles.capacity() * 2);
  grown.assign(record_.profiles.begin(), record_.profiles.end());
  outgrown_.push_back(std::exchange(record_.profiles, std::move(grown)));
}

const std::vector<uint32_t>& SchedulingPass::Run(int profile) {
  const Profile& p = graph_.profiles[profile];
  ScopedSpan span(request_.spans, "run_scheduler_profile");
  if (request_.spans) span.Add("llm_d.epp.profile", p.name);
  ProfileRecord& record = NextRecord(profile);
  schedule_log::LineWithPods(request_, "Scheduling a request", snapshot_, request_.eligible);
  RunFilters(p, record);
  if (!record.candidates.empty()) {
    RunScorers(p, record);
    RunPicker(p, record);
  } else if (record.saturated) {
    saturated_ = true;
  }
  return record.picked;
}

void SchedulingPass::NoteFailure(const Plugin& plugin, Status status) {
  if (!failure_.ok()) return;
  failure_ = std::move(status);
  failed_ = &plugin;
}

template <typename Call>
bool SchedulingPass::Succeeds(const Plugin& plugin, const Call& call) {
  return Guarded(plugin, call, [&](Status s) { NoteFailure(plugin, std::move(s)); });
}

void SchedulingPass::RunFilters(const Profile& profile, ProfileRecord& record) {
  schedule_log::LineWithPods(request_, "Before running filter plugins", snapshot_,
                             record.candidates);
  ScopedSpan span(request_.spans, "filter_endpoints");
  Stopwatch watch(*graph_.clock);
  for (const Timed<Filter>& filter : profile.filters) {
    schedule_log::LineWith(request_, "Running filter plugin", "plugin", *filter.plugin);
    if (!Succeeds(*filter.plugin,
                  [&] { filter.plugin->Keep(request_, snapshot_, record.candidates); }))
      record.candidates.clear();
    watch.Lap(filter.duration);
    record.kept.insert(record.kept.end(), record.candidates.begin(), record.candidates.end());
    record.kept_ends.push_back(static_cast<uint32_t>(record.kept.size()));
    schedule_log::FilterResult(request_, *filter.plugin, snapshot_, record.candidates);
    if (record.candidates.empty()) {
      record.saturated = filter.plugin->drops_saturated();
      break;
    }
  }
  if (request_.spans)
    span.Add("llm_d.epp.candidates", static_cast<int64_t>(record.candidates.size()));
  schedule_log::Line(request_, "After running filter plugins");
}

void SchedulingPass::RunScorers(const Profile& profile, ProfileRecord& record) {
  schedule_log::LineWithPods(request_, "Before running scorer plugins", snapshot_,
                             record.candidates);
  const ScopedSpan scoring(request_.spans, "llm_d.epp.scoring");
  const size_t n = record.candidates.size();
  record.totals.assign(n, 0.0);
  record.raw.assign(n * profile.scorers.size(), std::numeric_limits<double>::quiet_NaN());
  Stopwatch watch(*graph_.clock);
  for (size_t s = 0; s < profile.scorers.size(); ++s) {
    const WeightedScorer& scorer = profile.scorers[s];
    ScopedSpan span(request_.spans, "llm_d.epp.scorer.", scorer.plugin->type());
    schedule_log::LineWith(request_, "Running scorer", "scorer", *scorer.plugin);
    const std::span<double> raw(record.raw.data() + s * n, n);
    if (!Succeeds(*scorer.plugin,
                  [&] { scorer.plugin->Score(request_, snapshot_, record.candidates, raw); }))
      std::fill(raw.begin(), raw.end(), std::numeric_limits<double>::quiet_NaN());
    AddWeighted(record.totals, raw, scorer.weight);
    watch.Lap(scorer.duration);
    if (request_.spans) DescribeScores(scorer, raw, span);
    schedule_log::LineWith(request_, "After running scorer", "scorer", *scorer.plugin);
  }
  schedule_log::Line(request_, "After running scorer plugins");
}

void SchedulingPass::RunPicker(const Profile& profile, ProfileRecord& record) {
  schedule_log::BeforePicker(request_, snapshot_, record);
  ScopedSpan span(request_.spans, "pick_endpoints");
  Stopwatch watch(*graph_.clock);
  if (!Succeeds(*profile.picker.plugin, [&] {
        record.tied = profile.picker.plugin->Pick(request_, snapshot_, record.candidates,
                                                  record.totals, record.picked);
      }))
    record.picked.clear();
  watch.Lap(profile.picker.duration);
  schedule_log::AfterPicker(request_, snapshot_, record);
  if (request_.spans == nullptr || record.picked.empty()) return;
  span.Add("llm_d.epp.endpoint", snapshot_.set->names[record.picked[0]]);
  span.Add("llm_d.epp.tied", int64_t{record.tied});
}

}  // namespace llmd::sched
