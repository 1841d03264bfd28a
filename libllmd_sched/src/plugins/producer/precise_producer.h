// PrefixCacheMatchInfo from an index of KV blocks that engine events and this picker's own
// decisions fill (docs/reference/producers.md; keys: docs/wire/block-keys.md). Shared by the
// producer and the deprecated scorer that wraps it.
#pragma once

#include <memory>
#include <mutex>

#include "llmd/kv/block_hash.h"
#include "llmd/kv/index.h"
#include "llmd/kv/speculation.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/producer.h"
#include "plugins/common.h"

namespace llmd::sched {

// A plugin with an index that events may be written to.
class KvIndexed : public virtual Plugin {
 public:
  virtual kv::Index& index() = 0;
  // Of the request keys of all models: their names are in the keys.
  virtual kv::NamespaceId index_namespace() const = 0;
};

struct PreciseSettings {
  size_t block_tokens = 16;
  std::string hash_seed, hash_algorithm;
  kv::FlatIndexOptions index;
  bool metrics = false;
  bool speculative = false;
  Duration speculative_ttl = std::chrono::seconds(2);
  DataKey match = kNoKey, tokens = kNoKey;
};
// Reads the parameters; errors go to `params`. Declares the data keys.
PreciseSettings ReadPrecise(Params& params, PluginEnv& env);
// Their descriptions.
std::vector<ParamHelp> PreciseHelp();

class PreciseProducer : public Producer,
                        public PreRequestHook,
                        public EndpointObserver,
                        public KvIndexed {
 public:
  PreciseProducer(PreciseSettings settings, std::unique_ptr<kv::RequestHasher> hasher,
                  PluginArgs& args);
  Status Produce(RequestContext& request, const Snapshot& snapshot) override;
  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList& set_headers) override;
  void OnEndpointGone(const EndpointInfo& endpoint, uint32_t slot) override;
  kv::Index& index() override { return *index_; }
  kv::NamespaceId index_namespace() const override { return namespace_; }

 protected:
  DataKey match_key() const { return s_.match; }

 private:
  void Hash(const RequestContext& request, const Attribute& prompt, Attribute& out) const;
  void Match(const Snapshot& snapshot, Attribute& out);
  std::shared_ptr<const kv::Candidates> CandidatesOf(const Snapshot& snapshot);
  void Speculate(const Attribute& match, const std::string& endpoint);
  void DropGuesses(TimePoint now);

  const PreciseSettings s_;
  const std::unique_ptr<kv::RequestHasher> hasher_;
  const std::unique_ptr<kv::Index> index_;
  const kv::NamespaceId namespace_;
  const kv::TierId cpu_;
  kv::Speculation guesses_;
  const Clock& clock_;
  std::mutex candidates_mutex_;
  std::weak_ptr<const EndpointSet> set_;              // keeps no life; guarded by candidates_mutex_
  std::shared_ptr<const kv::Candidates> candidates_;  // of set_, in its order; guarded likewise
  // Null = not counted.
  Counter *admissions_ = nullptr, *evictions_ = nullptr;
  Counter *lookups_ = nullptr, *hits_ = nullptr, *longest_ = nullptr;
  Histogram* latency_ = nullptr;
};

// The plugin under its parameters; `T` derives from PreciseProducer.
template <typename T>
StatusOr<std::unique_ptr<Plugin>> MakePrecise(PluginArgs& args) {
  Params params(args.parameters);
  PreciseSettings settings = ReadPrecise(params, args.env);
  auto hasher = kv::MakeRequestHasher(settings.hash_algorithm, settings.hash_seed);
  if (!hasher.ok()) {
    params.Fail("tokenProcessorConfig", hasher.status().message());
    return params.Finish();
  }
  return Done(params, std::make_unique<T>(std::move(settings), std::move(*hasher), args));
}

}  // namespace llmd::sched
