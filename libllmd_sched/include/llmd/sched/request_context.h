// One request on its way through the plugins: flat, no string maps. The director (or the experiment
// API) fills the first part, parsers the second, producers the attributes. Owned by one request;
// plugins get it by reference, one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/clock.h"
#include "llmd/json.h"
#include "llmd/log.h"
#include "llmd/sched/charges.h"
#include "llmd/sched/latency.h"

namespace llmd {
class SpanLog;
}

namespace llmd::sched {

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// The value of the last header called `name` (lower case), or "".
std::string_view FindHeader(const HeaderList& headers, std::string_view name);

// A data key ("DataType/ProducerName", docs/reference/scheduling.md) as a small integer, handed out
// while a graph is built.
using DataKey = int;
inline constexpr DataKey kNoKey = -1;

enum class Modality { kImage, kVideo, kAudio };
std::string_view NameOf(Modality modality);

// A picture, film or sound of a prompt.
struct MediaItem {
  Modality modality = Modality::kImage;
  std::string hash;               // names the content; "" = not known
  size_t prompt = 0;              // of which prompt
  size_t offset = 0, length = 0;  // tokens it stands for in that prompt
};

// A length written in the body around the JSON: it must follow when the JSON is edited.
struct FrameLength {
  json::Span at;
  uint64_t value = 0;
  bool fixed = false;  // four bytes, big-endian; else base 128
};

// What a producer says under one key. Meaning by data type:
//   TokenizedPrompt        tokens, bounds (end of each prompt in tokens), media, exact = real token
//                          ids
//   PrefixCacheMatchInfo   per_endpoint = matched blocks, weighted by tier where tiers are known;
//                          total = blocks of the prompt; block_size = tokens a block; second =
//                          matched blocks unweighted, empty = the same; offloaded = those of them
//                          in the cpu tier, empty = tiers are not known; padding = tokens that the
//                          matched blocks are short of whole ones, empty = none
//   InFlightLoad           per_endpoint = requests in flight; second = tokens in flight
//   UncachedRequestTokens  per_endpoint = this request's tokens that the endpoint would compute
//   EncoderCacheMatchInfo  per_endpoint = weight of the media it has encoded; total = of all
//   SessionID              text
struct Attribute {
  bool present = false;
  bool exact = false;
  double total = 0, block_size = 0;
  std::vector<double> per_endpoint, second, offloaded, padding;  // by snapshot index
  std::vector<uint32_t> tokens;
  std::vector<size_t> bounds;
  std::vector<uint64_t> hashes;  // of blocks, all prompts in order
  std::vector<MediaItem> media;
  std::string text;
  std::vector<LatencyPrediction> latency;  // by snapshot index
  // Matched blocks of an endpoint, whatever their tier.
  double CachedBlocks(size_t endpoint) const {
    return second.empty() ? per_endpoint[endpoint] : second[endpoint];
  }
  // Their tokens, at most those of the prompts.
  double CachedTokens(size_t endpoint) const {
    return CachedBlocks(endpoint) * block_size - (padding.empty() ? 0 : padding[endpoint]);
  }
  void Clear();
};

enum class Api {
  kNone,
  kCompletions,
  kChat,
  kEmbeddings,
  kResponses,
  kMessages,
  kGenerate,
  kImages,
  kConversations
};

struct RequestContext {
  uint64_t id = 0;         // our own; the client's x-request-id need not be unique
  std::string request_id;  // x-request-id
  std::string path;        // without the query
  const HeaderList* headers = nullptr;
  std::string_view body;  // valid until Route's callback has run
  bool has_body = true;
  TimePoint received{};
  int64_t received_unix_nanos = 0;

  Api api = Api::kNone;
  std::string model;         // as the client wrote it
  std::string target_model;  // after rewrite
  std::string cache_salt;
  bool streaming = false;
  int64_t max_tokens = -1;                   // -1 = not given
  std::string_view prompt_json;              // the prompt or messages as they stand in the body
  std::vector<json::ScannedMember> members;  // of the JSON object in the body; places in the body
  size_t json_begin = 0;                     // where that object begins
  std::vector<FrameLength> frames;           // lengths around it, innermost first
  bool names_model = true;     // false: such messages name no model, none is needed or replaced
  bool skip_response = false;  // the answer tells the picker nothing
  // The prompt of a body that is no JSON: as token ids (with has_prompt_tokens), or text.
  std::vector<uint32_t> prompt_tokens;
  bool has_prompt_tokens = false;
  std::string_view prompt_text;
  std::vector<MediaItem> media;  // that came with prompt_tokens

  std::string fairness_id, objective;
  int priority = 0;
  double slo_ttft_ms = -1, slo_tpot_ms = -1;

  // Snapshot indices of the endpoints that may serve it, ascending: all, or those of the proxy's
  // subset. Set before the producers run. Others may have facts, but no say.
  std::vector<uint32_t> eligible;
  int peer = -1;  // snapshot index of the endpoint an earlier stage chose; -1 = none

  std::vector<Attribute> attributes;  // by DataKey
  RequestCharges charges;             // what it has in flight
  std::vector<LatencyVisit> visits;
  HeaderList response_headers;  // plugins' wishes for the answer

  // Set when the request's debug lines are wanted; carries x-request-id.
  const Logger* log = nullptr;
  SpanLog* spans = nullptr;  // set when the request is traced
  uint64_t random = 0;       // state of this decision's random numbers

  std::string_view Header(std::string_view name) const {
    return headers ? FindHeader(*headers, name) : std::string_view();
  }
  // The attribute under `key`, or null pointer when nobody produced it.
  const Attribute* Get(DataKey key) const {
    return key >= 0 && key < static_cast<int>(attributes.size()) && attributes[key].present
               ? &attributes[key]
               : nullptr;
  }
  // The attribute to fill; marks it present.
  Attribute& Put(DataKey key);
  // Empties it for the next request and keeps the buffers.
  void Reset(size_t attribute_count);
  // Every endpoint of a snapshot of that many may serve it.
  void AllEligible(size_t endpoints);
  // Frees large per-prompt buffers once the decision is made.
  void ReleaseBulk();
  // The golden log's one-line description of the request.
  std::string Describe(bool with_headers) const;
};

// SplitMix64; one generator per decision, seeded from (seed, decision number).
uint64_t NextRandom(uint64_t& state);
// Uniform in [0, bound); bound > 0.
inline uint64_t RandomBelow(uint64_t& state, uint64_t bound) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(NextRandom(state)) * bound) >> 64);
}
// Uniform in (0, 1).
inline double RandomUnit(uint64_t& state) {
  return (static_cast<double>(NextRandom(state) >> 11) + 0.5) * 0x1.0p-53;
}

}  // namespace llmd::sched
