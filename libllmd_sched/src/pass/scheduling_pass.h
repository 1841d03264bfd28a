// One pass of the profiles over one snapshot: filters in order, scorers, picker. Writes its record
// as it goes.
#pragma once

#include <vector>

#include "config/graph.h"
#include "trace/record.h"

namespace llmd::sched {

// Lives for one request on one thread; borrows everything.
class SchedulingPass final : public ProfileRunner {
 public:
  SchedulingPass(const Graph& graph, RequestContext& request, const Snapshot& snapshot,
                 DecisionRecord& record)
      : graph_(graph), request_(request), snapshot_(snapshot), record_(record) {}

  // Runs the producers; a failing one is logged and passed over.
  void Produce();
  // Runs the profile handler. On failure outcome.error is set and saturated() tells 429 from 503.
  void Schedule(ScheduleOutcome& outcome);
  bool saturated() const { return saturated_; }
  // The first plugin that threw, if any: its producer then knows, its filter keeps, its scorer
  // scores, its picker picks, its handler chooses nothing.
  const Status& failure() const { return failure_; }
  const Plugin* failed() const { return failed_; }  // null = none

  int Find(std::string_view profile) const override;
  int count() const override { return static_cast<int>(graph_.profiles.size()); }
  const std::vector<uint32_t>& Run(int profile) override;
  const Snapshot& snapshot() const override { return snapshot_; }

 private:
  ProfileRecord& NextRecord(int profile);
  void Grow();
  void RunFilters(const Profile& profile, ProfileRecord& record);
  void RunScorers(const Profile& profile, ProfileRecord& record);
  void RunPicker(const Profile& profile, ProfileRecord& record);

  void NoteFailure(const Plugin& plugin, Status status);
  template <typename Call>
  bool Succeeds(const Plugin& plugin, const Call& call);

  const Graph& graph_;
  RequestContext& request_;
  const Snapshot& snapshot_;
  DecisionRecord& record_;
  std::vector<std::vector<ProfileRecord>> outgrown_;  // earlier places of the record's profiles
  bool saturated_ = false;
  Status failure_;
  const Plugin* failed_ = nullptr;
};

// Runs one producer; one that fails leaves no half-filled facts behind. False when it threw:
// `failed` holds what.
bool RunProducer(Producer& producer, const Graph& graph, RequestContext& request,
                 const Snapshot& snapshot, Status& failed);
// Takes back what the producer wrote.
void ForgetProduced(const Plugin& producer, const Graph& graph, RequestContext& request);

}  // namespace llmd::sched
