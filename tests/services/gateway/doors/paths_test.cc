#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/doors/cors.h"
#include "gateway/doors/glob.h"
#include "gateway/doors/path_rules.h"
#include "gateway/doors/refusal.h"
#include "llmd/json.h"
#include "support.h"

namespace llmd::doors {
namespace {

using ::testing::HasSubstr;

PathRules Rules(PathOptions options = {DefaultAllowedPaths(), {}}) {
  return PathRules::Create(std::move(options)).value();
}

TEST(Glob, StarsAndQuestionMarks) {
  EXPECT_TRUE(GlobMatches("", ""));
  EXPECT_TRUE(GlobMatches("*", ""));
  EXPECT_TRUE(GlobMatches("a*c*e", "abcde"));
  EXPECT_TRUE(GlobMatches("**x", "xxx"));
  EXPECT_TRUE(GlobMatches("a?c", "abc"));
  EXPECT_FALSE(GlobMatches("a?c", "ac"));
  EXPECT_FALSE(GlobMatches("a*c", "ab"));
  EXPECT_FALSE(GlobMatches("abc", "ABC"));
  // Linear enough: this would take ages by recursion.
  EXPECT_FALSE(GlobMatches(std::string(50, '*') + "b", std::string(5000, 'a')));
}

TEST(PathFault, RefusesWhatMayMeanAnotherPath) {
  for (const char* path :
       {"",          "v1/models",      "/v1/../admin", "/..",        "/v1/.",
        "/./v1",     "/v1/..%2fadmin", "/v1/%2e%2e/x", "/v1/%2E./x", "/v1\\..\\x",
        "/v1/..;/x", "/v1/x;y=1",      "/v1/%00",      "/v1/%5c",    "/v1/%5C",
        "/v1/%2F",   "/v1/%",          "/v1/%2",       "/v1/%zz",    "/v1/%63hat",
        "/v1/a b",   "/v1/\xc3\xbc",   "/v1/\x01",     "/v1/\x7f"})
    EXPECT_NE(PathFault(path), nullptr) << path;
  EXPECT_NE(PathFault(std::string_view("/v1/\0x", 6)), nullptr);
  for (const char* path : {"/", "/v1/chat/completions", "/v1/...", "/v1/..a", "/v1//x", "/a%20b",
                           "/a:b@c", "/v1/%C3%BC"})
    EXPECT_EQ(PathFault(path), nullptr) << path;
}

TEST(PathRules, KnowPathsAndMethods) {
  const PathRules rules = Rules();
  EXPECT_EQ(rules.Decide("POST", "/v1/chat/completions").route, Route::kChat);
  EXPECT_EQ(rules.Decide("POST", "/v1/messages/count_tokens").route, Route::kCountTokens);
  EXPECT_EQ(rules.Decide("HEAD", "/health").status, 0);
  EXPECT_EQ(rules.Decide("GET", "/v1/models/org%2Fname").route, Route::kModel);
  EXPECT_EQ(rules.Decide("POST", "/tokenize").route, Route::kOther);
  EXPECT_EQ(rules.Decide("DELETE", "/v1/responses/r1").route, Route::kOther);
  const PathDecision wrong = rules.Decide("GET", "/v1/chat/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.allowed, "POST, OPTIONS");
  EXPECT_EQ(rules.Decide("PUT", "/tokenize").status, 405);
  EXPECT_EQ(rules.Decide("OST", "/v1/completions").status, 405);
  EXPECT_EQ(rules.Decide("", "/v1/completions").status, 405);
  EXPECT_EQ(rules.Decide("OPTIONS", "/v1/completions").status, 0);
  for (const char* path :
       {"/v1/nothing", "/v1", "/v1/", "/v1/models/", "/V1/models", "/v1//completions", "/admin"})
    EXPECT_EQ(rules.Decide("GET", path).status, 404) << path;
  EXPECT_EQ(rules.Decide("POST", "/v1/..%2fadmin").status, 400);
}

TEST(PathRules, AllowAndDeny) {
  const PathRules all = Rules({{"/*"}, {"/admin/*", "/v1/embeddings", "/metrics"}});
  EXPECT_EQ(all.Decide("POST", "/anything/at/all").route, Route::kOther);
  EXPECT_EQ(all.Decide("POST", "/admin/stop").status, 404);
  EXPECT_EQ(all.Decide("POST", "/v1/embeddings").status, 404);
  EXPECT_EQ(all.Decide("GET", "/metrics").status, 404);
  const PathRules few = Rules({{}, {}});
  EXPECT_EQ(few.Decide("POST", "/tokenize").status, 404);
  EXPECT_THAT(PathRules::Create({{"tokenize"}, {}}).status().message(),
              HasSubstr("--allow-path 'tokenize': the path does not begin with '/'"));
  EXPECT_THAT(PathRules::Create({{}, {"/a/../b"}}).status().message(), HasSubstr("--deny-path"));
  EXPECT_FALSE(PathRules::Create({std::vector<std::string>(kMaxPathPatterns + 1, "/x"), {}}).ok());
}

TEST(PathRules, EveryRouteHasAName) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(Route::kOther); ++i)
    names.insert(NameOf(static_cast<Route>(i)));
  EXPECT_EQ(names.size(), static_cast<size_t>(Route::kOther) + 1);
  EXPECT_EQ(NameOf(Route::kEmbeddings), "embeddings");
  EXPECT_FALSE(names.contains(""));
}

TEST(ModelId, IsUnescaped) {
  std::string id;
  EXPECT_TRUE(ModelIdOf("/v1/models/org%2Fname%20x", id));
  EXPECT_EQ(id, "org/name x");
  EXPECT_TRUE(ModelIdOf("/v1/models/org/name", id));
  EXPECT_EQ(id, "org/name");
  EXPECT_FALSE(ModelIdOf("/v1/models/%2", id));
  EXPECT_FALSE(ModelIdOf("/v1/models/", id));
}

Cors MakeCors(std::vector<std::string> origins) {
  return Cors::Create({std::move(origins), {}, std::chrono::seconds(60)}).value();
}
std::string Joined(const HeaderEdit* edits, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i)
    out += std::string(edits[i].name) + "=" + std::string(edits[i].value.substr(0, 30)) + "|";
  return out;
}

