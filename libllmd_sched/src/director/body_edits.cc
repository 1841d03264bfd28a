#include "director/body_edits.h"

#include <algorithm>
#include <array>

#include "director/loose_object.h"
#include "llmd/json.h"
#include "llmd/proto_wire.h"

namespace llmd::sched {
namespace {

constexpr std::string_view kVideoHeaders = "x-llm-d-video-";
constexpr std::array<std::string_view, 23> kControlHeaders = {
    "x-gateway-destination-endpoint",
    "x-prefiller-host-port",
    "x-prefiller-url",
    "x-encoder-hosts-ports",
    "x-kv-cache-source-host-port",
    "x-data-parallel-host-port",
    "x-gateway-destination-endpoint-subset",
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
    "x-llm-d-inference-objective",
    "x-gateway-inference-objective",
    "x-llm-d-model-name-rewrite",
    "x-gateway-model-name-rewrite",
    "x-llm-d-slo-ttft-ms",
    "x-slo-ttft-ms",
    "x-llm-d-slo-tpot-ms",
    "x-slo-tpot-ms",
    "x-gateway-destination-endpoint-scores",
    "x-gateway-destination-endpoint-served",
    "x-llm-d-request-dropped-reason",
    "x-llm-d-inference-ttl",
    "x-llm-d-explain",
    "x-llm-d-pool"};

constexpr std::string_view kTransferParams = "kv_transfer_params";
// How an ASCII character can be written otherwise.
constexpr std::string_view kAsciiEscape = "\\u00";

bool IsDropped(const json::ScannedMember& member, std::string_view text) {
  const std::string_view raw = member.KeyText(text);
  if (raw.find('\\') == std::string_view::npos) return raw == kTransferParams;
  const StatusOr<std::string> key = json::Unquote(member.key.In(text));
  return key.ok() && *key == kTransferParams;
}

// One edit per run of dropped members, with the comma that separates it from what stays.
void DropMembers(const std::vector<json::ScannedMember>& m, std::string_view text,
                 std::vector<BodyEdit>& edits) {
  for (size_t a = 0; a < m.size(); ++a) {
    if (!IsDropped(m[a], text)) continue;
    size_t b = a;
    while (b + 1 < m.size() && IsDropped(m[b + 1], text)) ++b;
    if (b + 1 < m.size()) {
      edits.push_back({m[a].key.begin, m[b + 1].key.begin, ""});
    } else {
      edits.push_back({a > 0 ? m[a - 1].value.end : m[a].key.begin, m[b].value.end, ""});
    }
    a = b;
  }
}

// The same for a body that no parser has read.
void DropUnread(std::string_view body, std::vector<BodyEdit>& edits) {
  const AsciiView view(body);
  if (view.text.find(kTransferParams) == std::string_view::npos &&
      view.text.find(kAsciiEscape) == std::string_view::npos) {
    return;
  }
  DropMembers(LooseMembers(view.text), view.text, edits);
  for (BodyEdit& edit : edits) {
    edit.begin = view.offset + edit.begin * view.width;
    edit.end = view.offset + edit.end * view.width;
  }
}

}  // namespace

bool IsControlHeader(std::string_view name) {
  if (!name.starts_with("x-")) return false;
  return name.starts_with(kVideoHeaders) ||
         std::find(kControlHeaders.begin(), kControlHeaders.end(), name) != kControlHeaders.end();
}

std::vector<std::string> ControlHeadersOf(const HeaderList& headers, const HeaderList& keep) {
  std::vector<std::string> out;
  for (const auto& [name, value] : headers) {
    if (!IsControlHeader(name) || std::find(out.begin(), out.end(), name) != out.end()) continue;
    const bool ours =
        std::any_of(keep.begin(), keep.end(), [&](const auto& k) { return k.first == name; });
    if (!ours) out.push_back(name);
  }
  return out;
}

std::string_view EitherHeader(const RequestContext& request, std::string_view name,
                              std::string_view alias) {
  const std::string_view value = request.Header(name);
  return value.empty() ? request.Header(alias) : value;
}

namespace {

// Writes the lengths around the JSON anew, from the inside out: a length may itself grow.
void FollowFrames(const RequestContext& request, std::vector<BodyEdit>& edits) {
  uint64_t grown = 0;  // wraps around where the body shrinks
  for (const BodyEdit& e : edits) grown += e.text.size() - (e.end - e.begin);
  if (edits.empty()) return;
  for (const FrameLength& frame : request.frames) {
    const uint64_t value = frame.value + grown;
    std::string text;
    if (frame.fixed) {
      for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> shift);
    } else {
      text = ToVarint(value);
    }
    grown += text.size() - frame.at.size();
    edits.push_back({frame.at.begin, frame.at.end, std::move(text)});
  }
}

}  // namespace

std::vector<BodyEdit> EditsOf(const RequestContext& request, std::string_view model) {
  std::vector<BodyEdit> edits;
  if (!request.has_body) return edits;
  if (request.api == Api::kNone) {
    DropUnread(request.body, edits);
    return edits;
  }
  DropMembers(request.members, request.body, edits);
  if (!model.empty() && model != request.model && request.names_model) {
    std::string quoted;
    json::AppendQuoted(quoted, model);
    if (const json::ScannedMember* member =
            json::FindMember(request.members, request.body, "model")) {
      edits.push_back({member->value.begin, member->value.end, std::move(quoted)});
    } else {
      const size_t brace = request.body.find('{', request.json_begin) + 1;
      bool alone = true;
      for (size_t i = 0; i < request.members.size(); ++i)
        alone = alone && IsDropped(request.members[i], request.body);
      edits.push_back({brace, brace, "\"model\":" + quoted + (alone ? "" : ",")});
    }
  }
  FollowFrames(request, edits);
  std::sort(edits.begin(), edits.end(), [](const BodyEdit& a, const BodyEdit& b) {
    return a.begin != b.begin ? a.begin < b.begin
                              : a.end < b.end;  // an insertion before a removal at its place
  });
  return edits;
}

}  // namespace llmd::sched
