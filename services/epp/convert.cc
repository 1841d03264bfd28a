#include "epp/convert.h"

#include <algorithm>

namespace llmd::epp {
namespace {

using envoy::config::core::v3::HeaderMap;
using envoy::config::core::v3::HeaderValueOption;
using envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
using envoy::service::ext_proc::v3::CommonResponse;
using envoy::service::ext_proc::v3::HeaderMutation;
using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;

constexpr const char* kSubsetNamespace = "envoy.lb.subset_hint";
constexpr const char* kSubsetKey = "x-gateway-destination-endpoint-subset";
constexpr const char* kLbNamespace = "envoy.lb";
constexpr const char* kDestinationKey = "x-gateway-destination-endpoint";
constexpr const char* kServedKey = "x-gateway-destination-endpoint-served";
constexpr const char* kScoresKey = "x-gateway-destination-endpoint-scores";

void AddTrimmed(std::string_view text, std::vector<std::string>& out) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return;
  out.emplace_back(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

void Split(std::string_view text, std::vector<std::string>& out) {
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    AddTrimmed(text.substr(0, comma), out);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
}

void ReadServed(const envoy::config::core::v3::Metadata& metadata, Processor& processor) {
  const auto space = metadata.filter_metadata().find(kLbNamespace);
  if (space == metadata.filter_metadata().end()) return;
  const auto value = space->second.fields().find(kServedKey);
  processor.OnServed(value == space->second.fields().end() ? std::string_view()
                                                           : value->second.string_value());
}

void Mutate(const Answer& answer, HeaderMutation& mutation) {
  for (const auto& [name, value] : answer.set_headers) {
    auto* option = mutation.add_set_headers();
    option->mutable_header()->set_key(name);
    option->mutable_header()->set_raw_value(value);
    option->set_append_action(HeaderValueOption::OVERWRITE_IF_EXISTS_OR_ADD);
  }
  for (const std::string& name : answer.remove_headers) mutation.add_remove_headers(name);
}

void FillHeaders(const Answer& answer, CommonResponse& response) {
  response.set_clear_route_cache(answer.clear_route_cache);
  if (!answer.set_headers.empty() || !answer.remove_headers.empty()) {
    Mutate(answer, *response.mutable_header_mutation());
  }
}

void FillBody(const Answer& answer, CommonResponse& response) {
  if (answer.unchanged) return;
  if (!answer.streamed) {
    response.mutable_body_mutation()->set_body(answer.body.data(), answer.body.size());
    return;
  }
  auto* piece = response.mutable_body_mutation()->mutable_streamed_response();
  piece->set_body(answer.body.data(), answer.body.size());
  piece->set_end_of_stream(answer.end_of_stream);
}

void FillImmediate(const Answer& answer, ProcessingResponse& out) {
  auto* immediate = out.mutable_immediate_response();
  immediate->mutable_status()->set_code(static_cast<envoy::type::v3::StatusCode>(answer.status));
  Mutate(answer, *immediate->mutable_headers());
  immediate->set_body(answer.body.data(), answer.body.size());
  immediate->set_details(answer.details);
}

void FillReport(const Answer& answer, ProcessingResponse& out) {
  for (const sched::ReportedAttribute& attribute : answer.report) {
    auto& space = (*out.mutable_dynamic_metadata()->mutable_fields())[attribute.metadata_namespace];
    (*space.mutable_struct_value()->mutable_fields())[attribute.name].set_number_value(
        static_cast<double>(attribute.value));
  }
}

// Restates the modes that picking needs; trailers stay on, or Envoy would end the stream at once
// and with it what is known of the request.
void FillModes(ProcessingMode& mode) {
  mode.set_request_header_mode(ProcessingMode::SEND);
  mode.set_response_header_mode(ProcessingMode::SEND);
  mode.set_request_body_mode(ProcessingMode::FULL_DUPLEX_STREAMED);
  mode.set_response_body_mode(ProcessingMode::NONE);
  mode.set_request_trailer_mode(ProcessingMode::SEND);
  mode.set_response_trailer_mode(ProcessingMode::SEND);
}

void FillMetadata(const Answer& answer, ProcessingResponse& out) {
  if (answer.destination.empty()) return;
  auto& lb = *(*out.mutable_dynamic_metadata()->mutable_fields())[kLbNamespace]
                  .mutable_struct_value()
                  ->mutable_fields();
  lb[kDestinationKey].set_string_value(answer.destination);
  if (!answer.with_scores) return;
  auto& scores = *lb[kScoresKey].mutable_struct_value()->mutable_fields();
  for (const auto& [endpoint, score] : answer.scores) scores[endpoint].set_number_value(score);
}

}  // namespace

HeaderList ToHeaderList(const HeaderMap& map) {
  HeaderList out;
  out.reserve(map.headers_size());
  for (const auto& header : map.headers()) {
    std::string name = header.key();
    for (char& c : name) c = (c >= 'A' && c <= 'Z') ? static_cast<char>(c + 32) : c;
    out.emplace_back(std::move(name),
                     header.raw_value().empty() ? header.value() : header.raw_value());
  }
  return out;
}

SubsetHint ToSubsetHint(const envoy::config::core::v3::Metadata& metadata) {
  SubsetHint hint;
  const auto space = metadata.filter_metadata().find(kSubsetNamespace);
  if (space == metadata.filter_metadata().end()) return hint;
  const auto value = space->second.fields().find(kSubsetKey);
  if (value == space->second.fields().end()) return hint;
  hint.present = true;
  if (value->second.has_string_value()) Split(value->second.string_value(), hint.endpoints);
  for (const auto& item : value->second.list_value().values())
    AddTrimmed(item.string_value(), hint.endpoints);
  return hint;
}

void Dispatch(ProcessingRequest& message, Processor& processor) {
  if (message.has_protocol_config()) {
    processor.OnModes(static_cast<BodyMode>(message.protocol_config().request_body_mode()),
                      static_cast<BodyMode>(message.protocol_config().response_body_mode()));
  }
  if (message.has_metadata_context())
    processor.OnSubsetHint(ToSubsetHint(message.metadata_context()));
  switch (message.request_case()) {
    case ProcessingRequest::kRequestHeaders:
      processor.OnRequestHeaders(ToHeaderList(message.request_headers().headers()),
                                 message.request_headers().end_of_stream());
      break;
    case ProcessingRequest::kRequestBody: {
      auto* body = message.mutable_request_body();
      processor.OnRequestBody(std::move(*body->mutable_body()), body->end_of_stream());
      break;
    }
    case ProcessingRequest::kRequestTrailers:
      processor.OnRequestTrailers();
      break;
    case ProcessingRequest::kResponseHeaders:
      if (message.has_metadata_context()) ReadServed(message.metadata_context(), processor);
      processor.OnResponseHeaders(ToHeaderList(message.response_headers().headers()),
                                  message.response_headers().end_of_stream());
      break;
    case ProcessingRequest::kResponseBody:
      processor.OnResponseBody(message.response_body().body(),
                               message.response_body().end_of_stream());
      break;
    case ProcessingRequest::kResponseTrailers:
      processor.OnResponseTrailers();
      break;
    case ProcessingRequest::REQUEST_NOT_SET:
      processor.OnUnknown();
      break;
  }
}

void FromAnswer(const Answer& answer, ProcessingResponse& out) {
  switch (answer.kind) {
    case Answer::Kind::kRequestHeaders:
      FillHeaders(answer, *out.mutable_request_headers()->mutable_response());
      break;
    case Answer::Kind::kRequestBody:
      FillBody(answer, *out.mutable_request_body()->mutable_response());
      break;
    case Answer::Kind::kRequestTrailers:
      out.mutable_request_trailers();
      break;
    case Answer::Kind::kResponseHeaders:
      FillHeaders(answer, *out.mutable_response_headers()->mutable_response());
      if (answer.skip_bodies) FillModes(*out.mutable_mode_override());
      break;
    case Answer::Kind::kResponseBody:
      FillBody(answer, *out.mutable_response_body()->mutable_response());
      break;
    case Answer::Kind::kResponseTrailers:
      out.mutable_response_trailers();
      break;
    case Answer::Kind::kImmediate:
      FillImmediate(answer, out);
      break;
  }
  FillMetadata(answer, out);
  FillReport(answer, out);
}

}  // namespace llmd::epp
