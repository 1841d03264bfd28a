#include "gateway/ext_proc_endpoints.h"

#include <gtest/gtest.h>

namespace llmd::gateway {
namespace {

relay::Target At(const std::string& address) {
  return *relay::Target::Parse(address);
}

void Learn(EndpointBook& book, const std::string& address, int at = 0) {
  book.Learn(At(address), address, TimePoint(std::chrono::seconds(at)));
}

std::string Next(EndpointBook& book, const std::vector<std::string>& exclude,
                 const std::vector<EndpointBook::Key>& out) {
  const Endpoint* next = book.NextInTurn(exclude, out);
  return next == nullptr ? "" : std::string(next->address);
}

TEST(EndpointBook, GoesRoundThoseThatAreWell) {
  EndpointBook book;
  EXPECT_EQ(Next(book, {}, {}), "");
  for (const char* address : {"1.1.1.1:1", "1.1.1.1:2", "[::1]:3"}) Learn(book, address);
  Learn(book, "1.1.1.1:1");
  EXPECT_EQ(book.size(), 3U);
  EXPECT_EQ(Next(book, {}, {}), "1.1.1.1:1");
  EXPECT_EQ(Next(book, {}, {}), "1.1.1.1:2");
  EXPECT_EQ(Next(book, {}, {}), "[::1]:3");
  EXPECT_EQ(Next(book, {"1.1.1.1:1"}, {EndpointBook::KeyOf(At("1.1.1.1:2"))}), "[::1]:3");
  EXPECT_EQ(Next(book, {"1.1.1.1:1", "1.1.1.1:2", "[::1]:3"}, {}), "");
}

TEST(EndpointBook, NamesTheExcludedAndTheOthers) {
  EndpointBook book;
  for (const char* address : {"1.1.1.1:1", "1.1.1.1:2", "1.1.1.1:3"}) Learn(book, address);
  std::vector<std::string> exclude = {"1.1.1.1:1"}, others;
  book.AddThese(
      std::vector{EndpointBook::KeyOf(At("1.1.1.1:1")), EndpointBook::KeyOf(At("1.1.1.1:3")),
                  EndpointBook::KeyOf(At("9.9.9.9:9"))},
      exclude);
  EXPECT_EQ(exclude, (std::vector<std::string>{"1.1.1.1:1", "1.1.1.1:3"}));
  book.AddOthers(exclude, others);
  EXPECT_EQ(others, std::vector<std::string>{"1.1.1.1:2"});
}

TEST(EndpointBook, ForgetsWhatWasNamedLongestAgo) {
  EndpointBook book;
  for (int i = 0; i < int{EndpointBook::kMaxEndpoints}; ++i)
    Learn(book, "10.0.0.1:" + std::to_string(i + 1), i);
  Learn(book, "10.0.0.1:1", 100'000);
  Learn(book, "10.0.0.2:1", 100'001);
  EXPECT_EQ(book.size(), EndpointBook::kMaxEndpoints);
  std::vector<std::string> found;
  book.AddThese(
      std::vector{EndpointBook::KeyOf(At("10.0.0.1:1")), EndpointBook::KeyOf(At("10.0.0.1:2")),
                  EndpointBook::KeyOf(At("10.0.0.2:1")), EndpointBook::KeyOf(At("10.0.0.1:1024"))},
      found);
  EXPECT_EQ(found, (std::vector<std::string>{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:1024"}));
}

TEST(EndpointBook, KeysTellAddressesApart) {
  EXPECT_NE(EndpointBook::KeyOf(At("1.2.3.4:5")), EndpointBook::KeyOf(At("1.2.3.5:5")));
  EXPECT_NE(EndpointBook::KeyOf(At("1.2.3.4:5")), EndpointBook::KeyOf(At("1.2.3.4:6")));
  EXPECT_NE(EndpointBook::KeyOf(At("[::1]:5")), EndpointBook::KeyOf(At("[::1]:6")));
  EXPECT_NE(EndpointBook::KeyOf(At("[::1]:5")), 0U);
}

}  // namespace
}  // namespace llmd::gateway
