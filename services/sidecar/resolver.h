// Addresses of engines that are named, not numbered: looked up off the loop, kept for a while. One
// for each loop; loop thread only.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "llmd/http/relay/call.h"
#include "llmd/http/relay/policy.h"
#include "llmd/status.h"

namespace llmd::sidecar {

class Resolver {
 public:
  static constexpr size_t kMaxNames = 1024;
  static constexpr size_t kMaxWaiting = 4096;  // calls for one name
  static constexpr Duration kFresh = std::chrono::seconds(30);
  // Older answers are used once more while a new one is looked up.
  static constexpr Duration kUsable = std::chrono::seconds(60);
  static constexpr Duration kFailureKept = std::chrono::seconds(1);
  // A look-up of which nothing was heard for so long is begun anew.
  static constexpr Duration kLost = std::chrono::seconds(30);

  // Blocks; run by `submit`, which must not. Both may be called by any thread.
  using Lookup = std::function<StatusOr<relay::Target>(const http::HostPort&)>;
  using Submit = std::function<Status(std::function<void()>)>;
  using Found =
      std::function<void(relay::Call&, const http::HostPort&, const StatusOr<relay::Target>&)>;

  // What `submit` was given must have run before this ends.
  Resolver(relay::Loop& loop, Lookup lookup, Submit submit, Found found)
      : loop_(loop),
        lookup_(std::move(lookup)),
        submit_(std::move(submit)),
        found_(std::move(found)) {}
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // The address, or why there is none, when that is known. Nothing: `found` will say it to the
  // call, unless that is over by then.
  std::optional<StatusOr<relay::Target>> Ask(relay::Call& call, const http::HostPort& name);

 private:
  struct Entry {
    std::optional<StatusOr<relay::Target>> answer;
    TimePoint answered{}, begun{};
    bool under_way = false;
    std::vector<relay::CallRef> waiting;
  };

  Status Begin(const http::HostPort& name, Entry& entry);
  void Done(const http::HostPort& name, const StatusOr<relay::Target>& answer);
  bool MakeRoom();

  relay::Loop& loop_;
  const Lookup lookup_;
  const Submit submit_;
  const Found found_;
  std::map<http::HostPort, Entry> names_;
};

}  // namespace llmd::sidecar
