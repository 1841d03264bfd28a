#include "http/parser.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace llmd::http {
namespace {

// The status a request head is refused with; 0 = taken.
int StatusOf(std::string_view bytes, HeadLimits limits = {}, ParsedRequest* out = nullptr) {
  HeadScanner scanner(limits);
  if (!scanner.Feed(bytes)) return scanner.error().ok() ? -1 : scanner.error().status;
  ParsedRequest local;
  return ParseRequest(bytes.substr(0, scanner.head_bytes()), out ? out : &local).status;
}

std::string WithLines(std::string_view lines) {
  return "POST /p HTTP/1.1\r\nHost: a\r\n" + std::string(lines) + "\r\n";
}

std::string Repeated(std::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

TEST(HeadScanner, FindsTheEndHoweverTheBytesArrive) {
  const std::string head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  HeadScanner scanner({});
  for (size_t n = 0; n < head.size(); ++n)
    ASSERT_FALSE(scanner.Feed(std::string_view(head).substr(0, n))) << n;
  ASSERT_TRUE(scanner.Feed(head + "body"));
  EXPECT_EQ(scanner.head_bytes(), head.size());
}

TEST(HeadScanner, BoundsBytesAndLines) {
  const HeadLimits limits{100, 3};
  EXPECT_EQ(StatusOf(WithLines("A: 1\r\nB: 2\r\n"), limits), 0);
  EXPECT_EQ(StatusOf(WithLines("A: 1\r\nB: 2\r\nC: 3\r\n"), limits), 431);
  EXPECT_EQ(StatusOf(WithLines("A: " + std::string(100, 'x') + "\r\n"), limits), 431);
  EXPECT_EQ(StatusOf("GET /" + std::string(200, 'x'), limits), 431);
}

TEST(HeadScanner, RefusesWhatIsNotHttpAtItsFirstByte) {
  EXPECT_EQ(StatusOf("\x16\x03\x01"), 400);
  EXPECT_EQ(StatusOf(" GET"), 400);
  EXPECT_EQ(StatusOf("GET / HTTP/1.1\nHost: a\n\n"), 400);
}

TEST(ParseRequest, RefusesWhatRfc9112CallsAnError) {
  const struct {
    std::string bytes;
    int status;
    const char* why;
  } cases[] = {
      {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two blanks"},
      {"GET /\r\nHost: a\r\n\r\n", 400, "no version"},
      {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "trailing blank"},
      {"GET / http/1.1\r\nHost: a\r\n\r\n", 400, "lower case version"},
      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "major version"},
      {"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"},
      {"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "blank in target"},
      {"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400, "control in target"},
      {"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "relative target"},
      {"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "scheme"},
      {"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "authority form"},
      {"GET / HTTP/1.1\r\n\r\n", 400, "no Host"},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "two Hosts"},
      {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "Host with a path"},
      {WithLines("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400, "both framings"},
      {WithLines("Content-Length: 5\r\nContent-Length: 6\r\n"), 400, "differing lengths"},
      {WithLines("Content-Length: 5, 5\r\n"), 400, "list of lengths"},
      {WithLines("Content-Length: +5\r\n"), 400, "sign"},
      {WithLines("Content-Length: 0x5\r\n"), 400, "hexadecimal"},
      {WithLines("Content-Length:\r\n"), 400, "empty length"},
      {WithLines("Content-Length: 9999999999999999999\r\n"), 400, "length over 64 bits"},
      {WithLines("Transfer-Encoding: gzip, chunked\r\n"), 400, "unknown coding"},
      {WithLines("Transfer-Encoding: identity\r\n"), 400, "identity"},
      {WithLines("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400,
       "twice chunked"},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "chunked in 1.0"},
      {WithLines("A: 1\r\n folded\r\n"), 400, "folded"},
      {WithLines("A : 1\r\n"), 400, "blank before the colon"},
      {WithLines(": 1\r\n"), 400, "empty name"},
      {WithLines("A\r\n"), 400, "no colon"},
      {WithLines(std::string("A: b\0c\r\n", 8)), 400, "NUL"},
      {WithLines("A: b\rc\r\n"), 400, "bare CR"},
      {WithLines("A: b\x01\r\n"), 400, "control"},
      {WithLines("Expect: something\r\n"), 417, "expectation"},
      {WithLines("Connection: " + Repeated("q, ", 17) + "\r\n"), 400, "17 names in Connection"},
      {WithLines("Connection: " + Repeated("q,", 9) + "\r\nConnection: " + Repeated("r,", 8) +
                 "\r\n"),
       400, "17 names in two lines"},
      {WithLines("Connection: " + Repeated("q,", 16) + Repeated(",close", 50) + "\r\n"), 0,
       "16 names, and what is none"},
  };
  for (const auto& c : cases) EXPECT_EQ(StatusOf(c.bytes), c.status) << c.why;
}

TEST(ParseRequest, ReadsLinesFramingAndPersistence) {
  ParsedRequest request;
  ASSERT_EQ(
      StatusOf(
          WithLines(
              "Content-Length: 5\r\nContent-Length: 5\r\nX: \t v w \t\r\nExpect: 100-Continue\r\n"),
          {}, &request),
      0);
  EXPECT_EQ(request.head.method, "POST");
  EXPECT_EQ(request.head.headers.Get("x"), "v w");
  EXPECT_EQ(request.head.headers.GetAll("content-length").size(), 1u);
  EXPECT_EQ(request.framing.kind, Framing::Kind::kLength);
  EXPECT_EQ(request.framing.length, 5u);
  EXPECT_TRUE(request.keep_alive);
  EXPECT_TRUE(request.expects_continue);
  ASSERT_EQ(
      StatusOf(WithLines("Connection: x, Close\r\nTransfer-Encoding: Chunked\r\n"), {}, &request),
      0);
  EXPECT_FALSE(request.keep_alive);
  EXPECT_EQ(request.framing.kind, Framing::Kind::kChunked);
  ASSERT_EQ(StatusOf("GET / HTTP/1.0\r\n\r\n", {}, &request), 0);
  EXPECT_FALSE(request.keep_alive);
  ASSERT_EQ(StatusOf("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", {}, &request), 0);
  EXPECT_TRUE(request.keep_alive);
}

TEST(ParseRequest, TurnsAbsoluteFormIntoOriginForm) {
  ParsedRequest request;
  ASSERT_EQ(StatusOf("GET http://real:1?q HTTP/1.1\r\nHost: other\r\n\r\n", {}, &request), 0);
  EXPECT_EQ(request.head.target, "/?q");
  EXPECT_EQ(request.head.headers.Get("Host"), "real:1");
}

int ResponseStatusOf(std::string_view bytes, ParsedResponse* out, bool to_head = false) {
  HeadScanner scanner({});
  if (!scanner.Feed(bytes)) return -1;
  return ParseResponse(bytes.substr(0, scanner.head_bytes()), to_head, out).status;
}

TEST(ParseResponse, DecidesTheFraming) {
  ParsedResponse r;
  ASSERT_EQ(ResponseStatusOf("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &r), 0);
  EXPECT_EQ(r.framing.length, 3u);
  EXPECT_EQ(r.head.reason, "OK");
  ASSERT_EQ(ResponseStatusOf("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &r, true), 0);
  EXPECT_EQ(r.framing.kind, Framing::Kind::kNone);
  ASSERT_EQ(ResponseStatusOf("HTTP/1.1 204\r\n\r\n", &r), 0);
  EXPECT_EQ(r.framing.kind, Framing::Kind::kNone);
  ASSERT_EQ(ResponseStatusOf("HTTP/1.0 200 OK\r\n\r\n", &r), 0);
  EXPECT_EQ(r.framing.kind, Framing::Kind::kUntilClose);
  EXPECT_FALSE(r.keep_alive);
}

TEST(ParseResponse, RefusesJunk) {
  ParsedResponse r;
  for (const char* bytes :
       {"HTTP/1.1 2OO OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n", "HTTP/1.1\r\n\r\n", "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"}) {
    EXPECT_GT(ResponseStatusOf(bytes, &r), 0) << bytes;
  }
}

// The content of a chunked body fed in pieces; "BAD" on an error, "MORE" when it does not end.
std::string Decode(std::string_view wire, size_t piece_bytes, size_t* used = nullptr) {
  BodyDecoder decoder(Framing{Framing::Kind::kChunked, 0});
  std::string content;
  size_t at = 0, have = 0;
  while (true) {
    size_t framing = 0;
    std::string_view piece;
    const auto state = decoder.Next(wire.substr(at, have - at), &framing, &piece);
    at += framing + piece.size();
    content.append(piece);
    if (used) *used = at;
    if (state == BodyDecoder::State::kBad) return "BAD";
    if (state == BodyDecoder::State::kEnd) return content;
    if (state == BodyDecoder::State::kPiece) continue;
    if (have == wire.size()) return "MORE";
    have = std::min(wire.size(), have + piece_bytes);
  }
}

TEST(BodyDecoder, ReadsChunksHoweverTheyAreSplit) {
  const std::string wire =
      "5\r\nhello\r\n1 ;a=b;c=\"d\"\r\n \r\n005\r\nworld\r\n0\r\nTrailer: x\r\nB: y\r\n\r\n";
  for (size_t piece = 1; piece <= wire.size() + 4; ++piece) {
    size_t used = 0;
    ASSERT_EQ(Decode(wire + "next", piece, &used), "hello world") << piece;
    ASSERT_EQ(used, wire.size()) << piece;
  }
}

TEST(BodyDecoder, RefusesBadChunks) {
  for (const std::string& wire :
       {std::string("\r\n"), std::string("g\r\n"), std::string("-1\r\n"),
        std::string("0x5\r\nhello"), std::string(" 5\r\nhello"), std::string("5\nhello"),
        std::string("5\rxhello"), std::string("5\r\nhelloX"), std::string("5\r\nhello\n"),
        std::string("5 x\r\nhello"), std::string("fffffffffffffffff\r\n"),
        std::string("5;a\nhello"), std::string("5;\0\r\n", 5), std::string("0\r\n bad: 1\r\n"),
        "5;" + std::string(5000, 'x') + "\r\n",
        "0\r\nA: " + std::string(20000, 'x') + "\r\n\r\n"}) {
    EXPECT_EQ(Decode(wire, 3), "BAD") << wire.substr(0, 20);
  }
  EXPECT_EQ(Decode("5\r\nhello\r\n0\r\n", 100), "MORE");
}

TEST(BodyDecoder, SurvivesRandomBytes) {
  std::mt19937 random(20261124);
  const std::string_view alphabet = "0123456789abcdef\r\n; :xPOSTHTTP/1.1";
  for (int round = 0; round < 20000; ++round) {
    std::string wire = round % 2 ? "POST / HTTP/1.1\r\nHost: a\r\n" : "";
    for (int i = 0; i < 40; ++i) wire += alphabet[random() % alphabet.size()];
    (void)StatusOf(wire + "\r\n\r\n");
    const std::string one = Decode(wire, 1);
    ASSERT_EQ(one, Decode(wire, wire.size())) << wire;
  }
}

}  // namespace
}  // namespace llmd::http
