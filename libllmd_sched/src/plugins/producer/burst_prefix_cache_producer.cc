// Holds requests back for a moment and places those with shared prompts together, before any cache
// knows them (docs/reference/producers.md).
#include <algorithm>
#include <cmath>
#include <mutex>
#include <span>

#include "llmd/kv/block_hash.h"
#include "llmd/sched/producer.h"
#include "llmd/sched/wait_limit.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/producer/burst_plan.h"

namespace llmd::sched {
namespace {

constexpr size_t kMaxBlocks = 2048;

struct Settings {
  Duration window = std::chrono::milliseconds(100);
  size_t max_batch = 1000, max_blocks = kMaxBlocks;
  int block_tokens = 64;
  bool by_tokens = false;
  BurstRules rules;
  DataKey match = kNoKey, tokens = kNoKey;
};

class BurstPrefixCacheProducer final : public SlowProducer, public WaitLimited {
 public:
  BurstPrefixCacheProducer(Settings settings, const Clock& clock) : s_(settings), clock_(clock) {}

  // Where nothing may wait every request is a burst of its own and has no affinity.
  Status Produce(RequestContext& request, const Snapshot& snapshot) override {
    if (const Attribute* prompt = request.Get(s_.tokens)) Prepare(request, *prompt, snapshot);
    return OkStatus();
  }

  void ProduceLater(RequestContext& request, const std::shared_ptr<const Snapshot>& snapshot,
                    std::function<void(Status)> done) override {
    const Attribute* prompt = request.Get(s_.tokens);
    if (prompt == nullptr || snapshot->size() == 0) return done(OkStatus());
    Prepare(request, *prompt, *snapshot);
    std::vector<Waiting> batch;
    {
      std::lock_guard lock(mutex_);
      if (waiting_.empty()) closes_ = clock_.Now() + s_.window;
      waiting_.push_back(
          {&request, snapshot, static_cast<double>(prompt->tokens.size()), std::move(done)});
      if (waiting_.size() >= s_.max_batch) batch.swap(waiting_);
    }
    Settle(batch);
  }

  void Tick(TimePoint now) override {
    std::vector<Waiting> batch;
    {
      std::lock_guard lock(mutex_);
      if (!waiting_.empty() && now >= closes_) batch.swap(waiting_);
    }
    Settle(batch);
  }
  TimePoint DueAt(TimePoint) const override {
    std::lock_guard lock(mutex_);
    return waiting_.empty() ? TimePoint::max() : closes_;
  }
  // The window comes first.
  Duration WaitLimit() const override { return s_.window + std::chrono::seconds(1); }

 private:
  struct Waiting {
    RequestContext* request = nullptr;
    std::shared_ptr<const Snapshot> snapshot;
    double tokens = 0;
    std::function<void(Status)> done;
  };

  void Prepare(RequestContext& request, const Attribute& prompt, const Snapshot& snapshot) {
    Attribute& out = request.Put(s_.match);
    out.block_size = s_.block_tokens;
    size_t begin = 0;
    for (size_t end : prompt.bounds) {
      kv::ApproxHashes(request.target_model, request.cache_salt,
                       std::span(prompt.tokens).subspan(begin, end - begin), s_.block_tokens,
                       s_.max_blocks, out.hashes);
      out.bounds.push_back(out.hashes.size());
      begin = end;
    }
    out.total = static_cast<double>(out.hashes.size());
    out.per_endpoint.assign(snapshot.size(), 0);
  }

