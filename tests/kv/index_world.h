// Random prompts, engines and events for the tests of indexes: prompts that share prefixes, engines
// with keys of their own or shared ones and blocks of one or two request keys, and what each engine
// holds by its own account.
#pragma once

#include <map>
#include <random>
#include <set>
#include <vector>

#include "llmd/kv/index.h"

namespace llmd::kv {

constexpr size_t kWorldEngines = 8, kWorldTiers = 3, kWorldNamespaces = 3;

struct WorldOp {
  enum Kind { kStore, kEvict, kGuess, kUnguess, kClear, kRestart, kReplace, kQuery };
  Kind kind = kStore;
  size_t engine = 0;
  size_t tier = 0;  // of kWorldTiers, none of them speculative
  size_t ns = 0;
  std::vector<uint64_t> keys, engine_keys;
  std::optional<uint64_t> parent;
  size_t from = 0;  // kUnguess
};

class World {
 public:
  explicit World(uint64_t seed, size_t longest = 90) : rng_(seed), longest_(longest) {}

  WorldOp Next() {
    const uint64_t dice = Below(1000);
    if (prompts_.size() < 4 || dice < 15) NewPrompt();
    WorldOp op;
    op.engine = Below(kWorldEngines);
    op.tier = Below(4) == 0 ? Below(kWorldTiers) : 0;
    op.ns = Below(3) == 0 ? Below(kWorldNamespaces) : 0;
    if (dice < 400) return Store(op);
    if (dice < 640) return Evict(op);
    if (dice < 680) return Guess(op, WorldOp::kGuess);
    if (dice < 710) return Guess(op, WorldOp::kUnguess);
    if (dice < 714) return Gone(op, WorldOp::kClear);
    if (dice < 718) return Gone(op, WorldOp::kRestart);
    if (dice < 720) return Gone(op, WorldOp::kReplace);
    op.kind = WorldOp::kQuery;
    op.keys = Prefix();
    for (uint64_t more = Below(3); more > 0; --more) op.keys.push_back(rng_());
    return op;
  }
  uint64_t Below(uint64_t n) { return rng_() % n; }
  // An engine key that the engine holds the block of, by its own account.
  std::optional<uint64_t> HeldEngineKey(size_t engine, size_t ns) {
    const auto& held = held_[{engine, ns}];
    if (held.empty()) return std::nullopt;
    return std::next(held.begin(), static_cast<ptrdiff_t>(Below(held.size())))->first;
  }

 private:
  static constexpr size_t kPrompts = 48;

  void NewPrompt() {
    std::vector<uint64_t> keys;
    if (!prompts_.empty() && Below(3) != 0) keys = Prefix();
    for (size_t i = 1 + Below(longest_); i > 0; --i) keys.push_back(rng_());
    if (prompts_.size() < kPrompts) {
      prompts_.push_back(std::move(keys));
    } else {
      prompts_[Below(kPrompts)] = std::move(keys);
    }
  }
  std::vector<uint64_t> Prefix() {
    const auto& prompt = prompts_[Below(prompts_.size())];
    return {prompt.begin(), prompt.begin() + 1 + static_cast<ptrdiff_t>(Below(prompt.size()))};
  }
  // Engines 0–3 share their keys, 4 and 5 have their own, 6 and 7 have blocks of two request keys.
  static size_t Width(size_t engine) { return engine >= 6 ? 2 : 1; }
  static uint64_t EngineKey(size_t engine, uint64_t key) {
    return (key ^ (engine < 4 ? 1 : 1 + engine)) * 0x9e3779b97f4a7c15;
  }
  // The keys of the engine's blocks of a prompt, named after their last request key.
  static std::vector<uint64_t> EngineKeys(size_t engine, const std::vector<uint64_t>& keys) {
    std::vector<uint64_t> out;
    for (size_t i = Width(engine); i <= keys.size(); i += Width(engine))
      out.push_back(EngineKey(engine, keys[i - 1]));
    return out;
  }

