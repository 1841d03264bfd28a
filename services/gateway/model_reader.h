// Keeps the doors' catalogue of models: who is there, and which engine's /v1/models is to be read
// next. The pages are fetched by the policy of loop 0, over its relay; lists of engines and pages
// are read on other threads.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/doors/doors.h"
#include "llmd/http/relay/policy.h"
#include "llmd/worker_pool.h"

namespace llmd::gateway {

// The engines that there are at present, named "ip:port". Called from any thread.
using EngineList = std::function<std::vector<doors::EngineName>()>;

// Thread-safe, but for Refresh. Outlived by the doors and the workers' owner, not by the workers'
// threads.
class ModelReader {
 public:
  ModelReader(doors::Doors& doors, EngineList engines)
      : doors_(doors), engines_(std::move(engines)) {}

  // Asks who is there; then `read` is called on the loop for each engine whose page is due, and
  // Learned or Failed must follow. Nothing while the last time is still under way. Loop 0's thread.
  void Refresh(relay::Loop& loop, WorkerPool& workers,
               std::function<void(const doors::EngineName&)> read);
  // So many there were when it was last asked.
  size_t engine_count() const { return engine_count_.load(std::memory_order_relaxed); }
  // Its answer.
  void Learned(const doors::EngineName& engine, int status, std::string_view page,
               WorkerPool& workers, TimePoint now);
  // It did not answer: it counts as not ready until it does.
  void Failed(const doors::EngineName& engine, std::string_view why, TimePoint now);

 private:
  void List();

  doors::Doors& doors_;
  const EngineList engines_;
  bool listing_ = false;  // of loop 0
  std::atomic<size_t> engine_count_{0};
  std::mutex mutex_;
  std::set<doors::EngineName> silent_;  // guarded by mutex_: did not answer the last time
  std::set<std::string> pools_;         // of the thread in List: those that had members
};

}  // namespace llmd::gateway
