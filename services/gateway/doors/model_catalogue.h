// What models there are, by what each engine's /v1/models says. The catalogue opens no socket: the
// data plane asks it which engine is to be read next, fetches the page and hands in its bytes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "llmd/clock.h"
#include "llmd/json.h"
#include "llmd/snapshot.h"
#include "llmd/status.h"

namespace llmd::doors {

inline constexpr size_t kMaxModelPageBytes = 4 << 20;
inline constexpr size_t kMaxModelsOfEngine = 10'000;  // a base model and its adapters
inline constexpr size_t kMaxModels = 50'000;          // of all engines
inline constexpr size_t kMaxEngines = 10'000;
inline constexpr size_t kMaxReads = 32;  // of pages at a time
inline constexpr Duration kRetryDelay = std::chrono::seconds(1);
inline constexpr size_t kMaxModelName = 512;  // bytes; longer ones are left out and counted

// One entry of an engine's list.
struct ListedModel {
  std::string id, parent;  // of an adapter the base model; "" for a base model
  std::string owned_by;
  int64_t created = 0;        // Unix seconds
  int64_t max_model_len = 0;  // 0 = not said
  friend bool operator==(const ListedModel&, const ListedModel&) = default;
};
// Reads a page {"data":[{"id":…}]}; a byte order mark is passed over, entries without a name or
// beyond the bounds are counted in `left_out`. INVALID_ARGUMENT for what is no such page.
StatusOr<std::vector<ListedModel>> ReadModelPage(std::string_view page, size_t* left_out);

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

// All that is known at one time. Immutable.
struct CatalogueView {
  struct Entry {
    ListedModel model;
    // Pool and name of the engines that serve it, in order.
    std::vector<std::pair<std::string, std::string>> engines;
    bool In(std::string_view pool) const;
  };
  struct PoolState {
    size_t ready = 0, silent = 0;  // engines that are ready; of them without a list so far
    size_t listed = 0;             // engines with a list
  };
  std::unordered_map<std::string, Entry, StringHash, std::equal_to<>> models;
  std::map<std::string, PoolState, std::less<>> pools;
  std::vector<std::pair<std::string, std::string>> listed;  // pool and name of those with a list
  bool full = false;  // kMaxModels reached: no name is unknown

  // Null when no engine (of that pool; "" = any) lists it.
  const Entry* Find(std::string_view model, std::string_view pool) const;
  // Whether every ready engine (of that pool; "" = any) has answered, and one at all: then what is
  // not found does not exist.
  bool Complete(std::string_view pool) const;
};

struct EngineName {
  std::string pool, name;
  friend auto operator<=>(const EngineName&, const EngineName&) = default;
};

// Thread-safe.
class ModelCatalogue {
 public:
  struct Member {
    std::string name;
    bool ready = true;  // takes requests at present
  };
  // Each engine is read when it joins and every `interval` from then on.
  explicit ModelCatalogue(Duration interval) : interval_(interval) {}

  // The engines of a pool; those that left are forgotten with what they list.
  // RESOURCE_EXHAUSTED above kMaxEngines: the rest is left out.
  Status SetMembers(std::string_view pool, const std::vector<Member>& members);
  // The engine that is due the longest, if any; it counts as being read until Learn or Fail, one of
  // which must follow. Nothing while kMaxReads are being read; one whose reader was lost is offered
  // again after `interval`.
  std::optional<EngineName> NextDue(TimePoint now);
  // Its answer. Other statuses than 200 and pages that cannot be read are kept as its error; what
  // it listed before stays. Answers of engines that left are passed over.
  Status Learn(const EngineName& engine, int http_status, std::string_view page, TimePoint now);
  // It did not answer: it is asked again after kRetryDelay, or the interval where that is shorter.
  void Fail(const EngineName& engine, const Status& why, TimePoint now);

  const Snapshot<CatalogueView>& view() const { return view_; }
  // For the admin port: each engine with its models, age of its list and last error.
  json::Value ToJson(TimePoint now) const;

 private:
  struct Engine {
    bool ready = true, reading = false;
    TimePoint due{};  // epoch = at once
    std::optional<TimePoint> listed;
    std::vector<ListedModel> models;
    std::string error;  // of the last read; "" = it was good
    size_t left_out = 0;
  };
  Engine* Find(const EngineName& engine);
  void Note(const EngineName& engine, const Status& why, TimePoint due);
  void Rebuild();  // under mutex_

  const Duration interval_;
  mutable std::mutex mutex_;
  std::map<EngineName, Engine> engines_;  // guarded by mutex_
  Snapshot<CatalogueView> view_{std::make_shared<const CatalogueView>()};
};

}  // namespace llmd::doors