TEST(Cors, AllowsItsOrigins) {
  EXPECT_FALSE(Cors().on());
  const Cors some = MakeCors({"https://a.example", "http://localhost:3000"});
  EXPECT_TRUE(some.on());
  EXPECT_TRUE(some.Allows("http://localhost:3000"));
  for (const char* origin : {"http://localhost", "https://a.example.evil", "null", "*", ""})
    EXPECT_FALSE(some.Allows(origin)) << origin;
  EXPECT_TRUE(MakeCors({"*"}).Allows("https://anything"));
}

TEST(Cors, SaysWhatBrowsersWantToKnow) {
  HeaderEdit edits[Cors::kMaxEdits];
  const Cors some = MakeCors({"https://a.example"});
  EXPECT_EQ(Joined(edits, some.PreflightEdits("https://a.example", "POST, OPTIONS", edits)),
            "access-control-allow-origin=https://a.example|vary=Origin|"
            "access-control-allow-methods=POST, OPTIONS|"
            "access-control-allow-headers=authorization, content-type, x|"
            "access-control-max-age=60|");
  EXPECT_EQ(Joined(edits, some.AnswerEdits("https://a.example", edits)),
            "access-control-allow-origin=https://a.example|vary=Origin|"
            "access-control-expose-headers=x-request-id, retry-after, x-r|");
  EXPECT_EQ(Joined(edits, some.AnswerEdits("", edits)), "vary=Origin|");
  EXPECT_EQ(Joined(edits, MakeCors({"*"}).AnswerEdits("", edits)), "");
  EXPECT_TRUE(Cors::IsPreflight(
      "OPTIONS", Span({{"Origin", "x"}, {"Access-Control-Request-Method", "POST"}})));
  EXPECT_FALSE(Cors::IsPreflight("OPTIONS", Span({{"Origin", "x"}})));
}

TEST(Cors, RefusesByName) {
  const auto error = [](CorsOptions options) { return Cors::Create(options).status().message(); };
  for (const char* origin : {"a.example", "https://a.example/", "https://A.example", "https://",
                             "://x", "https://u@a.example", "https://a b"})
    EXPECT_THAT(error({{origin}, {}}), HasSubstr(std::string("'") + origin + "'")) << origin;
  EXPECT_THAT(error({{"*", "https://a.example"}, {}}), HasSubstr("'*' stands for all"));
  EXPECT_THAT(error({{"*"}, {"x y"}}), HasSubstr("--cors-allow-header 'x y'"));
}

TEST(Refusal, IsReadByBothKindsOfClient) {
  Refusal refusal;
  refusal.Set(404, "model_not_found", "there is no model ", "model");
  AppendClientText(refusal.message, "a\"b\n\xff" + std::string(500, 'x'));
  std::string body;
  AppendErrorBody(refusal, false, body);
  const auto openai = json::Parse(body);
  ASSERT_TRUE(openai.ok()) << body;
  const json::Value& error = (*openai)["error"];
  EXPECT_EQ(error["type"].AsString(), "not_found_error");
  EXPECT_EQ(error["code"].AsString(), "model_not_found");
  EXPECT_EQ(error["param"].AsString(), "model");
  EXPECT_TRUE(error["message"].AsString().starts_with("there is no model 'a\"b??xxx"));
  EXPECT_LT(error["message"].AsString().size(), 160u);
  EXPECT_EQ(openai->Find("type"), nullptr);
  body.clear();
  refusal.Set(401, "invalid_api_key", "no");
  AppendErrorBody(refusal, true, body);
  EXPECT_EQ(body, R"({"type":"error","error":{"message":"no","type":"authentication_error",)"
                  R"("param":null,"code":"invalid_api_key"}})");
}

}  // namespace
}  // namespace llmd::doors
