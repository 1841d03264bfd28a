// What a gateway without a scheduler knows of the engines: those that the picker has named. One a
// loop, without locks.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "llmd/clock.h"
#include "llmd/http/relay/target.h"
#include "llmd/http/relay/upstream_health.h"

namespace llmd::gateway {

struct Endpoint {
  relay::Target target;
  std::string_view address;  // "ip:port"
};

class EndpointBook {
 public:
  using Key = relay::UpstreamHealth::Key;
  static constexpr size_t kMaxEndpoints = 1024;

  // By which its health is kept; never zero.
  static Key KeyOf(const relay::Target& target);

  // The picker named it. Above kMaxEndpoints the one named longest ago is forgotten.
  void Learn(const relay::Target& target, std::string_view address, TimePoint now);
  // The addresses under these keys, as far as they are known and not there yet, added to `out`.
  void AddThese(std::span<const Key> keys, std::vector<std::string>& out) const;
  // All that are known but `exclude`, added to `out`.
  void AddOthers(std::span<const std::string> exclude, std::vector<std::string>& out) const;
  // The next one in turn that is not among `exclude`, nor, by its key, in the sorted `out`. Null:
  // there is none. Holds until the next call.
  const Endpoint* NextInTurn(std::span<const std::string> exclude, std::span<const Key> out);
  size_t size() const { return known_.size(); }

 private:
  struct Known {
    relay::Target target;
    std::string address;
    TimePoint named{};
  };
  void ForgetOldest();

  std::vector<Known> known_;
  std::unordered_map<Key, size_t> index_;
  size_t turn_ = 0;
  Endpoint given_;
};

}  // namespace llmd::gateway
