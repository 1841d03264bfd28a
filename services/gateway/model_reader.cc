#include "gateway/model_reader.h"

#include <map>
#include <memory>
#include <utility>

namespace llmd::gateway {

void ModelReader::Refresh(relay::Loop& loop, WorkerPool& workers,
                          std::function<void(const doors::EngineName&)> read) {
  if (std::exchange(listing_, true)) return;
  const Status queued = workers.Submit([this, &loop, read = std::move(read)] {
    List();
    (void)loop.Post([this, &loop, read] {
      listing_ = false;
      while (const auto due = doors_.catalogue().NextDue(loop.now())) read(*due);
    });
  });
  if (!queued.ok()) listing_ = false;
}

// Never runs twice at a time: see listing_.
void ModelReader::List() {
  std::map<std::string, std::vector<doors::ModelCatalogue::Member>> members;
  for (const std::string& pool : pools_) members[pool];  // those that are empty now
  {
    const std::vector<doors::EngineName> engines = engines_();
    engine_count_.store(engines.size(), std::memory_order_relaxed);
    const std::set<doors::EngineName> here(engines.begin(), engines.end());
    const std::lock_guard lock(mutex_);
    std::erase_if(silent_, [&](const auto& engine) { return !here.contains(engine); });
    for (const doors::EngineName& engine : engines)
      members[engine.pool].push_back({engine.name, !silent_.contains(engine)});
  }
  for (const auto& [pool, list] : members) {
    pools_.insert(pool);
    // Above the catalogue's bound the rest is left out; the metrics show it.
    (void)doors_.catalogue().SetMembers(pool, list);
  }
}

void ModelReader::Learned(const doors::EngineName& engine, int status, std::string_view page,
                          WorkerPool& workers, TimePoint now) {
  {
    const std::lock_guard lock(mutex_);
    silent_.erase(engine);
  }
  const Status queued = workers.Submit([this, engine, status, text = std::string(page), now] {
    (void)doors_.catalogue().Learn(engine, status, text, now);  // kept as the engine's error
  });
  if (!queued.ok()) doors_.catalogue().Fail(engine, queued, now);
}

void ModelReader::Failed(const doors::EngineName& engine, std::string_view why, TimePoint now) {
  {
    const std::lock_guard lock(mutex_);
    silent_.insert(engine);
  }
  doors_.catalogue().Fail(engine, Unavailable(std::string(why)), now);
}

}  // namespace llmd::gateway
