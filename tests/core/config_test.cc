#include "llmd/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>

namespace llmd::config {
namespace {

using std::chrono::nanoseconds;

Node Must(std::string_view text) {
  auto node = Parse(text);
  EXPECT_TRUE(node.ok()) << node.status().ToString();
  return node.ok() ? *node : Node();
}

std::string ErrorOf(const Status& status) {
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  return status.message();
}

constexpr char kPlugins[] = R"(# comment
plugins:
- type: queue-scorer
  parameters:
    threshold: 5
    name: "7"
- type: picker
flow:
  bands:
    - {max: 3, timeout: 1m30s}
    - max: many
)";

TEST(Config, ReadsTypedValuesByPath) {
  const Node root = Must(kPlugins);
  EXPECT_TRUE(root.IsMap());
  const auto plugins = root.Get("plugins").Items();
  ASSERT_EQ(plugins.size(), 2u);
  EXPECT_EQ(*plugins[0].Get("type").String(), "queue-scorer");
  EXPECT_EQ(*plugins[0].Get("parameters").Get("threshold").Int(), 5);
  EXPECT_EQ(*plugins[0].Get("parameters").Get("name").String(), "7");
  const auto bands = root.Get("flow").Get("bands").Items();
  EXPECT_EQ(*bands[0].Get("timeout").Duration(), std::chrono::seconds(90));
  EXPECT_EQ(bands[1].Get("max").path(), "flow.bands[1].max");
  EXPECT_EQ(bands[1].Get("max").line(), 11);
}

TEST(Config, ErrorsNameLineAndPath) {
  const Node root = Must(kPlugins);
  EXPECT_EQ(ErrorOf(root.Get("flow").Get("bands").Items()[1].Get("max").Int().status()),
            "line 11: flow.bands[1].max: expected an integer, got 'many'");
  EXPECT_EQ(ErrorOf(root.Get("plugins").Items()[1].Get("parameters").Get("x").Int().status()),
            "line 7: plugins[1].parameters.x: expected an integer, got nothing");
  EXPECT_EQ(ErrorOf(root.Get("flow").String().status()),
            "line 9: flow: expected a string, got a map");
}

TEST(Config, RefusesUnknownKeysAndNamesTheNearest) {
  const Node root = Must("treshold: 1\nb: {deep: {x: 1, y: 2}}\n");
  root.Get("threshold");
  root.Get("b").Get("deep").Get("x");
  EXPECT_EQ(ErrorOf(root.RejectUnknown()),
            "line 1: treshold: unknown key; did you mean 'threshold'?\n"
            "line 2: b.deep.y: unknown key; known keys: x");
  root.Get("treshold");
  EXPECT_EQ(ErrorOf(root.RejectUnknown()), "line 2: b.deep.y: unknown key; known keys: x");
  EXPECT_TRUE(root.RejectUnknown(false).ok());
  root.Get("b").Get("deep").Get("y");
  EXPECT_TRUE(root.RejectUnknown().ok());
}

TEST(Config, RefusesUnknownKeysInsideLists) {
  const Node root = Must("list:\n- {a: 1}\n- {a: 1, zzzzz: 2}\n");
  for (const Node& item : root.Get("list").Items()) item.Get("a");
  EXPECT_EQ(ErrorOf(root.RejectUnknown()), "line 3: list[1].zzzzz: unknown key; known keys: a");
}

TEST(Config, RefusesEveryKeyOfAMapThatKnowsNone) {
  const Node root = Must("a: 1");
  EXPECT_FALSE(root.RejectUnknown().ok());
  EXPECT_EQ(root.Members().size(), 1u);
  EXPECT_TRUE(root.RejectUnknown().ok());
}

TEST(Config, ToJsonCountsAsReadAndTypesScalars) {
  const Node root = Must(
      "a: {i: -3, h: 0x1F, d: 1.5, s: x, q: '1', b: true, n: ~, e: , l: [1, null], inf: .inf}");
  EXPECT_EQ(
      root.Get("a").ToJson().Dump(),
      R"({"i":-3,"h":31,"d":1.5,"s":"x","q":"1","b":true,"n":null,"e":null,"l":[1,null],"inf":null})");
  EXPECT_TRUE(root.RejectUnknown().ok());
}

TEST(Config, SameAsComparesContentWithoutReadingIt) {
  const Node root = Must("a: {x: 1, y: [b, {c: 2}]}\nb: {y: [b, {c: 2}], x: 1}\nc: {x: 1}\nd: ~\n");
  EXPECT_TRUE(root.Get("a").SameAs(root.Get("b")));
  EXPECT_FALSE(root.Get("a").SameAs(root.Get("c")));
  EXPECT_FALSE(Must("a: '1'").Get("a").SameAs(Must("a: 1").Get("a"))) << "a string is no number";
  EXPECT_FALSE(Must("a: [1, 2]").SameAs(Must("a: [2, 1]")));
  EXPECT_TRUE(root.Get("d").SameAs(root.Get("absent")));
  EXPECT_FALSE(root.Get("d").SameAs(root.Get("c")));
  root.Get("a").Get("x");
  EXPECT_NE(ErrorOf(root.RejectUnknown()).find("a.y: unknown key"), std::string::npos);
}

TEST(Config, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_EQ(ErrorOf(Parse("a: 1\nb: 2\na: 3\n").status()), "line 3: a: the key stands twice");
  EXPECT_EQ(ErrorOf(Parse("p:\n- x: 1\n- y: {k: 1,\n   k: 2}\n").status()),
            "line 4: p[1].y.k: the key stands twice");
  EXPECT_FALSE(Parse("{\"a\":1,\"\\u0061\":2}").ok());
}

TEST(Config, RefusesMergeKeysTagsAndOddKeys) {
  EXPECT_NE(ErrorOf(Parse("a: &x {k: 1}\nb:\n  <<: *x\n").status()).find("line 3: b: merge keys"),
            std::string::npos);
  EXPECT_FALSE(Parse("a: !!binary aGk=").ok());
  EXPECT_FALSE(Parse("a: !custom {}").ok());
  EXPECT_EQ(*Must("a: !!str 12").Get("a").String(), "12");
  EXPECT_FALSE(Parse("? [a, b]\n: 1\n").ok());
  EXPECT_FALSE(Parse("a: &x 1\n*x : 2\n").ok());
  EXPECT_FALSE(Parse(std::string(2000, 'k') + ": 1").ok());
}

TEST(Config, RefusesSeveralDocumentsAndBrokenText) {
  EXPECT_NE(ErrorOf(Parse("a: 1\n---\nb: 2\n").status()).find("several documents"),
            std::string::npos);
  EXPECT_TRUE(Parse("---\na: 1\n...\n").ok());
  for (const char* text :
       {"a: [1", "a: b: c", "{a: 1", "\"x", "a: *unknown", "\t- x: [", "a: 'x"}) {
    EXPECT_FALSE(Parse(text).ok()) << text;
  }
  EXPECT_NE(ErrorOf(Parse("a: 1\nb: [1\n").status()).find("line "), std::string::npos);
}

TEST(Config, EmptyTextIsNull) {
  for (const char* text : {"", "# only a comment\n", "~", "---\n"}) {
    const Node root = Must(text);
    EXPECT_TRUE(root.IsNull()) << text;
    EXPECT_TRUE(root.RejectUnknown().ok());
    EXPECT_FALSE(root.Has("a"));
    EXPECT_TRUE(root.ToJson().is_null());
  }
  EXPECT_TRUE(Node().Get("a").Get("b").IsNull());
  EXPECT_EQ(Node().Get("a").Get("b").path(), "a.b");
}

TEST(Config, AliasesAreCopiesWithTheirOwnUnknownKeys) {
  const Node root = Must("a: &x {k: 1, z: 2}\nb: *x\n");
  root.Get("a").Get("k");
  root.Get("a").Get("z");
  root.Get("b").Get("k");
  EXPECT_EQ(ErrorOf(root.RejectUnknown()), "line 1: b.z: unknown key; known keys: k");
  EXPECT_EQ(*root.Get("b").Get("k").Int(), 1);
}

TEST(Config, BoundsAliasBombs) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += (j ? ", *a" : "*a") + std::to_string(i - 1);
    bomb += "]\n";
  }
  EXPECT_NE(ErrorOf(Parse(bomb).status()).find("nodes, aliases expanded"), std::string::npos);
  std::string wide = "a: &a '" + std::string(1000, 'x') + "'\nl: [";
  for (int i = 0; i < 2000; ++i) wide += "*a, ";
  EXPECT_NE(ErrorOf(Parse(wide + "]").status()).find("aliases expand to more"), std::string::npos);
  EXPECT_NE(ErrorOf(Parse("a: &a [*a]").status()).find("inside the node it names"),
            std::string::npos);
}

