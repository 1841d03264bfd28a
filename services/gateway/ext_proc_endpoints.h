// What a gateway without a scheduler knows of the engines: those that the picker has named, and
// those that failed lately. One a loop, without locks.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "llmd/clock.h"
#include "llmd/http/relay/target.h"

namespace llmd::gateway {

struct Endpoint {
  relay::Target target;
  std::string_view address;  // "ip:port"
};

class EndpointBook {
 public:
  static constexpr size_t kMaxEndpoints = 1024;

  // `ejection`: how long one that failed is left out.
  explicit EndpointBook(Duration ejection) : ejection_(ejection) {}

  // The picker named it. Above kMaxEndpoints the one named longest ago is forgotten.
  void Learn(const relay::Target& target, std::string_view address, TimePoint now);
  void Failed(const relay::Target& target, TimePoint now);
  void Answered(const relay::Target& target);
  bool Ejected(const relay::Target& target, TimePoint now) const;

  // Those that are ejected now, added to `out`.
  void AddEjected(TimePoint now, std::vector<std::string>& out) const;
  // All that are known but `exclude`, added to `out`.
  void AddOthers(std::span<const std::string> exclude, std::vector<std::string>& out) const;
  // The next one in turn that is not among `exclude`; an ejected one only when `ejected_too`. Null:
  // there is none.
  const Endpoint* NextInTurn(std::span<const std::string> exclude, bool ejected_too, TimePoint now);
  size_t size() const { return known_.size(); }

 private:
  struct Known {
    Endpoint endpoint;
    std::string address;
    TimePoint named{}, ejected_until{};
  };
  struct Hash {
    size_t operator()(const relay::Target& target) const { return target.Hash(); }
  };
  Known* Find(const relay::Target& target);
  void ForgetOldest();

  const Duration ejection_;
  std::vector<Known> known_;
  std::unordered_map<relay::Target, size_t, Hash> index_;
  size_t turn_ = 0, ejected_ = 0;  // ejected_: entries that were, and did not answer since
  Endpoint given_;
};

}  // namespace llmd::gateway
