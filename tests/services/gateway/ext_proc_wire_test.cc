#include "gateway/ext_proc_wire.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "envoy/service/ext_proc/v3/external_processor.pb.h"

namespace llmd::gateway {
namespace {

using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;
using services::WireWriter;

http::HeaderLine Line(std::string_view name, std::string_view value) {
  return {name, value, http::KnownHeader(name)};
}

ProcessingRequest Parsed(const WireWriter& writer, std::string_view tail = {}) {
  ProcessingRequest out;
  EXPECT_TRUE(out.ParseFromString(std::string(writer.View()) + std::string(tail)));
  return out;
}

std::vector<std::string> HintOf(const ProcessingRequest& message, const std::string& key) {
  std::vector<std::string> out;
  const auto& spaces = message.metadata_context().filter_metadata();
  const auto space = spaces.find("envoy.lb.subset_hint");
  if (space == spaces.end()) return out;
  const auto field = space->second.fields().find(key);
  if (field == space->second.fields().end()) return out;
  for (const auto& value : field->second.list_value().values()) out.push_back(value.string_value());
  return out;
}

TEST(ExtProcWire, RequestHeadSaysWhatAPickerMayKnow) {
  const std::vector<http::HeaderLine> lines = {
      Line("Host", "llm"),          Line("X-Mine", "a"),
      Line("x-mine", "b"),          Line("Connection", "keep-alive"),
      Line("X-Request-Id", "old"),  Line("X-Gateway-Destination-Endpoint", "1.2.3.4:5"),
      Line("Content-Length", "12"), Line("Traceparent", "00-1-2-01")};
  http::RequestView head;
  head.method = "POST";
  head.target = "/v1/completions?x=1";
  head.headers.lines = lines;
  AskedRequest asked;
  asked.head = &head;
  asked.has_body = true;
  asked.request_id = "new";
  const std::vector<std::string> exclude = {"10.0.0.1:80"}, subset = {"10.0.0.2:80", "[::1]:80"};
  asked.exclude = exclude;
  asked.subset = subset;
  WireWriter writer;
  WriteRequestHead(asked, writer);
  const ProcessingRequest message = Parsed(writer);
  std::vector<std::string> seen;
  for (const auto& header : message.request_headers().headers().headers())
    seen.push_back(header.key() + "=" + header.raw_value());
  EXPECT_EQ(seen, (std::vector<std::string>{
                      ":method=POST", ":path=/v1/completions?x=1", ":scheme=http", ":authority=llm",
                      "x-mine=a", "x-mine=b", "traceparent=00-1-2-01", "x-request-id=new"}));
  EXPECT_FALSE(message.request_headers().end_of_stream());
  EXPECT_EQ(message.protocol_config().request_body_mode(), 4);
  EXPECT_EQ(message.protocol_config().response_body_mode(), 1);
  EXPECT_EQ(HintOf(message, "x-gateway-destination-endpoint-exclude"), exclude);
  EXPECT_EQ(HintOf(message, "x-gateway-destination-endpoint-subset"), subset);
}

TEST(ExtProcWire, AGivenTraceparentTakesTheClientsPlace) {
  const std::vector<http::HeaderLine> lines = {Line("TraceParent", "00-1-2-01"),
                                               Line("tracestate", "own=1")};
  http::RequestView head;
  head.method = "GET";
  head.target = "/";
  head.headers.lines = lines;
  AskedRequest asked;
  asked.head = &head;
  asked.traceparent = "00-1-3-01";
  WireWriter writer;
  WriteRequestHead(asked, writer);
  const ProcessingRequest message = Parsed(writer);
  std::vector<std::string> seen;
  for (const auto& header : message.request_headers().headers().headers()) {
    if (header.key().starts_with("trace")) seen.push_back(header.key() + "=" + header.raw_value());
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"tracestate=own=1", "traceparent=00-1-3-01"}));
}

TEST(ExtProcWire, NoHintWithoutExclusion) {
  http::RequestView head;
  head.method = "GET";
  head.target = "/v1/models";
  AskedRequest asked;
  asked.head = &head;
  WireWriter writer;
  WriteRequestHead(asked, writer);
  const ProcessingRequest message = Parsed(writer);
  EXPECT_FALSE(message.has_metadata_context());
  EXPECT_TRUE(message.request_headers().end_of_stream());
}

TEST(ExtProcWire, PiecesAreNotCopied) {
  WireWriter writer;
  WriteRequestPiece(5, true, writer);
  EXPECT_LT(writer.View().size(), 8U);
  ProcessingRequest message = Parsed(writer, "hello");
  EXPECT_EQ(message.request_body().body(), "hello");
  EXPECT_TRUE(message.request_body().end_of_stream());
  writer.Reset();
  WriteResponsePiece(0, false, writer);
  message = Parsed(writer);
  EXPECT_TRUE(message.has_response_body());
  EXPECT_EQ(message.response_body().body(), "");
}

