#include "plugins/producer/precise_producer.h"

#include <algorithm>

namespace llmd::sched {
namespace {

// Neither fails on an index that is new: one tier and one namespace.
kv::NamespaceId OnlyNamespace(kv::Index& index) {
  auto ns = index.AddNamespace({});
  LLMD_CHECK(ns.ok());
  return *ns;
}
// Without room for it nothing can be held in it, and no count is wrong.
kv::TierId CpuTier(kv::Index& index) {
  auto tier = index.AddTier("cpu");
  return tier.ok() ? *tier : kv::TierId::kSpeculative;
}

}  // namespace

PreciseProducer::PreciseProducer(PreciseSettings settings,
                                 std::unique_ptr<kv::RequestHasher> hasher, PluginArgs& args)
    : s_(std::move(settings)),
      hasher_(std::move(hasher)),
      index_(kv::MakeFlatIndex(s_.index)),
      namespace_(OnlyNamespace(*index_)),
      cpu_(CpuTier(*index_)),
      guesses_(*index_),
      clock_(*args.env.clock) {
  if (!s_.metrics) return;
  const Labels labels = {{"plugin_name", args.name}, {"plugin_type", args.type}};
  MetricsRegistry& metrics = *args.env.metrics;
  admissions_ = &metrics.AddCounter("llm_d_epp_kv_cache_index_admissions_total",
                                    "Blocks put into the KV block index", labels);
  evictions_ = &metrics.AddCounter("llm_d_epp_kv_cache_index_evictions_total",
                                   "Holdings taken from the KV block index", labels);
  lookups_ = &metrics.AddCounter("llm_d_epp_kv_cache_index_lookup_requests_total",
                                 "Prompts looked up in the KV block index", labels);
  hits_ = &metrics.AddCounter("llm_d_epp_kv_cache_index_lookup_hits_total",
                              "Prompts of which some endpoint held a block", labels);
  longest_ = &metrics.AddCounter("llm_d_epp_kv_cache_index_max_pod_hit_count_total",
                                 "Blocks held by the endpoint that held most", labels);
  latency_ =
      &metrics.AddHistogram("llm_d_epp_kv_cache_index_lookup_latency_seconds", "Time of a look-up",
                            {1e-6, 1e-5, 1e-4, .0005, .001, .005, .01, .05, .1}, labels);
}

Status PreciseProducer::Produce(RequestContext& request, const Snapshot& snapshot) {
  const Attribute* prompt = request.Get(s_.tokens);
  if (prompt == nullptr || snapshot.size() == 0) return OkStatus();
  if (s_.speculative) DropGuesses(clock_.Now());
  Attribute& out = request.Put(s_.match);
  out.block_size = static_cast<double>(s_.block_tokens);
  Hash(request, *prompt, out);
  out.total = static_cast<double>(out.hashes.size());
  const TimePoint started = clock_.Now();
  Match(snapshot, out);
  if (latency_ != nullptr) {
    const std::chrono::duration<double> took = clock_.Now() - started;
    latency_->Observe(took.count());
    const double most = *std::max_element(out.second.begin(), out.second.end());
    lookups_->Add();
    if (most > 0) hits_->Add();
    longest_->Add(most);
  }
  return OkStatus();
}

// Full blocks only. A block that a picture reaches into is named after it too, the first also after
// the cache salt.
void PreciseProducer::Hash(const RequestContext& request, const Attribute& prompt,
                           Attribute& out) const {
  const uint64_t init = hasher_->Init(request.target_model);
  std::vector<std::string> extra;
  size_t begin = 0;
  for (size_t p = 0; p < prompt.bounds.size(); ++p) {
    const size_t size = prompt.bounds[p] - begin;
    uint64_t key = init;
    for (size_t at = 0; at + s_.block_tokens <= size; at += s_.block_tokens) {
      extra.clear();
      for (const MediaItem& item : prompt.media) {
        if (item.prompt == p && item.offset < at + s_.block_tokens &&
            item.offset + item.length > at)
          extra.push_back(item.hash);
      }
      if (at == 0 && !request.cache_salt.empty()) extra.push_back(request.cache_salt);
      key =
          hasher_->Hash(key, std::span(prompt.tokens).subspan(begin + at, s_.block_tokens), extra);
      out.hashes.push_back(key);
    }
    out.bounds.push_back(out.hashes.size());
    begin = prompt.bounds[p];
  }
}

std::shared_ptr<const kv::Candidates> PreciseProducer::CandidatesOf(const Snapshot& snapshot) {
  std::lock_guard lock(candidates_mutex_);
  if (set_.lock() == snapshot.set) return candidates_;
  std::vector<kv::EndpointId> ids;
  for (const auto& info : snapshot.set->infos) {
    const auto id = index_->AddEndpoint(info->HostPort());
    ids.push_back(id.ok() ? *id : kv::EndpointId::kNone);  // kNone holds nothing
  }
  candidates_ = std::make_shared<const kv::Candidates>(ids);
  set_ = snapshot.set;
  return candidates_;
}

void PreciseProducer::Match(const Snapshot& snapshot, Attribute& out) {
  const auto candidates = CandidatesOf(snapshot);
  static thread_local std::vector<kv::PrefixMatch> matches;
  matches.resize(candidates->size());
  out.per_endpoint.assign(candidates->size(), 0);
  out.second.assign(candidates->size(), 0);
  out.offloaded.assign(candidates->size(), 0);
  size_t begin = 0;
  for (size_t end : out.bounds) {
    const auto keys = std::span(out.hashes).subspan(begin, end - begin);
    index_->Score(namespace_, keys, *candidates, matches);
    for (size_t i = 0; i < matches.size(); ++i) {
      out.per_endpoint[i] += matches[i].score;
      out.second[i] += matches[i].blocks;
      out.offloaded[i] += matches[i].tier_blocks[static_cast<size_t>(cpu_)];
    }
    begin = end;
  }
}

void PreciseProducer::PreRequest(RequestContext& request, const Snapshot& snapshot,
                                 const ScheduleOutcome& outcome, HeaderList&) {
  const Attribute* match = request.Get(s_.match);
  if (!s_.speculative || match == nullptr || match->hashes.empty()) return;
  if (!outcome.primary.empty()) Speculate(*match, snapshot.set->host_ports[outcome.primary[0]]);
  if (!outcome.prefill.empty()) Speculate(*match, snapshot.set->host_ports[outcome.prefill[0]]);
}

void PreciseProducer::Speculate(const Attribute& match, const std::string& endpoint) {
  const kv::EndpointId id = index_->FindEndpoint(endpoint);
  if (id == kv::EndpointId::kNone) return;
  const TimePoint until = clock_.Now() + s_.speculative_ttl;
  size_t begin = 0;
  for (size_t end : match.bounds) {
    const auto keys = std::span(match.hashes).subspan(begin, end - begin);
    begin = end;
    // Fails when the endpoint went meanwhile; the guess is then worth nothing.
    if (keys.empty() || !guesses_.Guess(namespace_, keys, id, until).ok()) continue;
    if (admissions_ != nullptr) admissions_->Add(static_cast<double>(keys.size()));
  }
}

void PreciseProducer::DropGuesses(TimePoint now) {
  const size_t dropped = guesses_.Expire(now);
  if (evictions_ != nullptr && dropped > 0) evictions_->Add(static_cast<double>(dropped));
}

void PreciseProducer::OnEndpointGone(const EndpointInfo& endpoint, uint32_t) {
  const kv::EndpointId id = index_->FindEndpoint(endpoint.HostPort());
  if (id == kv::EndpointId::kNone) return;
  index_->RemoveEndpoint(id);
  guesses_.Forget(id);
  // Another endpoint of the same address may be in the present set.
  std::lock_guard lock(candidates_mutex_);
  set_.reset();
}

}  // namespace llmd::sched
