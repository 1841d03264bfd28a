// One request on its way through the sidecar.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/request_record.h"
#include "llmd/http/message.h"
#include "llmd/http/relay/target.h"
#include "llmd/pd/protocol.h"
#include "llmd/pd/usage_rewriter.h"

namespace llmd::sidecar {

// What a request is for.
enum class Kind : uint8_t {
  kPassThrough,    // to the engine as it is
  kLocal,          // a generation without a prefill leg
  kDisaggregated,  // a generation with one
  kReady,          // /ready: asks the engine's /health
  kProbe,          // the same, for ourselves
};

// How far it has come. Every stage but the last two ends by an answer of our own or by the client's
// leaving too.
//
//   kNew → kEngineAddress                             pass-through, /ready, probes
//   kNew → kScan → kEngineAddress                     local
//   kNew → kScan → kPrefillerAddress → kPrefill       disaggregated
//   kPrefill → kBackOff → kPrefillerAddress           the same prefiller again
//   kPrefill → kPrefillerAddress                      the next one
//   kPrefill → kEngineAddress                         it has answered, or is done without
//   kEngineAddress → kEngine → kAnswering → end
//
// Small bodies are scanned and known addresses found without a pause.
enum class Stage : uint8_t {
  kNew,
  kScan,              // a worker reads the body
  kPrefillerAddress,  // is looked up
  kPrefill,           // the prefiller was asked
  kBackOff,
  kEngineAddress,
  kEngine,     // the engine was asked
  kAnswering,  // its answer, or one of ours, is on its way
};

// An engine of the header. The target is valid at once where it is named by its address.
struct Peer {
  http::HostPort name;
  relay::Target target;
};

// What the decode leg needs from the prefill leg.
struct Handover {
  std::string params;
  uint64_t cached_tokens = 0;
};

// What is found in a body, maybe by a worker, who writes it before `done` and then never again.
struct Scan {
  std::atomic<bool> done{false};
  Status status;                        // why there are no bodies
  std::optional<pd::LegBodies> bodies;  // none: the client's body goes on as it is
};

struct Job {
  Kind kind = Kind::kPassThrough;
  Stage stage = Stage::kNew;
  pd::Api api = pd::Api::kCompletions;
  bool given_id = false;   // the client's own request id, once
  bool forwarded = false;  // the engine's answer, not one of ours
  TimePoint leg_started{};
  relay::Target asked;       // of the leg
  std::string id, shown_id;  // the request's; as much of it as the log shows
  std::vector<Peer> candidates;
  size_t candidate = 0;
  std::optional<pd::PrefillAttempts> attempts;
  std::shared_ptr<Scan> scan;
  std::optional<Handover> handover;
  std::optional<pd::UsageRewriter> rewriter;
  std::string tail;  // of the rewritten answer
  std::string method, path;
  services::RequestRecord record;

  pd::LegBodies* bodies() const { return scan && scan->bodies ? &*scan->bodies : nullptr; }
};

}  // namespace llmd::sidecar