TEST(ExtProcWire, ResponseHeadNamesWhoAnswered) {
  const std::vector<http::HeaderLine> lines = {Line("Content-Type", "text/plain"),
                                               Line("Transfer-Encoding", "chunked")};
  http::ResponseView head;
  head.status = 207;
  head.headers.lines = lines;
  WireWriter writer;
  WriteResponseHead(head, "10.0.0.1:80", true, writer);
  const ProcessingRequest message = Parsed(writer);
  ASSERT_EQ(message.response_headers().headers().headers_size(), 2);
  EXPECT_EQ(message.response_headers().headers().headers(0).raw_value(), "207");
  EXPECT_TRUE(message.response_headers().end_of_stream());
  const auto& space = message.metadata_context().filter_metadata().at("envoy.lb");
  EXPECT_EQ(space.fields().at("x-gateway-destination-endpoint-served").string_value(),
            "10.0.0.1:80");
}

PickerAnswer Read(const ProcessingResponse& message, std::string& bytes) {
  bytes = message.SerializeAsString();
  PickerAnswer out;
  EXPECT_TRUE(ReadAnswer(bytes, out));
  return out;
}

TEST(ExtProcWire, ReadsARouting) {
  ProcessingResponse message;
  auto* mutation = message.mutable_request_headers()->mutable_response()->mutable_header_mutation();
  auto* option = mutation->add_set_headers();
  option->mutable_header()->set_key("x-a");
  option->mutable_header()->set_raw_value("1");
  option = mutation->add_set_headers();
  option->mutable_header()->set_key("x-b");
  option->mutable_header()->set_value("2");
  mutation->add_remove_headers("x-c");
  auto& lb = (*message.mutable_dynamic_metadata()->mutable_fields())["envoy.lb"];
  auto& fields = *lb.mutable_struct_value()->mutable_fields();
  fields["x-gateway-destination-endpoint"].set_string_value("1.1.1.1:1,2.2.2.2:2");
  auto& scores = *fields["x-gateway-destination-endpoint-scores"].mutable_struct_value();
  (*scores.mutable_fields())["1.1.1.1:1"].set_number_value(0.5);
  std::string bytes;
  const PickerAnswer answer = Read(message, bytes);
  EXPECT_EQ(answer.kind, PickerAnswer::Kind::kRequestHeaders);
  std::map<std::string, std::string> set;
  EachSetHeader(answer.mutation,
                [&](std::string_view name, std::string_view value) { set.emplace(name, value); });
  EXPECT_EQ(set, (std::map<std::string, std::string>{{"x-a", "1"}, {"x-b", "2"}}));
  EachRemovedHeader(answer.mutation, [](std::string_view name) { EXPECT_EQ(name, "x-c"); });
  EXPECT_EQ(ReadDestination(answer.metadata), "1.1.1.1:1,2.2.2.2:2");
  int scored = 0;
  EachScored(answer.metadata, [&](std::string_view address) {
    ++scored;
    EXPECT_EQ(address, "1.1.1.1:1");
  });
  EXPECT_EQ(scored, 1);
}

TEST(ExtProcWire, TellsWhatBecomesOfAPiece) {
  using Change = PickerAnswer::Change;
  std::string bytes;
  ProcessingResponse message;
  message.mutable_response_body()->mutable_response();
  EXPECT_EQ(Read(message, bytes).change, Change::kNone);
  auto* body = message.mutable_response_body()->mutable_response()->mutable_body_mutation();
  body->set_body("new");
  EXPECT_EQ(Read(message, bytes).change, Change::kReplaced);
  EXPECT_EQ(Read(message, bytes).body, "new");
  body->set_clear_body(true);
  EXPECT_EQ(Read(message, bytes).change, Change::kReplaced);
  EXPECT_EQ(Read(message, bytes).body, "");
  body->mutable_streamed_response()->set_body("part");
  body->mutable_streamed_response()->set_end_of_stream(true);
  const PickerAnswer answer = Read(message, bytes);
  EXPECT_EQ(answer.change, Change::kStreamed);
  EXPECT_EQ(answer.body, "part");
  EXPECT_TRUE(answer.end_of_stream);
}

TEST(ExtProcWire, ReadsModesAndImmediateAnswers) {
  std::string bytes;
  ProcessingResponse message;
  message.mutable_response_headers();
  EXPECT_FALSE(Read(message, bytes).leaves_body_alone);
  message.mutable_mode_override()->set_response_body_mode(
      envoy::extensions::filters::http::ext_proc::v3::ProcessingMode::STREAMED);
  EXPECT_FALSE(Read(message, bytes).leaves_body_alone);
  message.mutable_mode_override()->set_response_body_mode(
      envoy::extensions::filters::http::ext_proc::v3::ProcessingMode::NONE);
  EXPECT_TRUE(Read(message, bytes).leaves_body_alone);
  message.mutable_immediate_response()->mutable_status()->set_code(
      static_cast<envoy::type::v3::StatusCode>(429));
  message.mutable_immediate_response()->set_body("no");
  const PickerAnswer answer = Read(message, bytes);
  EXPECT_EQ(answer.kind, PickerAnswer::Kind::kImmediate);
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.body, "no");
}

TEST(ExtProcWire, MalformedAnswersAreSaidToBe) {
  PickerAnswer out;
  EXPECT_TRUE(ReadAnswer("", out));
  EXPECT_EQ(out.kind, PickerAnswer::Kind::kOther);
  EXPECT_FALSE(ReadAnswer("\x0a\x05\x0a", out));
  EXPECT_FALSE(ReadAnswer("\x22\x02\x0a\x09", out));
}

}  // namespace
}  // namespace llmd::gateway
