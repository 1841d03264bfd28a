#include "llmd/pd/usage_rewriter.h"

#include <gtest/gtest.h>

namespace llmd::pd {
namespace {

// Feeds `body` in pieces of `size` bytes.
std::string Through(UsageRewriter::Kind kind, const std::string& body, size_t size,
                    size_t max_held = 1 << 20) {
  UsageRewriter rewriter(kind, 5, max_held);
  std::string out;
  for (size_t at = 0; at < body.size(); at += size)
    out += rewriter.Feed(std::string_view(body).substr(at, size));
  return out + rewriter.End();
}

TEST(RewriteCachedTokens, ReplacesOnlyTheNumber) {
  const struct {
    const char *before, *after;
  } cases[] = {
      {R"({"id":9007199254740993,"usage":{"a":1.0,"prompt_tokens_details":{"cached_tokens":128,"x":"<&>"}}})",
       R"({"id":9007199254740993,"usage":{"a":1.0,"prompt_tokens_details":{"cached_tokens":5,"x":"<&>"}}})"},
      {R"( {"usage" : {"prompt_tokens_details" : {"cached_tokens" : null}}} )",
       R"( {"usage" : {"prompt_tokens_details" : {"cached_tokens" : 5}}} )"},
      {R"({"usage":{"input_tokens_details":{"cached_tokens":1}}})",
       R"({"usage":{"input_tokens_details":{"cached_tokens":5}}})"},
      {R"({"response":{"usage":{"input_tokens_details":{"cached_tokens":1}}}})",
       R"({"response":{"usage":{"input_tokens_details":{"cached_tokens":5}}}})"},
      {R"({"usage":{"prompt_tokens_details":null}})",
       R"({"usage":{"prompt_tokens_details":null}})"},
      {R"({"usage":null,"cached_tokens":7})", R"({"usage":null,"cached_tokens":7})"},
      {R"({"choices":[{"text":"\"usage\": {\"cached_tokens\":1}"}]})",
       R"({"choices":[{"text":"\"usage\": {\"cached_tokens\":1}"}]})"},
      {"not json", "not json"},
      {"", ""},
  };
  for (const auto& c : cases) EXPECT_EQ(RewriteCachedTokens(c.before, 5), c.after);
}

TEST(UsageRewriter, RewritesJsonOfAnySizeSplitAnywhere) {
  const std::string filler(200'000, 'x');
  const std::string head =
      R"({"text":")" + filler + R"(","usage":{"prompt_tokens_details":{"cached_tokens":)";
  for (size_t size : {1000, 4096, 300'000}) {
    EXPECT_EQ(Through(UsageRewriter::Kind::kJson, head + "777}}}", size), head + "5}}}") << size;
  }
}

TEST(UsageRewriter, JsonBeyondItsLimitPassesUnchanged) {
  const std::string body = R"({"text":")" + std::string(5000, 'x') +
                           R"(","usage":{"prompt_tokens_details":{"cached_tokens":1}}})";
  EXPECT_EQ(Through(UsageRewriter::Kind::kJson, body, 100, 1000), body);
}

TEST(UsageRewriter, RewritesSseUsageLinesSplitAnywhere) {
  const std::string before =
      ": comment with \"usage\"\n"
      "event: x\n"
      "data: {\"choices\":[{\"text\":\"a\"}]}\n\n"
      "data: "
      "{\"z\":1,\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":96}},\"a\":1.0}\r\n\r\n"
      "data:{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":96}}}\r\r"
      "data: {\"usage\":null}\n\n"
      "data: \"usage\" not json\n\n"
      "data: [DONE]\n\n";
  std::string after = before;
  for (size_t at = after.find(":96"); at != std::string::npos; at = after.find(":96"))
    after.replace(at, 3, ":5");
  for (size_t size = 1; size <= before.size(); ++size)
    EXPECT_EQ(Through(UsageRewriter::Kind::kSse, before, size), after) << size;
}

TEST(UsageRewriter, SseLinesGoOutAsSoonAsTheyAreWhole) {
  UsageRewriter rewriter(UsageRewriter::Kind::kSse, 5);
  EXPECT_EQ(rewriter.Feed("data: {\"a\":1}\n\ndata: {\"b"), "data: {\"a\":1}\n\n");
  EXPECT_EQ(rewriter.Feed("\":2}"), "");
  EXPECT_EQ(rewriter.Feed("\n\n"), "data: {\"b\":2}\n\n");
  EXPECT_EQ(rewriter.End(), "");
}

TEST(UsageRewriter, LastLineWithoutItsEndIsRewrittenToo) {
  EXPECT_EQ(Through(UsageRewriter::Kind::kSse,
                    "data: {\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":9}}}", 7),
            "data: {\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":5}}}");
}

TEST(UsageRewriter, EndlessLinesPassAndTheNextOneIsSeenAgain) {
  const std::string endless = "data: " + std::string(5000, 'x') + "\n";
  const std::string usage = "data: {\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":9}}}\n";
  std::string rewritten = usage;
  rewritten.replace(rewritten.find(":9"), 2, ":5");
  EXPECT_EQ(Through(UsageRewriter::Kind::kSse, endless + usage, 100, 1000), endless + rewritten);
}

}  // namespace
}  // namespace llmd::pd
