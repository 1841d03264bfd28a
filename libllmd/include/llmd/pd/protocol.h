// The prefill/decode protocol of llm-d's routing sidecar, connector nixlv2, as pure functions: a
// request's bytes in, the bodies of its two legs out. No I/O; nothing here knows HTTP connections.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/pd/object_edit.h"
#include "llmd/status.h"

namespace llmd::pd {

// The APIs that can be disaggregated; they differ in where their token limits stand.
enum class Api { kCompletions, kChat, kMessages, kResponses, kGenerate };
// Nothing for any other path.
std::optional<Api> ApiOfPath(std::string_view path);

// The body of the prefill leg: kv_transfer_params asks for remote decode, stream off,
// stream_options gone, every token limit of the API 1, and one sample (n, best_of) where the client
// asked for more. INVALID_ARGUMENT when `body` is not one JSON object.
StatusOr<std::string> PrefillBody(Api api, std::string_view body);

// The body of the decode leg: the client's bytes, with kv_transfer_params set to
// `kv_transfer_params` (JSON text).
StatusOr<std::string> DecodeBody(std::string_view body, std::string_view kv_transfer_params);

// The client's bytes without its own kv_transfer_params, which only a sidecar may set. A body that
// is no JSON object is left for the engine to refuse.
std::string LocalBody(std::string_view body);
// Whether LocalBody could differ from `body`: false for most, at the price of a look for two words.
bool MayHoldParams(std::string_view body);

// The same three bodies of one request, scanned once and not copied: pieces of the client's bytes
// and what stands between them. Pieces hold until the next of the three calls or a move.
// Thread-compatible.
class LegBodies {
 public:
  static constexpr size_t kMaxPieces = 64;
  using Pieces = std::span<const std::string_view>;
  // `body` must outlive it. INVALID_ARGUMENT when it is not one JSON object.
  static StatusOr<LegBodies> Parse(std::string_view body);
  Pieces Prefill(Api api);
  Pieces Decode(std::string_view kv_transfer_params);
  Pieces Local();

 private:
  explicit LegBodies(ObjectEdit scanned) : scanned_(std::move(scanned)), edit_(scanned_) {}
  Pieces Cut();

  ObjectEdit scanned_, edit_;
  std::vector<std::string_view> pieces_;
  std::string joined_;
};

// What the prefill leg's reply holds. Views into the reply.
struct PrefillReply {
  std::string_view kv_transfer_params;  // JSON text, verbatim; empty when missing or null
  uint64_t cached_tokens = 0;           // usage.prompt_tokens_details.cached_tokens
};
// INVALID_ARGUMENT when the reply is not one JSON object.
StatusOr<PrefillReply> ParsePrefillReply(std::string_view reply);

// Where the lender of `kv_transfer_params` can be told that its blocks are not wanted. Nothing when
// a field is missing.
struct LenderAddress {
  std::string engine_id, host, request_id;
  uint16_t port = 0;
};
std::optional<LenderAddress> ParseLender(std::string_view kv_transfer_params);

// The prefill candidates in order, as text without a scheme. `host_port` are the lines of
// x-prefiller-host-port: one line is a comma list, several lines are one candidate each;
// `legacy_url` is x-prefiller-url, used when there are none. An empty first entry means: no prefill
// leg.
std::vector<std::string> PrefillCandidates(const std::vector<std::string_view>& host_port,
                                           std::optional<std::string_view> legacy_url);

// Which candidate to ask next. Thread-compatible.
class PrefillAttempts {
 public:
  // `max_retries`: how often one candidate is asked again before the next one gets its turn.
  PrefillAttempts(size_t candidates, int max_retries)
      : candidates_(candidates), max_retries_(max_retries) {}
  struct Attempt {
    size_t candidate = 0;
    bool wait = false;  // the same host again: back off first
  };
  // After an answer with `status` (502 for a transport failure); nothing when the answer is final.
  std::optional<Attempt> After(int status);

 private:
  size_t candidates_;
  int max_retries_;
  size_t candidate_ = 0;
  int retries_ = 0;
};

// What the client gets when the prefill leg failed for good.
enum class FailurePolicy { kRelay, kLocalDecode };
StatusOr<FailurePolicy> ParseFailurePolicy(std::string_view text);  // "relay", "local-decode"
// Whether to answer by plain local decode: never for what is the client's own fault (400 to 451).
bool DecodesLocally(FailurePolicy policy, int prefill_status);

// The error object of the field's sidecar:
// {"object":"error","message":…,"type":…,"param":"","code":…}.
std::string ErrorBody(int code, std::string_view type, std::string_view message);

}  // namespace llmd::pd