  WorldOp Store(WorldOp op) {
    op.kind = WorldOp::kStore;
    std::vector<uint64_t> keys = Prefix();
    const size_t width = Width(op.engine);
    keys.resize(keys.size() / width * width);  // none left: both refuse
    const std::vector<uint64_t> engine_keys = EngineKeys(op.engine, keys);
    auto& held = held_[{op.engine, op.ns}];
    size_t first = engine_keys.size() == 0 ? 0 : Below(engine_keys.size());
    while (first > 0 && held.count(engine_keys[first - 1]) == 0) --first;
    if (first > 0) op.parent = engine_keys[first - 1];
    if (Below(50) == 0) op.parent = rng_();  // nobody's
    op.keys.assign(keys.begin() + static_cast<ptrdiff_t>(first * width), keys.end());
    op.engine_keys.assign(engine_keys.begin() + static_cast<ptrdiff_t>(first), engine_keys.end());
    if (!op.parent || first > 0)
      for (uint64_t key : op.engine_keys) held[key].insert(op.tier);
    if (op.parent && (first == 0 || *op.parent != engine_keys[first - 1]))
      for (uint64_t key : op.engine_keys) Unhold(held, key, op.tier);
    return op;
  }
  WorldOp Evict(WorldOp op) {
    op.kind = WorldOp::kEvict;
    const std::vector<uint64_t> all = EngineKeys(op.engine, Prefix());
    auto& held = held_[{op.engine, op.ns}];
    if (Below(3) == 0) {
      for (uint64_t key : all)
        if (Below(4) == 0) op.engine_keys.push_back(key);
    } else {
      op.engine_keys.assign(all.rbegin(), all.rbegin() + static_cast<ptrdiff_t>(all.size() / 2));
    }
    // Of a key that names nothing any more an index may forget what it named: two engine blocks may
    // share a request key.
    if (Width(op.engine) > 1)
      std::erase_if(op.engine_keys, [&](uint64_t key) { return held.count(key) == 0; });
    for (uint64_t key : op.engine_keys) Unhold(held, key, op.tier);
    return op;
  }
  WorldOp Guess(WorldOp op, WorldOp::Kind kind) {
    op.kind = kind;
    op.keys = Prefix();
    op.from = Below(op.keys.size());
    return op;
  }
  WorldOp Gone(WorldOp op, WorldOp::Kind kind) {
    op.kind = kind;
    for (size_t ns = 0; ns < kWorldNamespaces; ++ns) held_[{op.engine, ns}].clear();
    return op;
  }
  using Held = std::map<uint64_t, std::set<size_t>>;  // tiers by engine key
  static void Unhold(Held& held, uint64_t key, size_t tier) {
    const auto it = held.find(key);
    if (it == held.end()) return;
    it->second.erase(tier);
    if (it->second.empty()) held.erase(it);
  }

  std::mt19937_64 rng_;
  const size_t longest_;
  std::vector<std::vector<uint64_t>> prompts_;
  std::map<std::pair<size_t, size_t>, Held> held_;
};

// An index with the world's names, that its operations are applied to.
class Played {
 public:
  explicit Played(std::unique_ptr<Index> index) : index_(std::move(index)) {
    for (const char* tier : {"gpu", "cpu", "disk"}) tiers_.push_back(*index_->AddTier(tier));
    for (const IndexNamespace& ns :
         {IndexNamespace{"m"}, IndexNamespace{"m", "", 1}, IndexNamespace{"n", "lora"}})
      namespaces_.push_back(*index_->AddNamespace(ns));
    for (size_t i = 0; i < kWorldEngines; ++i) {
      epochs_.push_back(1);
      Name(i);
    }
  }
  Index& index() { return *index_; }
  NamespaceId ns(size_t i) const { return namespaces_[i]; }
  EndpointId endpoint(size_t i) const { return endpoints_[i]; }

  // What the index said of it.
  Status Apply(const WorldOp& op) {
    const Holder holder{endpoints_[op.engine], tiers_[op.tier]};
    const Holder guess{endpoints_[op.engine], TierId::kSpeculative};
    const uint64_t epoch = epochs_[op.engine];
    switch (op.kind) {
      case WorldOp::kStore:
        return index_->Add({ns(op.ns), op.parent, op.keys, op.engine_keys}, holder, epoch);
      case WorldOp::kEvict:
        return index_->Evict(ns(op.ns), op.engine_keys, holder, epoch);
      case WorldOp::kGuess:
        return index_->Add({.ns = ns(op.ns), .keys = op.keys}, guess);
      case WorldOp::kUnguess:
        return index_->EvictChain(ns(op.ns), op.keys, op.from, guess);
      case WorldOp::kClear:
        return index_->Clear(holder.endpoint);
      case WorldOp::kRestart:
        return index_->Evict(ns(op.ns), {}, holder, ++epochs_[op.engine]);
      case WorldOp::kReplace:
        index_->RemoveEndpoint(holder.endpoint);
        Name(op.engine);
        return OkStatus();
      case WorldOp::kQuery:
        return OkStatus();
    }
    return OkStatus();
  }
  std::vector<PrefixMatch> Score(size_t ns_number, std::span<const uint64_t> keys,
                                 const std::vector<size_t>& engines) {
    std::vector<EndpointId> ids;
    for (size_t e : engines) ids.push_back(endpoints_[e]);
    const Candidates candidates(ids);
    std::vector<PrefixMatch> out(ids.size());
    index_->Score(ns(ns_number), keys, candidates, out);
    return out;
  }

 private:
  void Name(size_t engine) {
    if (endpoints_.size() <= engine) endpoints_.resize(engine + 1);
    endpoints_[engine] =
        *index_->AddEndpoint("e" + std::to_string(engine) + "#" + std::to_string(names_++));
    epochs_[engine] = 1;
  }
  const std::unique_ptr<Index> index_;
  std::vector<TierId> tiers_;
  std::vector<NamespaceId> namespaces_;
  std::vector<EndpointId> endpoints_;
  std::vector<uint64_t> epochs_;
  size_t names_ = 0;
};

}  // namespace llmd::kv
