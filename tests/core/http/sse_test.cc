#include "llmd/http/sse.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace llmd::http {
namespace {

using Events = std::vector<std::pair<std::string, std::string>>;

Events ReadInPieces(SseReader& reader, std::string_view bytes, size_t piece) {
  Events events;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    reader.Feed(bytes.substr(at, piece), [&](const SseReader::Event& event) {
      events.emplace_back(std::string(event.type), std::string(event.data));
    });
  }
  return events;
}

TEST(SseFrame, PutsOneEvent) {
  EXPECT_EQ(SseFrame("{}"), "data: {}\n\n");
}

TEST(SseReader, ReadsTheSameEventsHoweverTheBytesAreSplit) {
  const std::string stream =
      "data: one\n\n"
      ": a comment\r\ndata:two\r\ndata: lines\r\n\r\n"
      "event: error\rdata: three\r\r"
      "id: 7\nretry\n\n"
      "data\n\n"
      "data:  four\n\ndata: unfinished";
  const Events expected = {
      {"", "one"}, {"", "two\nlines"}, {"error", "three"}, {"", ""}, {"", " four"}};
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    SseReader reader;
    ASSERT_EQ(ReadInPieces(reader, stream, piece), expected) << "pieces of " << piece;
  }
}

TEST(SseReader, DropsAndCountsEventsOverTheLimit) {
  const std::string big(100, 'x');
  for (size_t piece : {1, 7, 1000}) {
    SseReader reader(64);
    const Events events =
        ReadInPieces(reader,
                     "data: " + big + "\n\ndata: ok\n\ndata: " + big.substr(0, 40) +
                         "\ndata: " + big + "\n\ndata: end\n\n",
                     piece);
    EXPECT_EQ(events, (Events{{"", "ok"}, {"", "end"}})) << piece;
    EXPECT_EQ(reader.dropped_events(), 2u) << piece;
  }
}

}  // namespace
}  // namespace llmd::http
