#include "plugins/producer/precise_producer.h"

#include <algorithm>

namespace llmd::sched {
namespace {

constexpr size_t kMaxGuesses = 1 << 16;

kv::IndexEntry Speculative(const std::string& endpoint) {
  return {.endpoint = endpoint, .tier = "", .speculative = true};
}

}  // namespace

PreciseProducer::PreciseProducer(PreciseSettings settings,
                                 std::unique_ptr<kv::RequestHasher> hasher, PluginArgs& args)
    : s_(std::move(settings)),
      hasher_(std::move(hasher)),
      index_(kv::MakeFlatIndex(s_.index)),
      scorer_(s_.tier_weights),
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

void PreciseProducer::Match(const Snapshot& snapshot, Attribute& out) {
  const std::shared_ptr<const std::vector<uint32_t>> numbers = numbers_.Get(
      snapshot.set, [this](const EndpointInfo& e) { return index_->EndpointNumber(e.HostPort()); });
  static thread_local std::vector<kv::PrefixMatch> matches;
  uint32_t most = 0;
  for (uint32_t n : *numbers) most = n == kv::Index::kUnknown ? most : std::max(most, n);
  matches.assign(most + 1, {});
  size_t begin = 0;
  for (size_t end : out.bounds) {
    scorer_.Score(*index_, std::span(out.hashes).subspan(begin, end - begin), matches);
    begin = end;
  }
  for (uint32_t n : *numbers) {
    const kv::PrefixMatch match = n < matches.size() ? matches[n] : kv::PrefixMatch();
    out.per_endpoint.push_back(match.score);
    out.second.push_back(match.blocks);
    out.offloaded.push_back(match.cpu_run);
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
  {
    // Before the index has them: whoever drops an older guess meanwhile leaves them alone.
    std::lock_guard lock(guesses_mutex_);
    const TimePoint until = clock_.Now() + s_.speculative_ttl;
    auto& of_endpoint = guessed_until_[endpoint];
    for (uint64_t key : match.hashes) of_endpoint[key] = until;
    guesses_.push_back({until, endpoint, match.hashes});
    if (guesses_.size() > kMaxGuesses) {
      Drop(guesses_.front());
      guesses_.pop_front();
    }
  }
  const kv::IndexEntry entry = Speculative(endpoint);
  // Only a flood of endpoint names can make this fail; the guess is then not worth more.
  if (!index_->Add({}, match.hashes, {&entry, 1}).ok()) return;
  if (admissions_ != nullptr) admissions_->Add(static_cast<double>(match.hashes.size()));
}

void PreciseProducer::DropGuesses(TimePoint now) {
  for (;;) {
    std::lock_guard lock(guesses_mutex_);
    if (guesses_.empty() || guesses_.front().until > now) return;
    Drop(guesses_.front());
    guesses_.pop_front();
  }
}

// Of its blocks those that no later guess has renewed.
void PreciseProducer::Drop(const Guess& guess) {
  const auto of_endpoint = guessed_until_.find(guess.endpoint);
  if (of_endpoint == guessed_until_.end()) return;
  const kv::IndexEntry entry = Speculative(guess.endpoint);
  size_t dropped = 0;
  for (uint64_t key : guess.keys) {
    const auto until = of_endpoint->second.find(key);
    if (until == of_endpoint->second.end() || until->second > guess.until) continue;
    of_endpoint->second.erase(until);
    index_->Evict(key, kv::IndexKey::kRequest, {&entry, 1});
    ++dropped;
  }
  if (of_endpoint->second.empty()) guessed_until_.erase(of_endpoint);
  if (evictions_ != nullptr) evictions_->Add(static_cast<double>(dropped));
}

void PreciseProducer::OnEndpointGone(const EndpointInfo& endpoint, uint32_t) {
  index_->Clear(endpoint.HostPort());
}

}  // namespace llmd::sched
