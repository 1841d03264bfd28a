#include "transfer/reader.h"

#include <algorithm>

namespace llmd::kv {
namespace {

constexpr int kThreads = 4;
constexpr int kThreadsPerPeer = 2;  // so that one silent peer does not hold up the others
constexpr size_t kMaxQueued = 1024;
constexpr size_t kMaxPeers = 256;
constexpr Duration kReleaseTimeout = std::chrono::seconds(1);

const char* LaneName(wire::Lane lane) {
  return lane == wire::Lane::kMemfd ? "memfd" : "tcp";
}

// Whether the session still stands where both sides expect it.
bool Reusable(const Status& status) {
  switch (status.code()) {
    case StatusCode::kOk:
    case StatusCode::kAborted:
    case StatusCode::kNotFound:
    case StatusCode::kOutOfRange:
      return true;
    default:
      return false;
  }
}

}  // namespace

TransferReader::TransferReader(Region& region, const AgentOptions& options, Logger logger,
                               MetricsRegistry& metrics)
    : region_(region),
      options_(options),
      logger_(std::move(logger)),
      metrics_(metrics),
      memfd_(MakeLane("memfd")),
      tcp_(MakeLane("tcp")) {
  for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Work(); });
}

TransferReader::~TransferReader() {
  Stop();
}

TransferReader::LaneMetrics TransferReader::MakeLane(const char* lane) {
  const Labels labels = {{"lane", lane}};
  return {
      metrics_.AddCounter("llmd_kv_transfer_bytes_total", "Bytes of KV blocks read from peers.",
                          labels),
      metrics_.AddCounter("llmd_kv_transfer_blocks_total", "KV blocks read from peers.", labels),
      metrics_.AddHistogram(
          "llmd_kv_transfer_seconds", "Time of one pull, from its start to its last block.",
          {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
          labels)};
}

Status TransferReader::Check(const PullRequest& request) const {
  if (request.remote_blocks.size() != request.local_blocks.size()) {
    return InvalidArgument("KV pull: " + std::to_string(request.remote_blocks.size()) +
                           " remote blocks into " + std::to_string(request.local_blocks.size()) +
                           " local ones");
  }
  if (request.remote_blocks.size() > wire::kMaxBlocksPerRead) {
    return InvalidArgument("KV pull of " + std::to_string(request.remote_blocks.size()) +
                           " blocks, at most " + std::to_string(wire::kMaxBlocksPerRead) +
                           " are allowed");
  }
  if (request.remote_request_id.size() > wire::kMaxTextBytes ||
      request.remote_engine_id.size() > wire::kMaxTextBytes) {
    return InvalidArgument("KV pull: request id or engine id is longer than 4096 bytes");
  }
  for (int32_t block : request.local_blocks) {
    if (block < 0 || block >= region_.num_blocks()) {
      return InvalidArgument("KV pull into local block " + std::to_string(block) + " of " +
                             std::to_string(region_.num_blocks()));
    }
  }
  return OkStatus();
}

Status TransferReader::Release(const PullRequest& request) const {
  return ReleaseLease(request.remote_engine_id, request.remote_host, request.remote_port,
                      request.remote_request_id, kReleaseTimeout);
}

void TransferReader::Pull(PullRequest request, std::function<void(PullResult)> done) {
  std::list<Job> one;  // a node that moves to the queue as it is
  Job& job = one.emplace_back(
      Job{std::move(request), std::move(done), std::chrono::steady_clock::now(), {}});
  job.deadline = job.start + options_.connect_timeout + options_.read_timeout;
  Status refused;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) {
      refused = Cancelled("KV pull: the agent is stopped");
    } else if (queue_.size() >= kMaxQueued) {
      refused = ResourceExhausted("KV pull: " + std::to_string(kMaxQueued) +
                                  " pulls are waiting already");
    } else {
      queue_.splice(queue_.end(), one);
    }
  }
  if (!refused.ok()) return Finish(job, {.status = std::move(refused)});
  work_.notify_one();
}

std::list<TransferReader::Job>::iterator TransferReader::NextJob() {
  return std::find_if(queue_.begin(), queue_.end(), [this](const Job& job) {
    const auto at = busy_.find(job.peer());
    return at == busy_.end() || at->second < kThreadsPerPeer;
  });
}

void TransferReader::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    auto next = queue_.end();
    work_.wait(lock, [&] { return stopped_ || (next = NextJob()) != queue_.end(); });
    if (stopped_) return;
    Job job = std::move(*next);
    queue_.erase(next);
    const Peer peer = job.peer();
    ++busy_[peer];
    lock.unlock();
    PullResult result = Run(job);
    Finish(job, std::move(result));
    lock.lock();
    if (--busy_[peer] == 0) busy_.erase(peer);
    work_.notify_one();
  }
}

void TransferReader::Finish(Job& job, PullResult result) {
  result.elapsed = std::chrono::steady_clock::now() - job.start;
  if (!result.status.ok() && result.failed.empty()) {
    for (size_t i = 0; i < job.request.remote_blocks.size(); ++i)
      result.failed.push_back(static_cast<int32_t>(i));
  }
  Count(result);
  if (job.done) job.done(std::move(result));
}

