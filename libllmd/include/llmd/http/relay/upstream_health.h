// Which upstreams are left out for a while, because exchanges with them failed: a threshold of
// failures in a row (a refused connection counts as all of them), a back-off that doubles, and a
// probe of its own before requests go there again, so that no client's request is the test. What
// they did with requests puts out at most half of them at a time: then it is the requests, most
// likely. It only says who is out; that all are tried when nobody else is left is the policy's
// part.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "llmd/clock.h"
#include "llmd/http/relay/call.h"
#include "llmd/http/relay/target.h"

namespace llmd::relay {

// Thread-safe. Of upstreams that are well it knows nothing, and asks no lock for them.
class UpstreamHealth {
 public:
  // Whatever names an upstream to its owner; never used for another one.
  using Key = uint64_t;
  struct Options {
    int threshold = 3;       // failures in a row that eject
    double max_share = 0.5;  // of the members that may be out, but for those known to be gone
    Duration first_backoff = std::chrono::seconds(1);
    Duration max_backoff = std::chrono::seconds(5);
    int max_failed_probes = 100;  // then it is forgotten: it has left, most likely
    size_t max_suspects = 4096;   // above: new ones are not noted
  };
  explicit UpstreamHealth(Options options, const Clock& clock) : options_(options), clock_(clock) {}
  explicit UpstreamHealth(const Clock& clock) : UpstreamHealth(Options(), clock) {}

  // An exchange with it failed. kOurs and kDeadline are held against nobody. True when this ejects
  // it.
  bool Failed(Key key, const Target& target, Failure failure);
  // It is known to be gone: ejected at once. True when it was not out already.
  bool Lost(Key key, const Target& target);
  // So many there are at present; until it is told the share has no bound.
  void SetMembers(size_t count) { members_.store(count, std::memory_order_relaxed); }
  // Its answer to a request was whole, whatever the status.
  void Succeeded(Key key);

  // Those that are out, in order; a list that does not change. `version` moves when another one
  // takes its place, so that a reader may keep it meanwhile.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }
  std::shared_ptr<const std::vector<Key>> Ejected() const;

  // Those whose back-off is over: each is given once, then Probed must be called.
  struct Probe {
    Key key = 0;
    Target target;
  };
  std::vector<Probe> TakeDue();
  // With `well` requests go there again; as many failures as before eject it anew, for longer.
  void Probed(Key key, bool well);
  // In place of Probed: it could not be asked, by no fault of its own. It is due again after the
  // back-off that it had.
  void NotProbed(Key key);

 private:
  struct Suspect {
    Target target;
    int failures = 0;  // in a row
    bool ejected = false, probing = false;
    Duration backoff{};
    TimePoint until{};
    int failed_probes = 0;
  };
  bool Add(Key key, const Target& target, int failures, bool gone);
  bool HasRoom() const;
  void Eject(Suspect& suspect);
  void Publish();

  const Options options_;
  const Clock& clock_;
  std::atomic<uint64_t> version_{0};
  std::atomic<size_t> suspect_count_{0}, members_{0};
  mutable std::mutex mutex_;
  std::map<Key, Suspect> suspects_;  // guarded by mutex_
  std::shared_ptr<const std::vector<Key>> ejected_ =
      std::make_shared<const std::vector<Key>>();  // guarded by mutex_
};

}  // namespace llmd::relay