  // Requests that may go to the same endpoints are one burst; a pool is rarely split.
  void Settle(std::vector<Waiting>& batch) const {
    for (auto begin = batch.begin(); begin != batch.end();) {
      const auto end = std::partition(begin, batch.end(), [&](const Waiting& w) {
        return w.request->eligible == begin->request->eligible;
      });
      Place(std::span(begin, end));
      begin = end;
    }
    for (const Waiting& w : batch) w.done(OkStatus());
  }
  // Endpoints are those of the first request; one that left meanwhile is nobody's.
  void Place(std::span<const Waiting> burst) const {
    const Snapshot& first = *burst[0].snapshot;
    const std::vector<uint32_t>& eligible = burst[0].request->eligible;
    std::vector<BurstEndpoint> endpoints;
    endpoints.reserve(eligible.size());
    for (uint32_t i : eligible) {
      endpoints.push_back(
          {first.set->names[i], std::isnan(first.running[i]) ? 0 : first.running[i]});
    }
    std::vector<BurstItem> items;
    items.reserve(burst.size());
    for (const Waiting& w : burst) {
      items.push_back({std::span<const uint64_t>(w.request->Get(s_.match)->hashes),
                       s_.by_tokens ? w.tokens : 1.0});
    }
    PlaceBurst(items, endpoints, s_.rules);
    for (size_t i = 0; i < burst.size(); ++i) {
      if (items[i].assigned >= 0) {
        Assign(*burst[i].request, *burst[i].snapshot,
               first.set->slots[eligible[static_cast<size_t>(items[i].assigned)]]);
      }
    }
  }
  void Assign(RequestContext& request, const Snapshot& snapshot, uint32_t slot) const {
    Attribute& out = request.Put(s_.match);
    for (size_t i = 0; i < snapshot.size(); ++i) {
      if (snapshot.set->slots[i] == slot) out.per_endpoint[i] = out.total;
    }
  }

  const Settings s_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::vector<Waiting> waiting_;  // at most max_batch; guarded by mutex_
  TimePoint closes_{};            // guarded by mutex_
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.window = std::chrono::milliseconds(params.Int("windowDurationMs", 100, 1, 10'000));
  s.max_batch = static_cast<size_t>(params.Int("maxBatchSize", 1000, 1, 100'000));
  s.rules.max_per_replica = static_cast<int>(params.Int("maxPerReplica", -1, -1, INT32_MAX));
  if (s.rules.max_per_replica == 0)
    params.Fail("maxPerReplica", "expected -1 for no limit, or at least 1");
  s.block_tokens = static_cast<int>(params.Int("blockSizeTokens", 64, 1, 1 << 20));
  const int64_t tokens = params.Int("maxPrefixTokensToMatch", 0, 0, int64_t{1} << 40);
  if (tokens > 0) {
    if (tokens < s.block_tokens)
      params.Fail("maxPrefixTokensToMatch", "expected at least blockSizeTokens");
    s.max_blocks = static_cast<size_t>(tokens / s.block_tokens);
  }
  s.rules.min_colocate_blocks =
      static_cast<size_t>(params.Int("minColocateBlocks", 0, 0, INT32_MAX));
  s.by_tokens = params.Choice("balanceBy", "requests", {"requests", "tokens"}) == "tokens";
  s.match = args.env.Produce("PrefixCacheMatchInfo");
  s.tokens = args.env.Consume("TokenizedPrompt", "", true);
  return Done(params, std::make_unique<BurstPrefixCacheProducer>(s, *args.env.clock));
}

}  // namespace

Status RegisterBurstPrefixCacheProducer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "burst-prefix-cache-producer",
       .kind = "producer",
       .stability = Stability::kAlpha,
       .help = "Holds requests back for a moment and places those that share a prompt together: a "
               "full match on the assigned endpoint, none elsewhere. Costs up to the window in "
               "latency.",
       .params = {{"windowDurationMs", "100", "how long a burst is collected; at most 10000"},
                  {"maxBatchSize", "1000", "requests that end the window early"},
                  {"maxPerReplica", "-1", "requests of one prompt on an endpoint; -1 = all"},
                  {"blockSizeTokens", "64", "tokens a block"},
                  {"maxPrefixTokensToMatch", "0", "0 = 2048 blocks"},
                  {"minColocateBlocks", "0",
                   "blocks that different prompts must share to be placed together; 0 = only equal "
                   "prompts are"},
                  {"balanceBy", "requests", "or tokens: what an endpoint's share is counted in"}},
       .make = Make});
}

}  // namespace llmd::sched