TEST(Config, BoundsSizeDepthAndNodes) {
  EXPECT_FALSE(Parse(std::string(2000, '#'), {.max_bytes = 1000}).ok());
  EXPECT_FALSE(Parse("[1, 2, 3]", {.max_nodes = 3}).ok());
  EXPECT_TRUE(Parse("[1, 2, 3]", {.max_nodes = 4}).ok());
  EXPECT_TRUE(Parse("[[1]]", {.max_depth = 2}).ok());
  EXPECT_FALSE(Parse("[[[1]]]", {.max_depth = 2}).ok());
  EXPECT_FALSE(Parse("a: &a [1]\nb: [*a]\n", {.max_depth = 2}).ok());
  EXPECT_FALSE(Parse(std::string(100'000, '[')).ok());
  EXPECT_FALSE(Parse(std::string(100'000, '{')).ok());
  std::string block;
  for (int i = 0; i < 400; ++i) block += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_FALSE(Parse(block).ok());
}

TEST(Config, TypesAreStrict) {
  const Node root =
      Must("i: 12\nq: '12'\nf: 1.5\nb: yes\nt: true\nbig: 99999999999999999999\nn: null\n");
  EXPECT_FALSE(root.Get("q").Int().ok());
  EXPECT_FALSE(root.Get("f").Int().ok());
  EXPECT_FALSE(root.Get("big").Int().ok());
  EXPECT_FALSE(root.Get("b").Bool().ok());
  EXPECT_FALSE(root.Get("n").String().ok());
  EXPECT_EQ(*root.Get("b").String(), "yes");
  EXPECT_EQ(ErrorOf(root.Get("i").String().status()),
            "line 1: i: expected a string (put it in quotes), got '12'");
  EXPECT_FALSE(root.Get("t").String().ok());
  EXPECT_EQ(*root.Get("i").Double(), 12.0);
  EXPECT_TRUE(*root.Get("t").Bool());
  EXPECT_EQ(*root.Get("big").Double(), 1e20);
  EXPECT_TRUE(std::isinf(*Must(".inf").Double()));
  EXPECT_EQ(*Must("[a, 'b']").Strings(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(ErrorOf(Must("[a, 1]").Strings().status()),
            "line 1: [1]: expected a string (put it in quotes), got '1'");
}

TEST(Config, ReadsQuantities) {
  const std::pair<const char*, double> cases[] = {
      {"500", 500},    {"4k", 4000},  {"2Gi", 2147483648.0}, {"1e9", 1e9},
      {"1.5Ki", 1536}, {"100m", 0.1}, {"'3M'", 3e6},         {"-1", -1}};
  for (const auto& [text, expected] : cases)
    EXPECT_DOUBLE_EQ(*Must(text).Quantity(), expected) << text;
  for (const char* text : {"x", "1Q", "1 k", "Ki", "''", "1kk", ".inf"})
    EXPECT_FALSE(Must(text).Quantity().ok()) << text;
}

TEST(Config, TakesJson) {
  const Node root = Must("{\"a\": [1, true, null, \"x\\u00e9\\n\"],\n \"b\": {\"c\": 1e3}}");
  EXPECT_EQ(root.ToJson().Dump(), "{\"a\":[1,true,null,\"xé\\n\"],\"b\":{\"c\":1000.0}}");
  EXPECT_EQ(root.Get("b").Get("c").line(), 2);
}

TEST(Config, FilesAreNamedInErrors) {
  const std::string path = testing::TempDir() + "llmd_config_test.yaml";
  std::ofstream(path) << "a: 1\nb: x\n";
  const auto root = ParseFile(path);
  ASSERT_TRUE(root.ok());
  EXPECT_EQ(ErrorOf(root->Get("b").Int().status()),
            path + ": line 2: b: expected an integer, got 'x'");
  EXPECT_FALSE(ParseFile(path, {.max_bytes = 5}).ok());
  std::remove(path.c_str());
  EXPECT_EQ(ParseFile(path).status().code(), StatusCode::kNotFound);
}

TEST(GoDuration, ReadsWhatGoReads) {
  const std::pair<const char*, int64_t> cases[] = {
      {"0", 0},
      {"0s", 0},
      {"5s", 5'000'000'000},
      {"1.5h", 5'400'000'000'000},
      {"-1m30s", -90'000'000'000},
      {"+2ms", 2'000'000},
      {"3us", 3000},
      {"3µs", 3000},
      {"3μs", 3000},
      {"7ns", 7},
      {".5s", 500'000'000},
      {"1.s", 1'000'000'000},
      {"1h1m1s1ms1us1ns", 3'661'001'001'001},
      {"0.1234567891234567891s", 123'456'789},
      {"9223372036854775807ns", INT64_MAX},
      {"0.3333333333333333333h", 1'200'000'000'000 - 1}};
  for (const auto& [text, nanos] : cases) {
    const auto parsed = ParseGoDuration(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(parsed->count(), nanos) << text;
  }
}

TEST(GoDuration, RefusesWhatGoRefuses) {
  for (const char* text : {"", "5", "s", ".s", "1x", "1s2", "--1s", "1 s", "-", "+",
                           "9223372036854775808ns", "300000h1000000000h", "1e3s", "3000000000h",
                           "99999999999999999999999999999999999999999999s"}) {
    EXPECT_FALSE(ParseGoDuration(text).ok()) << text;
  }
}

TEST(Nearest, FindsNearWordsOnly) {
  const std::vector<std::string> words = {"threshold", "weight", "x"};
  EXPECT_EQ(Nearest("treshold", words), "threshold");
  EXPECT_EQ(Nearest("Weigth", words), "weight");
  EXPECT_EQ(Nearest("entirely-else", words), "");
  EXPECT_EQ(Nearest("y", words), "");
  EXPECT_EQ(Nearest(std::string(1'000'000, 'a'), words), "");
}

}  // namespace
}  // namespace llmd::config
