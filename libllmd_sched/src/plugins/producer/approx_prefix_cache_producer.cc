// PrefixCacheMatchInfo from what this picker itself sent where (docs/reference/producers.md).
#include <algorithm>
#include <atomic>

#include "llmd/kv/block_hash.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/producer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/producer/prefix_index.h"

namespace llmd::sched {
namespace {

constexpr double kTokenBytes = 4;  // of the estimate that names blocks
constexpr int kMinBlockTokens =
    64;  // smaller manual and reported sizes are raised, as in the field

struct Settings {
  bool auto_tune = true;
  int block_tokens = 16;
  size_t max_blocks = 2048;  // used when max_tokens is 0
  size_t max_tokens = 131072;
  size_t capacity = 31250;
};

struct Keys {
  DataKey match = kNoKey, tokens = kNoKey;
};

class ApproxPrefixCacheProducer final : public Producer,
                                        public PreRequestHook,
                                        public EndpointObserver,
                                        public Introspected {
 public:
  ApproxPrefixCacheProducer(Settings settings, Keys keys, PluginArgs& args)
      : s_(settings), keys_(keys) {
    const Labels labels = {{"plugin_name", args.name}, {"plugin_type", args.type}};
    size_ = &args.env.metrics->AddGauge("llm_d_epp_prefix_indexer_size",
                                        "Blocks in the prefix index", labels);
    hit_ratio_ = &args.env.metrics->AddHistogram(
        "llm_d_epp_prefix_indexer_hit_ratio", "Longest match over the prompt's length",
        {0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1}, labels);
    hit_bytes_ = &args.env.metrics->AddHistogram(
        "llm_d_epp_prefix_indexer_hit_bytes", "Bytes of the longest match",
        {0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}, labels);
    args.env.metrics->AddAlias("llm_d_epp_prefix_indexer_size",
                               "inference_extension_prefix_indexer_size");
    args.env.metrics->AddAlias("llm_d_epp_prefix_indexer_hit_ratio",
                               "inference_extension_prefix_indexer_hit_ratio");
    args.env.metrics->AddAlias("llm_d_epp_prefix_indexer_hit_bytes",
                               "inference_extension_prefix_indexer_hit_bytes");
  }

  Status Produce(RequestContext& request, const Snapshot& snapshot) override {
    const Attribute* prompt = request.Get(keys_.tokens);
    if (prompt == nullptr || snapshot.size() == 0) return OkStatus();
    Attribute& out = request.Put(keys_.match);
    const int block = BlockTokens(snapshot);
    out.block_size = block;
    Hash(request, *prompt, block, out);
    out.total = static_cast<double>(out.hashes.size());
    static thread_local std::vector<uint32_t> counts;
    counts.assign(snapshot.set->max_slot, 0);
    out.per_endpoint.assign(snapshot.size(), 0);
    Match(*prompt, snapshot, counts, out);
    double best = 0;
    for (size_t i = 0; i < snapshot.size(); ++i) {
      best = std::max(best, out.per_endpoint[i]);
    }
    if (out.total > 0) {
      hit_ratio_->Observe(best / out.total);
      hit_bytes_->Observe(best * block * kTokenBytes);
    }
    return OkStatus();
  }

  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    const Attribute* match = request.Get(keys_.match);
    if (match == nullptr) return;
    if (!outcome.primary.empty()) Note(*match, snapshot, outcome.primary[0]);
    if (!outcome.prefill.empty()) Note(*match, snapshot, outcome.prefill[0]);
    size_->Set(static_cast<double>(index_.size()));
  }

  json::Value State(const EndpointSet&) const override {
    return json::Object{{"blocks", static_cast<int64_t>(index_.size())}};
  }
  void OnEndpointGone(const EndpointInfo&, uint32_t slot) override { index_.Remove(slot); }
  void OnSlotFree(uint32_t slot) override { index_.Remove(slot); }

