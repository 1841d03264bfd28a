#include "llmd/http/message.h"

#include <gtest/gtest.h>

namespace llmd::http {
namespace {

TEST(Headers, ComparesNamesWithoutCaseAndKeepsRepeats) {
  Headers headers{{"X-A", "1"}, {"x-b", "2"}};
  headers.Add("x-a", "3");
  EXPECT_EQ(headers.Get("X-a"), "1");
  EXPECT_EQ(headers.GetAll("x-A"), (std::vector<std::string_view>{"1", "3"}));
  EXPECT_FALSE(headers.Has("X-AB"));
}

TEST(Headers, SetReplacesEveryLineInPlaceOfTheFirst) {
  Headers headers{{"A", "1"}, {"B", "2"}, {"a", "3"}};
  headers.Set("a", "9");
  EXPECT_EQ(headers.lines(), (std::vector<Headers::Line>{{"A", "9"}, {"B", "2"}}));
  headers.Set("C", *headers.Get("B"));
  EXPECT_EQ(headers.Get("c"), "2");
  headers.Remove("A");
  EXPECT_FALSE(headers.Has("a"));
}

TEST(RequestHead, SplitsTargetAtTheFirstQuestionMark) {
  RequestHead head;
  head.target = "/v1/models?a=1?b";
  EXPECT_EQ(head.path(), "/v1/models");
  EXPECT_EQ(head.query(), "a=1?b");
  head.target = "/x";
  EXPECT_EQ(head.query(), "");
}

TEST(StripHopByHop, RemovesTheListedAndTheNamedLines) {
  Headers headers{{"Connection", "keep-alive, X-Drop"},
                  {"x-drop", "1"},
                  {"Keep-Alive", "5"},
                  {"connection", "x-too"},
                  {"X-Too", "2"},
                  {"Upgrade", "h2c"},
                  {"Transfer-Encoding", "chunked"},
                  {"TE", "trailers"},
                  {"X-Stay", "3"}};
  StripHopByHop(headers);
  EXPECT_EQ(headers.lines(), (std::vector<Headers::Line>{{"X-Stay", "3"}}));
}

TEST(ParseUrl, TakesBothSchemes) {
  const Url plain = *ParseUrl("http://engine-0.example:8000/v1/x?y=1");
  EXPECT_FALSE(plain.tls);
  EXPECT_EQ(plain.peer, (HostPort{"engine-0.example", 8000}));
  EXPECT_EQ(plain.target, "/v1/x?y=1");
  const Url secure = *ParseUrl("https://[::1]");
  EXPECT_TRUE(secure.tls);
  EXPECT_EQ(secure.peer, (HostPort{"::1", 443}));
  EXPECT_EQ(secure.target, "/");
  EXPECT_EQ(ParseUrl("http://a/")->peer, (HostPort{"a", 80}));
}

TEST(ParseUrl, RefusesEverythingElse) {
  for (const char* text :
       {"", "a:80", "ftp://a/", "http://", "http:///x", "http://a:0/", "http://a b/", "http://a/ b",
        "http://a?x", "http://a/#x", "https:/a", "http://[::1/x"}) {
    EXPECT_EQ(ParseUrl(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(ParseHostPort, TakesNamesAndAddresses) {
  EXPECT_EQ(*ParseHostPort("10.0.0.1:8000"), (HostPort{"10.0.0.1", 8000}));
  EXPECT_EQ(*ParseHostPort("[::1]:65535"), (HostPort{"::1", 65535}));
  EXPECT_EQ(*ParseHostPort("pod-1.ns_a.svc:1"), (HostPort{"pod-1.ns_a.svc", 1}));
  EXPECT_EQ(ParseHostPort("[::1]:80")->ToString(), "[::1]:80");
  EXPECT_EQ(ParseHostPort("a:80")->ToString(), "a:80");
}

TEST(ParseHostPort, RefusesEverythingElse) {
  for (const char* text : {"",
                           ":80",
                           "host",
                           "host:",
                           "host:0",
                           "host:65536",
                           "host:080",
                           "host:+80",
                           "host: 80",
                           "host:80 ",
                           "ho st:80",
                           "host:80/evil?x=",
                           "http://host:80",
                           "user@host:80",
                           "::1:80",
                           "[::1]",
                           "[::1",
                           "[]:80",
                           "[host]:80",
                           "256.1.1.1:80",
                           "1.2.3:80",
                           "a..b:80",
                           ".a:80",
                           "a.:80",
                           "host\n:80",
                           "[::1%lo]:80",
                           "a:1:2"}) {
    const auto parsed = ParseHostPort(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(ReasonPhrase, KnowsWhatWeSend) {
  EXPECT_EQ(ReasonPhrase(200), "OK");
  EXPECT_EQ(ReasonPhrase(431), "Request Header Fields Too Large");
  EXPECT_EQ(ReasonPhrase(299), "Unknown");
}

}  // namespace
}  // namespace llmd::http
