#include "cli/bench/response_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "perf/count_allocations.h"

namespace llmd::bench {
namespace {

using State = ResponseReader::State;
using ::testing::HasSubstr;

std::string Chunked(const std::vector<std::string>& pieces) {
  std::string out;
  char size[16];
  for (const std::string& piece : pieces) {
    std::snprintf(size, sizeof(size), "%zx\r\n", piece.size());
    out += size + piece + "\r\n";
  }
  return out + "0\r\n\r\n";
}

std::string Stream(const std::vector<std::string>& events) {
  std::vector<std::string> pieces;
  for (const std::string& event : events) pieces.push_back("data: " + event + "\n\n");
  return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
         "Transfer-Encoding: chunked\r\n\r\n" +
         Chunked(pieces);
}

std::string Delta(const std::string& content) {
  return R"({"id":"c","choices":[{"index":0,"delta":{"content":")" + content + R"("}}]})";
}

const std::string kRole = R"({"choices":[{"delta":{"role":"assistant","content":""}}]})";
const std::string kUsage =
    R"({"choices":[],"usage":{"prompt_tokens":31,"total_tokens":35,"completion_tokens":4,)"
    R"("prompt_tokens_details":{"cached_tokens":16}}})";

const std::vector<std::string> kEvents = {
    kRole, Delta("Hel"), Delta(R"(l\"o\\)"), Delta(""), Delta("!"), kUsage, "[DONE]"};

void ExpectWhole(const ResponseReader& reader) {
  const Answer& a = reader.answer();
  EXPECT_EQ(a.status, 200);
  EXPECT_TRUE(a.event_stream);
  EXPECT_TRUE(a.done_seen);
  EXPECT_FALSE(a.error_seen);
  EXPECT_EQ(a.events, 6u);
  EXPECT_EQ(a.token_events, 3u);
  EXPECT_TRUE(a.has_usage);
  EXPECT_EQ(a.prompt_tokens, 31u);
  EXPECT_EQ(a.completion_tokens, 4u);
  EXPECT_EQ(a.cached_tokens, 16u);
  EXPECT_EQ(reader.text(), R"(Hell\"o\\!)");
  EXPECT_TRUE(reader.keep_alive());
}

// Every way to cut the answer in two, and byte by byte.
TEST(ResponseReader, CountsAStreamHoweverItIsSplit) {
  const std::string wire = Stream(kEvents);
  ResponseReader reader;
  for (size_t cut = 1; cut < wire.size(); ++cut) {
    reader.Start({.text = true});
    ASSERT_EQ(reader.Feed(std::string_view(wire).substr(0, cut), 5), State::kMore) << cut;
    ASSERT_EQ(reader.Feed(std::string_view(wire).substr(cut), 6), State::kDone) << cut;
    ExpectWhole(reader);
  }
  reader.Start({.text = true});
  for (size_t i = 0; i < wire.size(); ++i) {
    const State state = reader.Feed(std::string_view(wire).substr(i, 1), 5);
    ASSERT_EQ(state, i + 1 < wire.size() ? State::kMore : State::kDone);
  }
  ExpectWhole(reader);
}

TEST(ResponseReader, TimesTokensNotTheRoleOrEmptyText) {
  Histogram gaps, other;
  ResponseReader reader;
  reader.Start({.gaps = {&gaps, nullptr, &other}});
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
  EXPECT_EQ(reader.Feed(head + "data: " + kRole + "\n\n", 10), State::kMore);
  EXPECT_EQ(reader.Feed("data: " + Delta("a") + "\n\n", 20), State::kMore);
  EXPECT_EQ(reader.Feed(": comment\n\ndata: " + Delta("") + "\n\n", 30), State::kMore);
  EXPECT_EQ(reader.Feed("data: " + Delta("b") + "\r\n\r\ndata:[DONE]\n\n", 50), State::kMore);
  EXPECT_EQ(reader.FeedEnd(), State::kDone);
  EXPECT_EQ(reader.answer().first_token, 20);
  EXPECT_EQ(reader.answer().last_token, 50);
  EXPECT_TRUE(reader.answer().done_seen);
  EXPECT_FALSE(reader.keep_alive());
  EXPECT_EQ(gaps.count(), 1u);
  EXPECT_EQ(gaps.max(), 30);
  EXPECT_EQ(other.max(), 30);
}

TEST(ResponseReader, OtherKindsOfTokens) {
  ResponseReader reader;
  const auto tokens = [&](const std::string& event) {
    reader.Start({});
    EXPECT_EQ(reader.Feed(Stream({event}), 1), State::kDone);
    return reader.answer().token_events;
  };
  EXPECT_EQ(tokens(R"({"choices":[{"text":"x","logprobs":null}]})"), 1u);
  EXPECT_EQ(tokens(R"({"choices": [{"delta": {"content": "x"}}]})"), 1u);
  EXPECT_EQ(tokens(R"({"choices":[{"delta":{"reasoning_content":"x"}}]})"), 1u);
  EXPECT_EQ(tokens(R"({"choices":[{"delta":{"tool_calls":[{"index":0}]}}]})"), 1u);
  EXPECT_EQ(tokens(R"({"choices":[{"delta":{"content":null},"finish_reason":"stop"}]})"), 0u);
  EXPECT_EQ(tokens(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})"), 0u);
  // What looks like a key inside a string is none.
  EXPECT_EQ(tokens(R"({"id":"\"content\":\"x\"","choices":[]})"), 0u);
}

TEST(ResponseReader, SeesErrorsInStreams) {
  ResponseReader reader;
  reader.Start({});
  EXPECT_EQ(reader.Feed(Stream({Delta("a"), R"({"error":{"message":"m"}})"}), 1), State::kDone);
  EXPECT_TRUE(reader.answer().error_seen);
  EXPECT_FALSE(reader.answer().done_seen);
}

TEST(ResponseReader, ReadsUsageAndTextOfAWholeBody) {
  const std::string body = R"({"choices":[{"message":{"role":"assistant","content":"a\nb"}}],)"
                           R"("usage":{"prompt_tokens":3,"completion_tokens":2}})";
  ResponseReader reader;
  reader.Start({.usage = true, .text = true});
  const std::string wire = "HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(body.size()) +
                           "\r\nContent-Type: application/json\r\n\r\n" + body;
  EXPECT_EQ(reader.Feed(wire, 1), State::kDone);
  EXPECT_EQ(reader.answer().completion_tokens, 2u);
  EXPECT_EQ(reader.text(), R"(a\nb)");
  EXPECT_EQ(reader.answer().body_bytes, body.size());
}

TEST(ResponseReader, FramingOfAllKinds) {
  ResponseReader reader;
  reader.Start({});
  EXPECT_EQ(reader.Feed("HTTP/1.1 204 No Content\r\n\r\n", 1), State::kDone);
  reader.Start({.no_body = true});
  EXPECT_EQ(reader.Feed("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 1), State::kDone);
  reader.Start({});
  EXPECT_EQ(
      reader.Feed("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 1),
      State::kDone);
  EXPECT_EQ(reader.answer().status, 200);
  reader.Start({});
  EXPECT_EQ(reader.Feed("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 1), State::kDone);
  EXPECT_FALSE(reader.keep_alive());
  reader.Start({});
  EXPECT_EQ(reader.Feed("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 1),
            State::kDone);
  EXPECT_FALSE(reader.keep_alive());
  reader.Start({});
  EXPECT_EQ(reader.Feed("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", 1), State::kMore);
  EXPECT_EQ(reader.FeedEnd(), State::kBad);
}

TEST(ResponseReader, RefusesWhatIsNoAnswer) {
  ResponseReader reader;
  const auto error = [&](const std::string& wire) {
    reader.Start({});
    return reader.Feed(wire, 1) == State::kBad ? std::string(reader.error()) : "";
  };
  EXPECT_THAT(error("SSH-2.0-OpenSSH\r\n\r\n"), HasSubstr("not an HTTP/1 answer"));
  EXPECT_THAT(error("HTTP/1.1 xyz OK\r\n\r\n"), HasSubstr("status"));
  EXPECT_THAT(error("HTTP/1.1 600 OK\r\n\r\n"), HasSubstr("status"));
  EXPECT_THAT(error("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), HasSubstr("Content-Length"));
  EXPECT_THAT(error("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
              HasSubstr("Content-Length"));
  EXPECT_THAT(error("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
              HasSubstr("Transfer-Encoding"));
  EXPECT_THAT(error("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), HasSubstr("without a name"));
  EXPECT_THAT(error("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy"), HasSubstr("behind"));
  EXPECT_THAT(error("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
              HasSubstr("chunked"));
  EXPECT_THAT(error("HTTP/1.1 200 OK\r\nA: " + std::string(70'000, 'a')), HasSubstr("64 KiB"));
}

TEST(ResponseReader, BoundsWhatItKeeps) {
  ResponseReader reader;
  reader.Start({});
  EXPECT_EQ(reader.Feed("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ", 1),
            State::kMore);
  const std::string piece(100'000, 'x');
  State state = State::kMore;
  for (int i = 0; i < 20 && state == State::kMore; ++i) state = reader.Feed(piece, 1);
  EXPECT_EQ(state, State::kBad);
  EXPECT_THAT(reader.error(), HasSubstr("event above 1 MiB"));
}

TEST(ResponseReader, AllocatesNothingForAnEvent) {
  Histogram gaps;
  ResponseReader reader;
  const std::string head =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
      "Transfer-Encoding: chunked\r\n\r\n";
  const std::string events = "data: " + Delta("word") + "\n\ndata: " + Delta("more") + "\n\n";
  char size[16];
  std::snprintf(size, sizeof(size), "%zx\r\n", events.size());
  const std::string chunk = size + events + "\r\n";
  const auto stream = [&] {
    reader.Start({.gaps = {&gaps}});
    ASSERT_EQ(reader.Feed(head, 1), State::kMore);
    for (int i = 0; i < 1000; ++i) {
      // In two parts, the second event cut.
      ASSERT_EQ(reader.Feed(std::string_view(chunk).substr(0, 100), i), State::kMore);
      ASSERT_EQ(reader.Feed(std::string_view(chunk).substr(100), i), State::kMore);
    }
    ASSERT_EQ(reader.Feed("0\r\n\r\n", 2000), State::kDone);
  };
  stream();  // buffers grow once
  const size_t before = g_allocations;
  stream();
  EXPECT_EQ(g_allocations - before, 0u);
  EXPECT_EQ(reader.answer().token_events, 2000u);
}

}  // namespace
}  // namespace llmd::bench
