// Which endpoints have lately encoded which media (docs/reference/producers.md).
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>

#include "llmd/sched/hooks.h"
#include "llmd/sched/producer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/producer/prefix_index.h"

namespace llmd::sched {
namespace {

constexpr int64_t kMiBPerItem = 2;

struct Item {
  uint64_t hash = 0;
  Modality modality = Modality::kImage;
};

class MmEmbeddingsCacheProducer final : public Producer,
                                        public PreRequestHook,
                                        public EndpointObserver {
 public:
  MmEmbeddingsCacheProducer(size_t capacity, DataKey match, DataKey tokens, PluginArgs& args)
      : capacity_(capacity),
        match_(match),
        tokens_(tokens),
        labels_({{"plugin_name", args.name}, {"plugin_type", args.type}}) {
    MetricsRegistry& metrics = *args.env.metrics;
    ratio_ = &metrics.AddHistogram("llm_d_epp_encoder_cache_hit_ratio",
                                   "Encoded media over all media, for each endpoint",
                                   {0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1}, labels_);
    for (Modality m : {Modality::kImage, Modality::kVideo, Modality::kAudio}) {
      Labels labels = labels_;
      labels.emplace_back("modality", std::string(NameOf(m)));
      queries_[static_cast<size_t>(m)] =
          &metrics.AddCounter("llm_d_epp_encoder_cache_queries_total", "Media looked up", labels);
    }
    hit_counts_ = metrics.AddCounterCollector("llm_d_epp_encoder_cache_hits_total",
                                              "Media an endpoint had encoded",
                                              [this](const auto& emit) { EmitHits(emit); });
    for (const char* name : {"queries_total", "hits_total", "hit_ratio"}) {
      metrics.AddAlias("llm_d_epp_encoder_cache_" + std::string(name),
                       "llm_d_router_epp_encoder_cache_" + std::string(name));
    }
  }

  Status Produce(RequestContext& request, const Snapshot& snapshot) override {
    const Attribute* prompt = request.Get(tokens_);
    if (prompt == nullptr || prompt->media.empty()) return OkStatus();
    const std::vector<Item> items = ItemsOf(*prompt);
    if (items.empty()) return OkStatus();
    Attribute& out = request.Put(match_);
    out.total = static_cast<double>(items.size());
    out.per_endpoint.assign(snapshot.size(), 0);
    for (const Item& item : items) {
      out.hashes.push_back(item.hash);
      queries_[static_cast<size_t>(item.modality)]->Add();
      Count(item, snapshot, out);
    }
    for (double matched : out.per_endpoint) ratio_->Observe(matched / out.total);
    return OkStatus();
  }

  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    const Attribute* match = request.Get(match_);
    if (match == nullptr || outcome.primary.empty()) return;
    if (outcome.encode.empty()) Note(*match, snapshot.set->slots[outcome.primary[0]]);
    for (uint32_t e : outcome.encode) Note(*match, snapshot.set->slots[e]);
  }

  void OnEndpointGone(const EndpointInfo& endpoint, uint32_t slot) override {
    index_.Remove(slot);
    const std::lock_guard lock(hits_mutex_);
    hits_.erase(endpoint.FullName());
  }
  void OnSlotFree(uint32_t slot) override { index_.Remove(slot); }

 private:
  // Each content once.
  static std::vector<Item> ItemsOf(const Attribute& prompt) {
    std::vector<Item> out;
    for (const MediaItem& m : prompt.media) {
      if (!m.hash.empty()) out.push_back({XXH64(m.hash.data(), m.hash.size(), 0), m.modality});
    }
    const auto less = [](const Item& a, const Item& b) { return a.hash < b.hash; };
    const auto same = [](const Item& a, const Item& b) { return a.hash == b.hash; };
    std::sort(out.begin(), out.end(), less);
    out.erase(std::unique(out.begin(), out.end(), same), out.end());
    return out;
  }
  void Count(const Item& item, const Snapshot& snapshot, Attribute& out) {
    static thread_local std::vector<uint32_t> counts;
    counts.assign(snapshot.set->max_slot, 0);
    index_.Match({&item.hash, 1}, counts);
    for (size_t i = 0; i < snapshot.size(); ++i) {
      if (counts[snapshot.set->slots[i]] == 0) continue;
      out.per_endpoint[i] += 1;
      const std::lock_guard lock(hits_mutex_);
      ++hits_[snapshot.set->names[i]][static_cast<size_t>(item.modality)];
    }
  }
  void EmitHits(const MetricsRegistry::GaugeEmit& emit) {
    std::map<std::string, std::array<uint64_t, 3>> hits;
    {
      const std::lock_guard lock(hits_mutex_);
      hits = hits_;
    }
    for (const auto& [pod, counts] : hits) {
      for (size_t m = 0; m < counts.size(); ++m) {
        if (counts[m] == 0) continue;
        Labels labels = labels_;
        labels.emplace_back("modality", std::string(NameOf(static_cast<Modality>(m))));
        labels.emplace_back("pod", pod);
        emit(labels, static_cast<double>(counts[m]));
      }
    }
  }
  void Note(const Attribute& match, uint32_t slot) {
    for (const uint64_t& hash : match.hashes) index_.Insert({&hash, 1}, slot, capacity_);
  }

  const size_t capacity_;
  const DataKey match_, tokens_;
  const Labels labels_;
  PrefixIndex index_;  // every content is a chain of its own
  Histogram* ratio_;
  std::array<Counter*, 3> queries_;
  std::mutex hits_mutex_;
  // By endpoint of the pool and modality; guarded by hits_mutex_.
  std::map<std::string, std::array<uint64_t, 3>> hits_;
  std::shared_ptr<const void> hit_counts_;  // ends before what it reads
};

}  // namespace

Status RegisterMmEmbeddingsCacheProducer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "mm-embeddings-cache-producer",
       .kind = "producer",
       .help = "Remembers which endpoints encoded which pictures, films and sounds.",
       .params = {{"cacheSizeInMBPerServer", "4096",
                   "encoder cache of an engine; one item is remembered for each 2 MiB"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         int64_t size = params.Int("cacheSizeInMBPerServer", 4096, INT32_MIN, INT32_MAX);
         if (size <= 0) size = 4096;
         const auto capacity = static_cast<size_t>(std::max<int64_t>(size / kMiBPerItem, 1));
         const DataKey match = args.env.Produce("EncoderCacheMatchInfo");
         const DataKey tokens = args.env.Consume("TokenizedPrompt", "", true);
         return Done(params,
                     std::make_unique<MmEmbeddingsCacheProducer>(capacity, match, tokens, args));
       }});
}

}  // namespace llmd::sched