 private:
  int BlockTokens(const Snapshot& snapshot) {
    const int reported = s_.auto_tune ? Reported(snapshot) : 0;
    return std::max(kMinBlockTokens, reported > 0 ? reported : s_.block_tokens);
  }
  // The size that most endpoints report, the smaller among equals; while none does, the last one
  // known, so that blocks keep their names. 0 = never heard of.
  int Reported(const Snapshot& snapshot) {
    static thread_local std::vector<std::pair<int, int>> sizes;  // with how often
    sizes.clear();
    for (const auto& m : snapshot.metrics) {
      if (m->block_size <= 0) continue;
      const auto is = [&](const auto& entry) { return entry.first == m->block_size; };
      const auto at = std::find_if(sizes.begin(), sizes.end(), is);
      if (at == sizes.end()) {
        sizes.emplace_back(m->block_size, 1);
      } else {
        ++at->second;
      }
    }
    if (sizes.empty()) return last_reported_.load(std::memory_order_relaxed);
    const auto rarer = [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second < b.second : a.first > b.first;
    };
    const int most = std::max_element(sizes.begin(), sizes.end(), rarer)->first;
    last_reported_.store(most, std::memory_order_relaxed);
    return most;
  }
  // Prompt by prompt: the last block of a prompt may be a part of one.
  void Match(const Attribute& prompt, const Snapshot& snapshot, std::vector<uint32_t>& counts,
             Attribute& out) const {
    size_t begin = 0;
    for (size_t p = 0; p < out.bounds.size(); ++p) {
      const size_t blocks = out.bounds[p] - begin;
      index_.Match(std::span(out.hashes).subspan(begin, blocks), counts);
      const double tokens = static_cast<double>(prompt.bounds[p] - (p ? prompt.bounds[p - 1] : 0));
      const double short_of = static_cast<double>(blocks) * out.block_size - tokens;
      if (short_of > 0) out.padding.resize(snapshot.size());
      for (size_t i = 0; i < snapshot.size(); ++i) {
        const double matched = counts[snapshot.set->slots[i]];
        const bool whole = matched - out.per_endpoint[i] >= static_cast<double>(blocks);
        if (short_of > 0 && whole) out.padding[i] += short_of;
        out.per_endpoint[i] = matched;
      }
      begin = out.bounds[p];
    }
  }
  void Hash(const RequestContext& request, const Attribute& prompt, int block,
            Attribute& out) const {
    const size_t limit =
        s_.max_tokens > 0 ? s_.max_tokens / static_cast<size_t>(block) : s_.max_blocks;
    size_t begin = 0;
    for (size_t end : prompt.bounds) {
      kv::ApproxHashes(request.target_model, request.cache_salt,
                       std::span(prompt.tokens).subspan(begin, end - begin), block, limit,
                       out.hashes);
      out.bounds.push_back(out.hashes.size());
      begin = end;
    }
  }
  void Note(const Attribute& match, const Snapshot& snapshot, uint32_t endpoint) {
    const int reported = s_.auto_tune ? snapshot.metrics[endpoint]->num_blocks : 0;
    // The engine's blocks are smaller than ours when its block size was raised to the floor.
    const double scale = snapshot.metrics[endpoint]->block_size > 0
                             ? snapshot.metrics[endpoint]->block_size / match.block_size
                             : 1;
    const size_t own = static_cast<size_t>(std::max(1.0, reported * std::min(1.0, scale)));
    size_t begin = 0;
    for (size_t end : match.bounds) {
      index_.Insert(std::span(match.hashes).subspan(begin, end - begin),
                    snapshot.set->slots[endpoint], reported > 0 ? own : s_.capacity);
      begin = end;
    }
  }

  const Settings s_;
  const Keys keys_;
  PrefixIndex index_;
  std::atomic<int> last_reported_{0};  // 0 = none yet
  Gauge* size_;
  Histogram *hit_ratio_, *hit_bytes_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.auto_tune = params.Bool("autoTune", s.auto_tune);
  s.block_tokens = static_cast<int>(
      params.Int("blockSizeTokens", params.Int("blockSize", 16, 1, 1 << 20), 1, 1 << 20));
  s.max_blocks = static_cast<size_t>(params.Int("maxPrefixBlocksToMatch", 2048, 1, 1 << 24));
  // The token limit wins unless only the block limit is given.
  const int64_t fallback = params.Has("maxPrefixBlocksToMatch") ? 0 : 131072;
  s.max_tokens =
      static_cast<size_t>(params.Int("maxPrefixTokensToMatch", fallback, 0, int64_t{1} << 40));
  s.capacity = static_cast<size_t>(params.Int("lruCapacityPerServer", 31250, 1, int64_t{1} << 32));
  if (params.Has("blockSizeTokens") && s.block_tokens < kMinBlockTokens) {
    args.env.Warn("blockSizeTokens " + std::to_string(s.block_tokens) + " is raised to 64");
  }
  const Keys keys{args.env.Produce("PrefixCacheMatchInfo"),
                  args.env.Consume("TokenizedPrompt", "", true)};
  return Done(params, std::make_unique<ApproxPrefixCacheProducer>(s, keys, args));
}

}  // namespace

Status RegisterApproxPrefixCacheProducer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "approx-prefix-cache-producer",
       .kind = "producer",
       .help =
           "Remembers which prompt blocks were sent where, and matches new prompts contiguously.",
       .params = {{"autoTune", "true", "block size and capacity as the engines report them"},
                  {"blockSizeTokens", "16",
                   "tokens a block without autoTune; at least 64 are used; old name blockSize"},
                  {"maxPrefixTokensToMatch", "131072", "longer prompts match up to here"},
                  {"maxPrefixBlocksToMatch", "2048", "the same in blocks; only without the former"},
                  {"lruCapacityPerServer", "31250",
                   "blocks remembered per endpoint without autoTune"}},
       .make = Make});
}

}  // namespace llmd::sched
