// Which endpoints are silent: their pages (metrics, models) are read, and have not answered for the
// staleness limit. An engine that is stopped, or a host that is gone, takes connections and
// requests all the same; its page is what tells. Any answer is one, an error too, and so is a
// refusal: only silence is silence.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "llmd/sched/data/fetch.h"

namespace llmd::gateway {

// Reads pages through another Fetch, and watches. Thread-safe.
class PageWatch final : public sched::Fetch {
 public:
  // The clock must outlive it.
  PageWatch(std::shared_ptr<sched::Fetch> fetch, Duration limit, const Clock& clock);
  ~PageWatch() override;

  void Get(const sched::EndpointInfo& endpoint, const sched::PageSpec& page, Duration timeout,
           std::function<void(StatusOr<std::string>)> done) override;
  void Post(const std::string& url, std::string body, Duration timeout,
            std::function<void(StatusOr<std::string>)> done) override;

  // Looks who is silent now; from time to time.
  void Look();
  // "ip:port" of those that were silent at the last look, sorted; none while all of them were: then
  // it is us who cannot read, and there is nobody else to go to. `version` moves when the list
  // does.
  uint64_t version() const;
  std::shared_ptr<const std::vector<std::string>> Silent() const;

 private:
  struct State;
  const std::shared_ptr<sched::Fetch> fetch_;
  const std::shared_ptr<State> state_;  // callbacks may come late
};

}  // namespace llmd::gateway
