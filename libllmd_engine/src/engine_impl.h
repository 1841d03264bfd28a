// The one implementation of Engine. Callers' threads only touch the command queue; everything else
// belongs to the engine thread, which drains commands, schedules, runs the model, samples and
// delivers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "llmd/engine/batch_scheduler.h"
#include "llmd/engine/connector/pd.h"
#include "llmd/engine/engine.h"
#include "llmd/engine/kv_pool.h"
#include "llmd/engine/sampler.h"
#include "llmd/kv/block_hash.h"
#include "llmd/kv/region.h"
#include "stats_cell.h"
#include "step_buffers.h"

namespace llmd::engine {

class EngineImpl final : public Engine, private KvPoolObserver {
 public:
  // `options` are checked and complete: num_blocks, max_model_len and engine_id are set.
  EngineImpl(std::unique_ptr<Model> model, EngineOptions options,
             std::unique_ptr<kv::Region> region, std::unique_ptr<kv::EngineHasher> hasher,
             Logger logger);
  ~EngineImpl() override;
  // Starts the connector, if there is one, and the thread.
  Status Start(MetricsRegistry& metrics, const Clock& clock);

  Status Submit(Request request) override;
  void Abort(std::string_view id) override;
  void DiscardTransfer(const json::Value& kv_transfer_params) override;
  EngineStats Stats() const override {
    EngineStats stats = stats_.Load();
    if (connector_ != nullptr) connector_->AddRefusals(stats);
    return stats;
  }
  bool healthy() const override { return !failed_.load() && !stopped_.load(); }
  const EngineOptions& options() const override { return options_; }
  const Model& model() const override { return *model_; }
  Status ResetPrefixCache() override;
  void Stop() override;

  // For tests: what a hostile neighbour could do to the pool.
  kv::Region& region() { return *region_; }
  PdConnector* connector() { return connector_.get(); }

 private:
  struct Command {
    enum class Kind { kSubmit, kAbort, kPulled, kReleased, kReset } kind;
    std::unique_ptr<Sequence> sequence;  // kSubmit
    std::string id;                      // kAbort: request; kReleased: lease
    uint64_t number = 0;                 // kPulled
    kv::PullResult result;               // kPulled
    std::promise<Status>* reset = nullptr;
  };
  struct Delivery {
    Sequence* sequence;
    std::unique_ptr<Sequence> finished;  // the same, when this is its last output
    Output output;
  };

  void HandedOut(int32_t block) override { region_->Bump(block); }

  Status CheckRequest(const Request& request) const;
  StatusOr<std::unique_ptr<Sequence>> MakeSequence(Request request);
  Status Enqueue(std::unique_ptr<Sequence>& sequence);
  void Post(Command command);

  void Run();
  bool Drain(bool wait);
  void Handle(Command& command);
  void OnPulled(uint64_t number, const kv::PullResult& result);
  bool Step();
  void FailStep(const StepPlan& plan, const Status& status);
  void Update(const StepPlan& plan);
  void UpdateSequence(const ScheduledSequence& item, size_t& row);
  void AppendToken(Sequence& s, std::span<float> logits);
  FinishReason StopReason(const Sequence& s, std::optional<TokenId>& stop_token) const;
  Output& AddOutput(Sequence& s);
  void Finish(Sequence& s, FinishReason reason, Output& output);
  void EndEarly(Sequence& s, FinishReason reason, const Status& error);
  void EndAll(FinishReason reason, const Status& error);
  void NoLongerQueued(Sequence& s);
  void Publish();
  void Deliver();

  const EngineOptions options_;
  const Logger logger_;
  const std::unique_ptr<kv::Region> region_;
  const std::unique_ptr<Model> model_;
  const std::unique_ptr<kv::EngineHasher> hasher_;
  KvPool pool_;
  std::unique_ptr<PdConnector> connector_;
  std::unique_ptr<BatchScheduler> scheduler_;
  StepBuffers buffers_;
  Sampler sampler_;

  // Engine thread only.
  absl::flat_hash_map<std::string, std::unique_ptr<Sequence>> sequences_;
  absl::flat_hash_map<uint64_t, Sequence*> by_number_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Sequence>>
      zombies_;  // aborted while their blocks are being written
  std::vector<Command> drained_;
  std::vector<Delivery> deliveries_;
  EngineStats totals_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Command> commands_;              // guarded by mutex_; submits are bounded by queued_
  std::unordered_set<std::string> in_flight_;  // guarded by mutex_
  bool stopping_ = false;                      // guarded by mutex_
  uint64_t next_number_ = 0;                   // guarded by mutex_
  std::atomic<int> queued_{0};                 // submitted and not yet scheduled once
  std::atomic<bool> failed_{false};
  std::atomic<bool> stopped_{false};
  StatsCell<EngineStats> stats_;
  const Clock* clock_ = nullptr;  // from Start on
  std::once_flag stop_once_;
  std::thread thread_;
};

}  // namespace llmd::engine
