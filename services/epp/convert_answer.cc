#include "epp/convert.h"

namespace llmd::epp {
namespace {

constexpr std::string_view kLbNamespace = "envoy.lb";
constexpr std::string_view kDestinationKey = "x-gateway-destination-endpoint";
constexpr std::string_view kScoresKey = "x-gateway-destination-endpoint-scores";
constexpr uint64_t kOverwriteIfExistsOrAdd = 2;  // HeaderValueOption.append_action
constexpr uint64_t kSend = 1;                    // ProcessingMode.HeaderSendMode
constexpr uint64_t kFullDuplex = 4;              // ProcessingMode.BodySendMode

// Every function writes its fields last one first: the writer goes backwards.

// HeaderMutation.
void WriteMutation(const Answer& answer, WireWriter& out) {
  for (size_t i = answer.remove_headers.size(); i-- > 0;) out.Bytes(2, answer.remove_headers[i]);
  for (size_t i = answer.set_headers.size(); i-- > 0;) {
    const auto& [name, value] = answer.set_headers[i];
    const size_t option = out.size();
    out.Number(3, kOverwriteIfExistsOrAdd);
    const size_t header = out.size();
    out.Bytes(3, value);
    out.Bytes(1, name);
    out.Wrap(1, header);
    out.Wrap(1, option);
  }
}

// HeadersResponse.
void WriteHeaders(const Answer& answer, WireWriter& out) {
  const size_t response = out.size();
  if (answer.clear_route_cache) out.Number(5, 1);
  if (!answer.set_headers.empty() || !answer.remove_headers.empty()) {
    const size_t mutation = out.size();
    WriteMutation(answer, out);
    out.Wrap(2, mutation);
  }
  out.Wrap(1, response);
}

// BodyResponse; nothing has been written before it, so that the body may be the tail.
void WriteBody(const Answer& answer, WireWriter& out) {
  if (!answer.unchanged) {
    if (answer.body_owner) {
      out.Tail(answer.body.size());
    } else {
      out.Raw(answer.body);
    }
    out.Wrap(1, 0);  // body, of StreamedBodyResponse or BodyMutation
    if (answer.streamed) {
      if (answer.end_of_stream) out.Number(2, 1);
      out.Wrap(3, 0);  // streamed_response
    }
    out.Wrap(3, 0);  // body_mutation
  }
  out.Wrap(1, 0);  // response
}

void WriteImmediate(const Answer& answer, WireWriter& out) {
  out.Bytes(5, answer.details);
  out.Bytes(3, answer.body);
  const size_t headers = out.size();
  WriteMutation(answer, out);
  out.Wrap(2, headers);
  const size_t status = out.size();
  out.Number(1, static_cast<uint64_t>(answer.status));
  out.Wrap(1, status);
}

// Makes what was written since `mark`, a google.protobuf.Value, the entry `key` of a Struct.
void EndEntry(std::string_view key, size_t mark, WireWriter& out) {
  out.Wrap(2, mark);
  out.Bytes(1, key);
  out.Wrap(1, mark);
}

// Makes the entries since `mark` a struct value and that the entry `key`.
void EndStruct(std::string_view key, size_t mark, WireWriter& out) {
  out.Wrap(5, mark);
  EndEntry(key, mark, out);
}

void WriteDestination(const Answer& answer, WireWriter& out) {
  if (answer.with_scores) {
    const size_t scores = out.size();
    for (const auto& [endpoint, score] : answer.scores) {
      const size_t one = out.size();
      out.Double(2, score);
      EndEntry(endpoint, one, out);
    }
    EndStruct(kScoresKey, scores, out);
  }
  const size_t value = out.size();
  out.Bytes(3, answer.destination);
  EndEntry(kDestinationKey, value, out);
}

// The report's attributes come sorted by namespace, or at least together.
void WriteReport(const Answer& answer, std::string_view space, WireWriter& out) {
  for (const sched::ReportedAttribute& attribute : answer.report) {
    if (attribute.metadata_namespace != space) continue;
    const size_t value = out.size();
    out.Double(2, static_cast<double>(attribute.value));
    EndEntry(attribute.name, value, out);
  }
}

// dynamic_metadata: a Struct with one struct per namespace.
void WriteMetadata(const Answer& answer, WireWriter& out) {
  if (answer.destination.empty() && answer.report.empty()) return;
  const size_t metadata = out.size();
  bool lb = !answer.destination.empty();
  for (size_t i = 0; i < answer.report.size(); ++i) {
    const std::string& space = answer.report[i].metadata_namespace;
    bool seen = false;
    for (size_t j = 0; j < i; ++j) seen |= answer.report[j].metadata_namespace == space;
    lb |= space == kLbNamespace;
    if (seen || space == kLbNamespace) continue;
    const size_t entries = out.size();
    WriteReport(answer, space, out);
    EndStruct(space, entries, out);
  }
  if (lb) {
    const size_t entries = out.size();
    WriteReport(answer, kLbNamespace, out);
    if (!answer.destination.empty()) WriteDestination(answer, out);
    EndStruct(kLbNamespace, entries, out);
  }
  out.Wrap(8, metadata);
}

// mode_override: restates the modes that picking needs; trailers stay on, or Envoy would end the
// stream at once and with it what is known of the request.
void WriteModes(WireWriter& out) {
  const size_t mode = out.size();
  out.Number(6, kSend);
  out.Number(5, kSend);
  out.Number(3, kFullDuplex);
  out.Number(2, kSend);
  out.Number(1, kSend);
  out.Wrap(9, mode);
}

}  // namespace

void WriteAnswer(const Answer& answer, WireWriter& out) {
  switch (answer.kind) {
    case Answer::Kind::kRequestHeaders:
    case Answer::Kind::kResponseHeaders:
      WriteHeaders(answer, out);
      break;
    case Answer::Kind::kRequestBody:
    case Answer::Kind::kResponseBody:
      WriteBody(answer, out);
      break;
    case Answer::Kind::kImmediate:
      WriteImmediate(answer, out);
      break;
    case Answer::Kind::kRequestTrailers:
    case Answer::Kind::kResponseTrailers:
      break;
  }
  switch (answer.kind) {
    case Answer::Kind::kRequestHeaders:
      out.Wrap(1, 0);
      break;
    case Answer::Kind::kResponseHeaders:
      out.Wrap(2, 0);
      break;
    case Answer::Kind::kRequestBody:
      out.Wrap(3, 0);
      break;
    case Answer::Kind::kResponseBody:
      out.Wrap(4, 0);
      break;
    case Answer::Kind::kRequestTrailers:
      out.Wrap(5, 0);
      break;
    case Answer::Kind::kResponseTrailers:
      out.Wrap(6, 0);
      break;
    case Answer::Kind::kImmediate:
      out.Wrap(7, 0);
      break;
  }
  if (answer.skip_bodies) WriteModes(out);
  WriteMetadata(answer, out);
}

}  // namespace llmd::epp
