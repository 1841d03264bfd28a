// Guesses: blocks that an endpoint was sent a prompt for and will have before its events say so.
// Each ends after a while; what a later guess also covers stays.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <vector>

#include "llmd/clock.h"
#include "llmd/kv/index.h"

namespace llmd::kv {

// Thread-safe. Works on any index, which must outlive it.
class Speculation {
 public:
  // `max_guesses` at a time; the one that ends first gives way.
  explicit Speculation(Index& index, size_t max_guesses = 1 << 16);

  // The endpoint has the prompt's blocks until then. `keys` begin with the prompt's first. Errors
  // as Index::Add's.
  Status Guess(NamespaceId ns, std::span<const uint64_t> keys, EndpointId endpoint,
               TimePoint until);
  // Takes back what ended. Returns the blocks.
  size_t Expire(TimePoint now);
  // The endpoint is gone: the index forgot it already.
  void Forget(EndpointId endpoint);
  size_t size() const;

 private:
  struct Kept {
    NamespaceId ns{};
    EndpointId endpoint = EndpointId::kNone;
    std::vector<uint64_t> keys;
  };
  using Guesses = std::multimap<TimePoint, Kept>;
  size_t End(Guesses::iterator guess);
  void Unlist(Guesses::iterator guess);

  Index& index_;
  const size_t max_guesses_;
  mutable std::mutex mutex_;
  Guesses guesses_;  // by their end; guarded by mutex_, as below
  std::map<EndpointId, std::vector<Guesses::iterator>> of_endpoint_;
};

}  // namespace llmd::kv
