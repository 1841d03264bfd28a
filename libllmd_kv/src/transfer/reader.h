// The reader's side: a bounded queue of pulls and a few threads that run them over pooled sessions.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "llmd/kv/transfer.h"
#include "transfer/session.h"

namespace llmd::kv {

// Thread-safe.
class TransferReader final : private RegionCache {
 public:
  TransferReader(Region& region, const AgentOptions& options, Logger logger,
                 MetricsRegistry& metrics);
  ~TransferReader() override;

  void Pull(PullRequest request, std::function<void(PullResult)> done);
  // Fails queued pulls that are past their deadline.
  void Sweep();
  void Stop();

 private:
  struct Job {
    PullRequest request;
    std::function<void(PullResult)> done;
    std::chrono::steady_clock::time_point start, deadline;
    Peer peer() const {
      return {request.remote_engine_id, request.remote_host, request.remote_port};
    }
  };
  struct LaneMetrics {
    Counter& bytes;
    Counter& blocks;
    Histogram& seconds;
  };

  Status Check(const PullRequest& request) const;
  void Work();
  // Under the lock: the first job whose peer is not busy, else end().
  std::list<Job>::iterator NextJob();
  void Finish(Job& job, PullResult result);
  PullResult Run(const Job& job);
  // Ends the lease as a router would: without the compatibility record.
  Status Release(const PullRequest& request) const;
  PullResult RunOn(Session& session, const Job& job, const Wait& wait, bool* reusable);
  void Count(const PullResult& result);
  StatusOr<std::unique_ptr<Session>> TakeSession(const Peer& peer, const Wait& wait, bool* pooled);
  void KeepSession(const Peer& peer, std::unique_ptr<Session> session);
  StatusOr<std::shared_ptr<const MappedRegion>> Get(const std::string& engine_id, uint64_t epoch,
                                                    int fd) override;
  LaneMetrics MakeLane(const char* lane);

  Region& region_;
  const AgentOptions& options_;
  const Logger logger_;
  MetricsRegistry& metrics_;
  LaneMetrics memfd_, tcp_;
  StopEvent stop_;

  std::mutex mutex_;
  std::condition_variable work_;
  bool stopped_ = false;
  std::list<Job> queue_;
  std::map<Peer, int> busy_;
  std::map<Peer, std::vector<std::unique_ptr<Session>>> idle_;
  std::map<std::string, std::shared_ptr<const MappedRegion>> regions_;
  std::vector<std::thread> threads_;
};

}  // namespace llmd::kv
