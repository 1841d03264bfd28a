#include "epp/convert.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

namespace llmd::epp {
namespace {

using envoy::config::core::v3::HeaderMap;
using envoy::config::core::v3::HeaderValueOption;
using envoy::config::core::v3::Metadata;
using envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
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

TEST(ToHeaderList, PrefersRawValueLowersNamesAndKeepsRepeats) {
  const auto map = Text<HeaderMap>(
      "headers { key: 'Cookie' raw_value: 'a' value: 'ignored' } headers { key: 'cookie' value: "
      "'b' }");
  EXPECT_THAT(ToHeaderList(map), ElementsAre(Pair("cookie", "a"), Pair("cookie", "b")));
}

Metadata Hint(const std::string& value) {
  return Text<Metadata>(
      "filter_metadata { key: 'envoy.lb.subset_hint' value { fields { key: "
      "'x-gateway-destination-endpoint-subset' value { " +
      value + " } } } }");
}

TEST(ToSubsetHint, TakesListsAndCommaSeparatedStrings) {
  const SubsetHint list = ToSubsetHint(
      Hint("list_value { values { string_value: '10.0.0.1:1' } values { string_value: ' "
           "10.0.0.2:2 ' } }"));
  EXPECT_TRUE(list.present);
  EXPECT_THAT(list.endpoints, ElementsAre("10.0.0.1:1", "10.0.0.2:2"));
  const SubsetHint text = ToSubsetHint(Hint("string_value: '10.0.0.1:1, 10.0.0.2:2,,'"));
  EXPECT_THAT(text.endpoints, ElementsAre("10.0.0.1:1", "10.0.0.2:2"));
}

TEST(ToSubsetHint, TellsAnEmptyListFromNoHint) {
  const SubsetHint empty = ToSubsetHint(Hint("list_value {}"));
  EXPECT_TRUE(empty.present);
  EXPECT_THAT(empty.endpoints, IsEmpty());
  EXPECT_FALSE(ToSubsetHint(Metadata()).present);
}

ProcessingResponse Convert(const Answer& answer) {
  ProcessingResponse out;
  FromAnswer(answer, out);
  return out;
}

TEST(FromAnswer, WritesAReportAsNumbersUnderItsNamespaces) {
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

TEST(FromAnswer, WritesHeadersRawWithOverwriteAndMetadata) {
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

TEST(FromAnswer, WritesBodyPiecesAsStreamedResponses) {
  Answer answer;
  answer.kind = Answer::Kind::kResponseBody;
  const std::string body("a\0b", 3);
  answer.body = body;
  answer.end_of_stream = true;
  const auto piece = Convert(answer).response_body().response().body_mutation().streamed_response();
  EXPECT_EQ(piece.body(), body);
  EXPECT_TRUE(piece.end_of_stream());
}

TEST(FromAnswer, WritesARefusal) {
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

TEST(FromAnswer, WritesAChunkOfAStreamedBodyOnlyWhenItChanged) {
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

TEST(FromAnswer, AsksForNoBodiesButKeepsTheStream) {
  Answer answer;
  answer.kind = Answer::Kind::kResponseHeaders;
  EXPECT_FALSE(Convert(answer).has_mode_override());
  answer.skip_bodies = true;
  const auto mode = Convert(answer).mode_override();
  EXPECT_EQ(mode.response_body_mode(), ProcessingMode::NONE);
  EXPECT_EQ(mode.request_body_mode(), ProcessingMode::FULL_DUPLEX_STREAMED);
  EXPECT_EQ(mode.response_trailer_mode(), ProcessingMode::SEND);
}

TEST(FromAnswer, HasTheCaseOfItsKind) {
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
