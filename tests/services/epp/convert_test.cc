#include "epp/convert.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "envoy/service/ext_proc/v3/external_processor.pb.h"

namespace llmd::epp {
namespace {

using envoy::config::core::v3::HeaderMap;
using envoy::config::core::v3::HeaderValueOption;
using envoy::config::core::v3::Metadata;
using envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;
using google::protobuf::TextFormat;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

template <typename T>
T Text(const std::string& text) {
  T message;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

TEST(ReadHeaderMap, PrefersRawValueLowersNamesAndKeepsRepeats) {
  const auto map = Text<HeaderMap>(
      "headers { key: 'Cookie' raw_value: 'a' value: 'ignored' } headers { key: 'cookie' value: "
      "'b' }");
  HeaderList headers;
  EXPECT_TRUE(ReadHeaderMap(map.SerializeAsString(), headers));
  EXPECT_THAT(headers, ElementsAre(Pair("cookie", "a"), Pair("cookie", "b")));
}

std::string Hint(const std::string& value) {
  const auto metadata = Text<Metadata>(
      "filter_metadata { key: 'envoy.lb.subset_hint' value { fields { key: "
      "'x-gateway-destination-endpoint-subset' value { " +
      value + " } } } }");
  return metadata.SerializeAsString();
}

TEST(ReadSubsetHint, TakesListsAndCommaSeparatedStrings) {
  const SubsetHint list = ReadSubsetHint(
      Hint("list_value { values { string_value: '10.0.0.1:1' } values { string_value: ' "
           "10.0.0.2:2 ' } }"));
  EXPECT_TRUE(list.present);
  EXPECT_THAT(list.endpoints, ElementsAre("10.0.0.1:1", "10.0.0.2:2"));
  const SubsetHint text = ReadSubsetHint(Hint("string_value: '10.0.0.1:1, 10.0.0.2:2,,'"));
  EXPECT_THAT(text.endpoints, ElementsAre("10.0.0.1:1", "10.0.0.2:2"));
}

TEST(ReadSubsetHint, TellsAnEmptyListFromNoHint) {
  const SubsetHint empty = ReadSubsetHint(Hint("list_value {}"));
  EXPECT_TRUE(empty.present);
  EXPECT_THAT(empty.endpoints, IsEmpty());
  EXPECT_FALSE(ReadSubsetHint("").present);
}

ProcessingResponse Convert(const Answer& answer) {
  WireWriter writer;
  WriteAnswer(answer, writer);
  std::string bytes(writer.View());
  if (answer.body_owner) bytes += answer.body;
  EXPECT_EQ(bytes.size(), writer.size());
  ProcessingResponse out;
  EXPECT_TRUE(out.ParseFromString(bytes));
  return out;
}

TEST(WriteAnswer, WritesAReportAsNumbersUnderItsNamespaces) {
  const std::vector<sched::ReportedAttribute> report = {
      {"envoy.lb", "cost", 7}, {"envoy.lb", "more", -2}, {"other", "n", 1}};
  Answer answer;
  answer.kind = Answer::Kind::kResponseBody;
  answer.report = report;
  const ProcessingResponse out = Convert(answer);
  const auto& spaces = out.dynamic_metadata().fields();
  EXPECT_EQ(spaces.at("envoy.lb").struct_value().fields().at("cost").number_value(), 7);
  EXPECT_EQ(spaces.at("envoy.lb").struct_value().fields().at("more").number_value(), -2);
  EXPECT_EQ(spaces.at("other").struct_value().fields().at("n").number_value(), 1);
  EXPECT_FALSE(Convert(Answer()).has_dynamic_metadata());
}

TEST(WriteAnswer, WritesHeadersRawWithOverwriteAndMetadata) {
  Answer answer;
  answer.set_headers = {{"x-gateway-destination-endpoint", "10.0.0.1:1"}};
  answer.remove_headers = {"x-prefiller-url"};
  answer.clear_route_cache = true;
  answer.destination = "10.0.0.1:1";
  answer.with_scores = true;
  answer.scores = {{"10.0.0.1:1", 0.5}};
  const ProcessingResponse out = Convert(answer);
  const auto& response = out.request_headers().response();
  EXPECT_TRUE(response.clear_route_cache());
  ASSERT_EQ(response.header_mutation().set_headers_size(), 1);
  const auto& option = response.header_mutation().set_headers(0);
  EXPECT_EQ(option.header().raw_value(), "10.0.0.1:1");
  EXPECT_EQ(option.header().value(), "");
  EXPECT_EQ(option.append_action(), HeaderValueOption::OVERWRITE_IF_EXISTS_OR_ADD);
  EXPECT_EQ(response.header_mutation().remove_headers(0), "x-prefiller-url");
  const auto& lb = out.dynamic_metadata().fields().at("envoy.lb").struct_value().fields();
  EXPECT_EQ(lb.at("x-gateway-destination-endpoint").string_value(), "10.0.0.1:1");
  EXPECT_EQ(lb.at("x-gateway-destination-endpoint-scores")
                .struct_value()
                .fields()
                .at("10.0.0.1:1")
                .number_value(),
            0.5);
}

TEST(WriteAnswer, WritesBodyPiecesAsStreamedResponses) {
  Answer answer;
  answer.kind = Answer::Kind::kResponseBody;
  const std::string body("a\0b", 3);
  answer.body = body;
  answer.end_of_stream = true;
  const auto piece = Convert(answer).response_body().response().body_mutation().streamed_response();
  EXPECT_EQ(piece.body(), body);
  EXPECT_TRUE(piece.end_of_stream());
}

TEST(WriteAnswer, LeavesABodyThatIsKeptWhereItIs) {
  const auto body = std::make_shared<const std::string>(100'000, 'x');
  Answer answer;
  answer.kind = Answer::Kind::kRequestBody;
  answer.body = *body;
  answer.body_owner = body;
  answer.end_of_stream = true;
  WireWriter writer;
  WriteAnswer(answer, writer);
  EXPECT_LT(writer.View().size(), 30u);
  const auto piece = Convert(answer).request_body().response().body_mutation().streamed_response();
  EXPECT_EQ(piece.body(), *body);
  EXPECT_TRUE(piece.end_of_stream());
}

TEST(WriteAnswer, KeepsTheOrderOfHeaders) {
  Answer answer;
  answer.set_headers = {{"a", "1"}, {"b", std::string(5000, 'x')}, {"a", "2"}};
  answer.remove_headers = {"c", "d"};
  const auto mutation = Convert(answer).request_headers().response().header_mutation();
  ASSERT_EQ(mutation.set_headers_size(), 3);
  EXPECT_EQ(mutation.set_headers(0).header().raw_value(), "1");
  EXPECT_EQ(mutation.set_headers(1).header().raw_value().size(), 5000u);
  EXPECT_EQ(mutation.set_headers(2).header().raw_value(), "2");
  EXPECT_THAT(mutation.remove_headers(), ElementsAre("c", "d"));
}

TEST(WriteAnswer, WritesARefusal) {
  Answer answer;
  answer.kind = Answer::Kind::kImmediate;
  answer.status = 429;
  answer.body = "inference error: ResourceExhausted - full";
  answer.details = "rejected-saturated";
  answer.set_headers = {{"retry-after", "1"}};
  const auto immediate = Convert(answer).immediate_response();
  EXPECT_EQ(immediate.status().code(), 429);
  EXPECT_EQ(immediate.body(), "inference error: ResourceExhausted - full");
  EXPECT_EQ(immediate.headers().set_headers(0).header().key(), "retry-after");
  EXPECT_EQ(immediate.details(), "rejected-saturated");
}

TEST(WriteAnswer, WritesAChunkOfAStreamedBodyOnlyWhenItChanged) {
  Answer answer;
  answer.kind = Answer::Kind::kResponseBody;
  answer.streamed = false;
  answer.body = "new";
  EXPECT_EQ(Convert(answer).response_body().response().body_mutation().body(), "new");
  answer.unchanged = true;
  const ProcessingResponse out = Convert(answer);
  EXPECT_TRUE(out.has_response_body());
  EXPECT_FALSE(out.response_body().response().has_body_mutation());
}

TEST(WriteAnswer, AsksForNoBodiesButKeepsTheStream) {
  Answer answer;
  answer.kind = Answer::Kind::kResponseHeaders;
  EXPECT_FALSE(Convert(answer).has_mode_override());
  answer.skip_bodies = true;
  const auto mode = Convert(answer).mode_override();
  EXPECT_EQ(mode.response_body_mode(), ProcessingMode::NONE);
  EXPECT_EQ(mode.request_body_mode(), ProcessingMode::FULL_DUPLEX_STREAMED);
  EXPECT_EQ(mode.response_trailer_mode(), ProcessingMode::SEND);
}

// What the processor was told, in the order of arrival.
class RecordingDirector final : public sched::Director {
 public:
  void Route(sched::RequestInput input, std::function<void(sched::Routing)> done) override {
    for (const auto& [name, value] : *input.headers) told += name + "=" + value + " ";
    for (const std::string& endpoint : input.subset) told += "@" + endpoint + " ";
    told += "body=" + std::string(input.body) + " ";
    sched::Routing routing;
    routing.ok = routing.reads_response = true;
    routing.endpoints = {"10.0.0.1:1"};
    routing.state = {marker, reinterpret_cast<sched::RequestState*>(marker.get())};
    done(std::move(routing));
  }
  void Cancel(const std::shared_ptr<sched::RequestState>&) override { told += "cancel "; }
  void OnServed(const std::shared_ptr<sched::RequestState>&, std::string_view by) override {
    told += "served=" + std::string(by) + " ";
  }
  HeaderList OnResponseHeaders(const std::shared_ptr<sched::RequestState>&, int status,
                               const HeaderList& headers) override {
    told += std::to_string(status) + "/" + std::to_string(headers.size()) + " ";
    return {};
  }
  bool OnResponseBody(const std::shared_ptr<sched::RequestState>&, std::string_view chunk, bool end,
                      std::string*) override {
    told += "chunk=" + std::string(chunk) + (end ? "." : "") + " ";
    return false;
  }
  bool wants_response_body() const override { return true; }
  bool ready() const override { return true; }
  std::vector<sched::EndpointInfo> Endpoints() const override { return {}; }
  StatusOr<std::string> Explain(std::string_view) const override { return NotFound("none"); }
  void Stop() override {}
  std::string told;
  std::shared_ptr<int> marker = std::make_shared<int>(0);  // any address tells a state apart
};

class NoSink final : public AnswerSink {
 public:
  void Emit(const Answer&) override {}
  void Abort(const Status& status) override { aborted = status.message(); }
  std::string aborted;
};

const char* const kExchange[] = {
    "request_headers { headers { headers { key: ':Path' raw_value: '/v1' } headers { key: 'x' "
    "value: "
    "'y' } } } metadata_context { filter_metadata { key: 'envoy.lb.subset_hint' value { fields { "
    "key: 'x-gateway-destination-endpoint-subset' value { string_value: '10.0.0.1:1' } } } } } "
    "protocol_config { request_body_mode: FULL_DUPLEX_STREAMED response_body_mode: "
    "FULL_DUPLEX_STREAMED }",
    "request_body { body: '{\"model\":' }",
    "request_body { body: '\"m\"}' end_of_stream: true }",
    "response_headers { headers { headers { key: ':status' raw_value: '200' } } } metadata_context "
    "{ "
    "filter_metadata { key: 'envoy.lb' value { fields { key: "
    "'x-gateway-destination-endpoint-served' value { string_value: '10.0.0.1:1' } } } } }",
    "response_body { body: 'hello' }",
    "response_body { body: 'you' end_of_stream: true }",
};
constexpr char kTold[] =
    ":path=/v1 x=y @10.0.0.1:1 body={\"model\":\"m\"} served=10.0.0.1:1 200/1 chunk=hello "
    "chunk=you. ";

TEST(Dispatch, ReadsMessagesWholeAndInPiecesOfAnySize) {
  for (const size_t step : {1, 2, 3, 5, 16, 1000}) {
    RecordingDirector director;
    const auto sink = std::make_shared<NoSink>();
    const auto processor = std::make_shared<Processor>(director, sink, ProcessorOptions());
    for (const char* text : kExchange) {
      const std::string bytes = Text<ProcessingRequest>(text).SerializeAsString();
      std::vector<std::string_view> pieces = {""};
      for (size_t at = 0; at < bytes.size(); at += step)
        pieces.push_back(std::string_view(bytes).substr(at, step));
      EXPECT_TRUE(Dispatch(pieces, *processor));
    }
    EXPECT_EQ(director.told, kTold) << step;
    EXPECT_EQ(sink->aborted, "");
  }
}

TEST(Dispatch, SkipsFieldsItDoesNotKnow) {
  RecordingDirector director;
  const auto processor =
      std::make_shared<Processor>(director, std::make_shared<NoSink>(), ProcessorOptions());
  // Fields 100 to 103 of every wire type around request_headers.
  const std::string headers =
      Text<ProcessingRequest>("request_headers { end_of_stream: true }").SerializeAsString();
  const std::string bytes = std::string("\xa0\x06\x01", 3) + "\xa9\x06" + "12345678" + headers +
                            "\xb2\x06\x03"
                            "abc" +
                            "\xbd\x06"
                            "1234";
  EXPECT_TRUE(Dispatch(std::vector<std::string_view>{bytes}, *processor));
  EXPECT_EQ(director.told, "body= ");
}

TEST(Dispatch, FeedsNothingOfAMalformedMessage) {
  const std::string good = Text<ProcessingRequest>(
                               "request_headers { headers { headers { key: 'k' value: 'v' } } "
                               "end_of_stream: true }")
                               .SerializeAsString();
  std::vector<std::string> bad = {"\x12\x05", "\x13", "\x14", "\x02\x01x",
                                  "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
  for (size_t cut = 1; cut < good.size(); ++cut) bad.push_back(good.substr(0, cut));
  for (const std::string& bytes : bad) {
    RecordingDirector director;
    const auto processor =
        std::make_shared<Processor>(director, std::make_shared<NoSink>(), ProcessorOptions());
    EXPECT_FALSE(Dispatch(std::vector<std::string_view>{bytes}, *processor));
    EXPECT_EQ(director.told, "");
  }
}

TEST(WriteAnswer, HasTheCaseOfItsKind) {
  using Case = ProcessingResponse::ResponseCase;
  const std::vector<std::pair<Answer::Kind, Case>> table = {
      {Answer::Kind::kRequestHeaders, ProcessingResponse::kRequestHeaders},
      {Answer::Kind::kRequestBody, ProcessingResponse::kRequestBody},
      {Answer::Kind::kRequestTrailers, ProcessingResponse::kRequestTrailers},
      {Answer::Kind::kResponseHeaders, ProcessingResponse::kResponseHeaders},
      {Answer::Kind::kResponseBody, ProcessingResponse::kResponseBody},
      {Answer::Kind::kResponseTrailers, ProcessingResponse::kResponseTrailers},
      {Answer::Kind::kImmediate, ProcessingResponse::kImmediateResponse}};
  for (const auto& [kind, expected] : table) {
    Answer answer;
    answer.kind = kind;
    EXPECT_EQ(Convert(answer).response_case(), expected);
  }
}

}  // namespace
}  // namespace llmd::epp
