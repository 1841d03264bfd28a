#include "common/page_reader.h"

#include <gtest/gtest.h>

namespace llmd::services {
namespace {

// The body, or the status's name, when the answer comes in pieces of `step` bytes and then ends.
std::string Read(std::string_view wire, size_t step, size_t max = 1000, bool* keep = nullptr) {
  PageReader reader(max);
  StatusOr<bool> whole = false;
  for (size_t at = 0; at < wire.size() && whole.ok() && !*whole; at += step)
    whole = reader.Feed(wire.substr(at, step));
  if (whole.ok() && !*whole) whole = reader.FeedEnd();
  if (keep != nullptr) *keep = reader.keep_alive();
  if (!whole.ok()) return "error: " + whole.status().message();
  return std::to_string(reader.status()) + " " + reader.TakeBody();
}

class PageReaderTest : public ::testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(Steps, PageReaderTest, ::testing::Values(1, 2, 7, 10'000));

TEST_P(PageReaderTest, ReadsALengthAChunkedAndAnOpenEndedBody) {
  bool keep = false;
  EXPECT_EQ(Read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", GetParam(), 5, &keep),
            "200 hello");
  EXPECT_TRUE(keep);
  EXPECT_EQ(Read("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=1\r\nhel\r\n2\r\nlo\r\n0"
                 "\r\nx-trailer: 1\r\n\r\n",
                 GetParam(), 5, &keep),
            "200 hello");
  EXPECT_TRUE(keep);
  EXPECT_EQ(Read("HTTP/1.1 503 No\r\n\r\nhello", GetParam(), 5, &keep), "503 hello");
  EXPECT_FALSE(keep);
  EXPECT_EQ(Read("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", GetParam()), "200 ");
}

TEST_P(PageReaderTest, KnowsWhenTheConnectionIsNotKept) {
  bool keep = true;
  Read("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx", GetParam(), 5, &keep);
  EXPECT_FALSE(keep);
  Read("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", GetParam(), 5, &keep);
  EXPECT_FALSE(keep);
}

TEST_P(PageReaderTest, RefusesWhatIsNoAnswerOrTooLarge) {
  for (const char* wire : {
           "SSH-2.0-OpenSSH_9.2\r\n\r\n",
           "HTTP/1.1 abc OK\r\n\r\n",
           "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
           "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
           "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
           "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
           "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
           "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
           "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello",
           "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
           "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
           "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello!",
           "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello!\r\n0\r\n\r\n",
           "HTTP/1.1 200 OK\r\n\r\nhello!",
           "",
       }) {
    EXPECT_TRUE(Read(wire, GetParam(), 5).starts_with("error: ")) << wire;
  }
  EXPECT_TRUE(Read("HTTP/1.1 200 OK\r\nx: " + std::string(70'000, 'x'), 10'000)
                  .starts_with("error: the answer's head"));
}

TEST(PageReader, ServesTheNextAnswerAfterReset) {
  PageReader reader(100);
  ASSERT_TRUE(*reader.Feed("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"));
  reader.Reset();
  EXPECT_FALSE(reader.started());
  ASSERT_TRUE(*reader.Feed("HTTP/1.1 404 No\r\ncontent-length: 1\r\n\r\nb"));
  EXPECT_EQ(reader.status(), 404);
  EXPECT_EQ(reader.TakeBody(), "b");
}

}  // namespace
}  // namespace llmd::services