void TransferReader::Count(const PullResult& result) {
  if (!result.status.ok()) {
    metrics_
        .AddCounter("llmd_kv_transfer_failures_total", "Pulls that did not deliver every block.",
                    {{"reason", std::string(StatusCodeName(result.status.code()))}})
        .Add();
  }
  if (result.lane.empty() || result.blocks_read == 0) return;
  const LaneMetrics& lane = result.lane == "memfd" ? memfd_ : tcp_;
  lane.bytes.Add(static_cast<double>(result.bytes));
  lane.blocks.Add(static_cast<double>(result.blocks_read));
  lane.seconds.Observe(std::chrono::duration<double>(result.elapsed).count());
}

PullResult TransferReader::Run(const Job& job) {
  if (Status status = Check(job.request); !status.ok()) return {.status = std::move(status)};
  const Wait wait{&stop_, job.deadline};
  for (;;) {
    bool pooled = false, reusable = false;
    auto session = TakeSession(job.peer(), wait, &pooled);
    if (!session.ok()) {
      // Whom we cannot read from we can still tell that its blocks are not needed.
      const bool unfit = session.status().code() == StatusCode::kFailedPrecondition;
      if (unfit && Release(job.request).ok() && job.request.remote_blocks.empty()) return {};
      return {.status = session.status().WithContext("KV peer " + job.request.remote_engine_id)};
    }
    PullResult result = RunOn(**session, job, wait, &reusable);
    if (reusable) KeepSession(job.peer(), *std::move(session));
    // A pooled connection may have been closed while it lay idle: that says nothing about the peer.
    if (pooled && result.status.code() == StatusCode::kUnavailable && result.blocks_read == 0)
      continue;
    return result;
  }
}

PullResult TransferReader::RunOn(Session& session, const Job& job, const Wait& wait,
                                 bool* reusable) {
  const PullRequest& request = job.request;
  PullResult result;
  result.lane = LaneName(session.lane());
  if (!request.remote_blocks.empty()) {
    std::vector<std::byte*> to;
    to.reserve(request.local_blocks.size());
    for (int32_t block : request.local_blocks)
      to.push_back(region_.blocks() + static_cast<size_t>(block) * region_.block_stride());
    const ReadOutcome outcome =
        session.Read(request.remote_request_id, request.remote_blocks, to, wait);
    result.status = outcome.status;
    result.blocks_read = outcome.blocks_read;
    result.bytes = outcome.blocks_read * region_.block_bytes();
    for (size_t i = 0; i < outcome.good.size(); ++i) {
      if (!outcome.good[i]) result.failed.push_back(static_cast<int32_t>(i));
    }
  }
  *reusable = Reusable(result.status);
  // After a stale block too: what is left of the lease is of no use to anybody.
  if (!result.status.ok() && result.status.code() != StatusCode::kAborted) return result;
  const Status told = session.Done(request.remote_request_id, wait);
  *reusable = Reusable(told);
  if (told.ok()) return result;
  if (request.remote_blocks.empty()) {
    result.status = told;
  } else {
    logger_.Warn("KV transfer: the lender was not told; its lease will expire",
                 {{"request_id", request.remote_request_id}, {"error", told.ToString()}});
  }
  return result;
}

StatusOr<std::unique_ptr<Session>> TransferReader::TakeSession(const Peer& peer, const Wait& wait,
                                                               bool* pooled) {
  {
    const std::lock_guard lock(mutex_);
    const auto at = idle_.find(peer);
    if (at != idle_.end()) {
      std::unique_ptr<Session> session = std::move(at->second.back());
      at->second.pop_back();
      if (at->second.empty()) idle_.erase(at);
      *pooled = true;
      return session;
    }
  }
  auto session = Session::Connect(peer, options_, region_.block_bytes(), *this, wait);
  if (session.ok()) {
    logger_.Info("KV transfer: connected",
                 {{"engine_id", peer.engine_id}, {"lane", LaneName((*session)->lane())}});
  }
  return session;
}

void TransferReader::KeepSession(const Peer& peer, std::unique_ptr<Session> session) {
  const std::lock_guard lock(mutex_);
  if (stopped_ || (idle_.size() >= kMaxPeers && !idle_.contains(peer))) return;
  auto& sessions = idle_[peer];
  if (sessions.size() < kThreadsPerPeer) sessions.push_back(std::move(session));
}

StatusOr<std::shared_ptr<const MappedRegion>> TransferReader::Get(const std::string& engine_id,
                                                                  uint64_t epoch, int fd) {
  const std::lock_guard lock(mutex_);
  const auto at = regions_.find(engine_id);
  if (at != regions_.end() && at->second->epoch() == epoch) return at->second;
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<MappedRegion> mapped, MappedRegion::Map(fd));
  // Sessions under way hold their own reference: dropping ours unmaps nothing in use.
  if (at == regions_.end() && regions_.size() >= kMaxPeers) regions_.erase(regions_.begin());
  std::shared_ptr<const MappedRegion> shared = std::move(mapped);
  regions_[engine_id] = shared;
  return shared;
}

void TransferReader::Sweep() {
  std::list<Job> late;
  {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    for (auto at = queue_.begin(); at != queue_.end();) {
      const auto next = std::next(at);
      if (at->deadline <= now) late.splice(late.end(), queue_, at);
      at = next;
    }
  }
  for (Job& job : late) {
    Finish(job, {.status = DeadlineExceeded("KV pull: still queued behind others of its peer")});
  }
}

void TransferReader::Stop() {
  std::list<Job> left;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    stopped_ = true;
    left.swap(queue_);
  }
  stop_.Set();
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  for (Job& job : left) Finish(job, {.status = Cancelled("KV pull: the agent is stopped")});
  const std::lock_guard lock(mutex_);
  idle_.clear();
}

}  // namespace llmd::kv
