#include "llmd/json.h"

#include <gtest/gtest.h>

#include <bit>
#include <cctype>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <random>

namespace llmd::json {
namespace {

std::string Text(std::string_view s) {
  return std::string(s);
}

// RFC 8259: texts every parser must take.
const std::vector<std::string> kAccepted = {"{}",
                                            "[]",
                                            "0",
                                            "-0",
                                            "\"\"",
                                            "null",
                                            "true",
                                            "false",
                                            " [ 1 , 2 ] ",
                                            "\t{\"a\"\r\n:\n1}\n",
                                            "[[]]",
                                            "[{}]",
                                            "{\"\":0}",
                                            "{\"a\":{\"b\":[null]}}",
                                            "1e5",
                                            "1E+5",
                                            "1.5e-3",
                                            "-0.0",
                                            "123456789",
                                            "\"\\u0041\"",
                                            "\"\\ud83d\\ude00\"",
                                            "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
                                            "\"\x7f\"",
                                            "\"é€😀\"",
                                            "{\"a\":1,\"a\":2}",
                                            "\"\\u0000\"",
                                            "\"\xF4\x8F\xBF\xBF\"",
                                            "0e1",
                                            "0.1",
                                            "[1,[2,[3,[4]]]]",
                                            "\"\\ud800\"",
                                            "\"\\udc00x\""};

// Texts every parser must refuse.
const std::vector<std::string> kRefused = {"",
                                           " ",
                                           "{",
                                           "}",
                                           "[",
                                           "]",
                                           "[1,]",
                                           "{\"a\":1,}",
                                           "[,1]",
                                           "[1 2]",
                                           "{\"a\" 1}",
                                           "{\"a\"}",
                                           "{a:1}",
                                           "{'a':1}",
                                           "{1:1}",
                                           "01",
                                           "-01",
                                           "+1",
                                           "1.",
                                           ".5",
                                           "-",
                                           "--1",
                                           "1e",
                                           "1e+",
                                           "0x10",
                                           "NaN",
                                           "Infinity",
                                           "-Infinity",
                                           "nul",
                                           "nulll",
                                           "True",
                                           "\"",
                                           "\"a",
                                           "\"\\x\"",
                                           "\"\\u12\"",
                                           "\"\\u12g4\"",
                                           "\"\\",
                                           "\"\n\"",
                                           "\"\t\"",
                                           Text(std::string_view("\"\0\"", 3)),
                                           "[1]]",
                                           "{}{}",
                                           "1 2",
                                           "[1}",
                                           "{\"a\":1]",
                                           "\xEF\xBB\xBF{}",
                                           "/*c*/1",
                                           "[1]//",
                                           "[\"a\":1]",
                                           "{\"a\":}",
                                           "{:1}",
                                           "{,}",
                                           "\"\x80\"",
                                           "\"\xC0\x80\"",
                                           "\"\xC1\xBF\"",
                                           "\"\xE0\x80\x80\"",
                                           "\"\xED\xA0\x80\"",
                                           "\"\xF0\x80\x80\x80\"",
                                           "\"\xF4\x90\x80\x80\"",
                                           "\"\xF5\x80\x80\x80\"",
                                           "\"\xE2\x82\"",
                                           "\"\xFF\"",
                                           Text(std::string_view("1\0", 2)),
                                           "\f1",
                                           "\xC2\xA0"
                                           "1"};

std::string InArray(const std::string& text) {
  return "[" + text + "]";
}

TEST(JsonParse, TakesWhatTheGrammarAllows) {
  for (const std::string& text : kAccepted) {
    EXPECT_TRUE(Parse(text).ok()) << text << " " << Parse(text).status().ToString();
    EXPECT_TRUE(ScanArray(InArray(text)).ok()) << text;
    EXPECT_TRUE(ScanObject("{\"k\":" + text + "}").ok()) << text;
  }
}

TEST(JsonParse, RefusesWhatTheGrammarDoesNotAllow) {
  for (const std::string& text : kRefused) {
    const auto parsed = Parse(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument);
    EXPECT_FALSE(ScanObject("{\"k\":" + text + "}").ok()) << text;
  }
}

TEST(JsonParse, NamesTheOffsetAndTheReason) {
  EXPECT_EQ(Parse("[1,x]").status().message(), "JSON: expected a value at offset 3");
  EXPECT_EQ(Parse("{\"a\":1 2}").status().message(), "JSON: expected ',' or '}' at offset 7");
  EXPECT_EQ(Parse("[1").status().message(), "JSON: expected ',' or ']' at offset 2");
}

TEST(JsonParse, KeepsIntegersOf64BitsExact) {
  EXPECT_EQ(Parse("9223372036854775807")->AsInt(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(Parse("-9223372036854775808")->AsInt(), std::numeric_limits<int64_t>::min());
  const Value two63 = *Parse("9223372036854775808");
  EXPECT_TRUE(two63.is_int());
  EXPECT_EQ(two63.AsUint(), uint64_t{1} << 63);
  EXPECT_EQ(two63.AsInt(7), 7);
  EXPECT_EQ(Parse("18446744073709551615")->AsUint(), std::numeric_limits<uint64_t>::max());
  const Value two64 = *Parse("18446744073709551616");
  EXPECT_TRUE(two64.is_double());
  EXPECT_EQ(two64.AsDouble(), 18446744073709551616.0);
  EXPECT_TRUE(Parse("-9223372036854775809")->is_double());
}

TEST(JsonParse, RefusesOverflowAndTakesUnderflowAsZero) {
  EXPECT_FALSE(Parse("1e400").ok());
  EXPECT_FALSE(Parse("-1e400").ok());
  EXPECT_FALSE(Parse("1" + std::string(400, '0')).ok());
  EXPECT_FALSE(Parse("1e99999999999999999999").ok());
  EXPECT_EQ(Parse("1e-400")->AsDouble(1), 0.0);
  EXPECT_EQ(Parse("1e-99999999999999999999")->AsDouble(1), 0.0);
  EXPECT_TRUE(std::signbit(Parse("-1e-400")->AsDouble(1)));
  EXPECT_EQ(Parse("0." + std::string(400, '0') + "1")->AsDouble(1), 0.0);
  EXPECT_EQ(Parse("1" + std::string(400, '0') + "e-400")->AsDouble(), 1.0);
  EXPECT_EQ(Parse("0e999")->AsDouble(1), 0.0);
  EXPECT_EQ(Parse("4.9e-324")->AsDouble(), std::numeric_limits<double>::denorm_min());
}

TEST(JsonParse, UndoesEscapes) {
  EXPECT_EQ(Parse("\"a\\u00e9\\u20ac\\ud83d\\ude00\\n\\/\"")->AsString(), "aé€😀\n/");
  EXPECT_EQ(Parse("\"\\u0000\"")->AsString(), std::string(1, '\0'));
  EXPECT_EQ(Parse("\"\\ud800\"")->AsString(), "\xEF\xBF\xBD");
  EXPECT_EQ(Parse("\"\\ude00\\ud83d\"")->AsString(), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(Parse("\"\\ud83d\\u0041\"")->AsString(),
            "\xEF\xBF\xBD"
            "A");
}

TEST(JsonParse, GivesDuplicateKeysTheFirstPlaceAndTheLastValue) {
  EXPECT_EQ(Parse("{\"a\":1,\"b\":2,\"a\":3}")->Dump(), "{\"a\":3,\"b\":2}");
  std::string many = "{";
  for (int i = 0; i < 100; ++i)
    many += "\"k" + std::to_string(i % 40) + "\":" + std::to_string(i) + ",";
  many.back() = '}';
  const Value value = *Parse(many);
  EXPECT_EQ(value.AsObject().size(), 40u);
  EXPECT_EQ(value["k0"].AsInt(), 80);
  EXPECT_EQ(value["k39"].AsInt(), 79);
  EXPECT_EQ(value.AsObject().front().first, "k0");
}

TEST(JsonValue, ElementsByIndexAreNullPastTheEndAndInWhatIsNoArray) {
  const Value value = *Parse(R"([{"a":[5]},7])");
  EXPECT_EQ(value[0]["a"][0].AsInt(), 5);
  EXPECT_EQ(value[1].AsInt(), 7);
  EXPECT_TRUE(value[2].is_null());
  EXPECT_TRUE(value[-1].is_null());
  EXPECT_TRUE(value["a"].is_null());
  EXPECT_TRUE(value[1][0].is_null());
}

TEST(JsonParse, DeepNestingIsAnErrorNotACrash) {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 100'000; ++i) deep += open;
    EXPECT_NE(Parse(deep).status().message().find("nested too deeply"), std::string::npos);
    EXPECT_FALSE(Parse(deep, {.max_depth = 1'000'000}).ok());
    EXPECT_FALSE(ScanArray(deep).ok());
    EXPECT_FALSE(ScanObject("{\"a\":" + deep).ok());
  }
}

TEST(JsonParse, CountsDepthExactly) {
  EXPECT_TRUE(Parse("[[1]]", {.max_depth = 2}).ok());
  EXPECT_FALSE(Parse("[[[1]]]", {.max_depth = 2}).ok());
  EXPECT_TRUE(ScanArray("[[1]]", {.max_depth = 2}).ok());
  EXPECT_FALSE(ScanArray("[[[1]]]", {.max_depth = 2}).ok());
  EXPECT_TRUE(Parse("1", {.max_depth = 0}).ok());
  const std::string thousand = std::string(1000, '[') + std::string(1000, ']');
  EXPECT_TRUE(Parse(thousand).ok());
}

TEST(JsonScan, DepthIsNotLimitedByTheStack) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  const auto spans = ScanArray(deep, {.max_depth = 100'000});
  ASSERT_TRUE(spans.ok());
  ASSERT_EQ(spans->size(), 1u);
  EXPECT_EQ((*spans)[0].size(), deep.size() - 2);
  // Objects and arrays in turn, past the first word of the stack of open containers.
  std::string mixed, closers;
  for (int i = 0; i < 300; ++i) {
    mixed += i % 3 == 0 ? "[" : "{\"k\":";
    closers.insert(0, 1, i % 3 == 0 ? ']' : '}');
  }
  EXPECT_TRUE(ScanArray("[" + mixed + "1" + closers + "]").ok());
  std::swap(closers[100], closers[101]);
  std::swap(closers[101], closers[102]);
  EXPECT_FALSE(ScanArray("[" + mixed + "1" + closers + "]").ok());
}

TEST(JsonScan, FindsMembersInPlace) {
  const std::string text =
      " { \"model\" : \"m\\n\" , \"messages\":[1, 2 ],\"n\":-1.5e3 ,\"o\":{\"model\":0}} ";
  const auto members = ScanObject(text);
  ASSERT_TRUE(members.ok()) << members.status().ToString();
  ASSERT_EQ(members->size(), 4u);
  EXPECT_EQ((*members)[0].key.In(text), "\"model\"");
  EXPECT_EQ((*members)[0].KeyText(text), "model");
  EXPECT_EQ((*members)[0].value.In(text), "\"m\\n\"");
  EXPECT_EQ((*members)[1].value.In(text), "[1, 2 ]");
  EXPECT_EQ((*members)[2].value.In(text), "-1.5e3");
  EXPECT_EQ((*members)[3].value.In(text), "{\"model\":0}");
  EXPECT_EQ(FindMember(*members, text, "n"), &(*members)[2]);
  EXPECT_EQ(FindMember(*members, text, "absent"), nullptr);
}

TEST(JsonScan, FindsTheLastOfEqualKeysEscapedOrNot) {
  const std::string text = R"({"stream":1,"str\u0065am":2,"x":3})";
  const auto members = ScanObject(text);
  ASSERT_TRUE(members.ok());
  EXPECT_EQ(FindMember(*members, text, "stream")->value.In(text), "2");
}

TEST(JsonScan, RefusesOtherTypesAndTrailingText) {
  for (const char* text : {"", "[]", "1", "{} x", "{}}", "{\"a\":1", "{\"a\":[1}", "{\"a\":1,}"}) {
    EXPECT_FALSE(ScanObject(text).ok()) << text;
  }
  for (const char* text : {"", "{}", "[] x", "[1,]", "[", "[1"})
    EXPECT_FALSE(ScanArray(text).ok()) << text;
  EXPECT_TRUE(ScanObject("{}")->empty());
  EXPECT_TRUE(ScanArray(" [ ] ")->empty());
}

TEST(JsonScan, SeesSpecialBytesAtEveryPlaceOfAWord) {
  for (size_t at = 0; at < 40; ++at) {
    std::string body(40, 'x');
    body[at] = '\x01';
    EXPECT_FALSE(Unquote('"' + body + '"').ok()) << at;
    body[at] = '\xFF';
    EXPECT_FALSE(Unquote('"' + body + '"').ok()) << at;
    body.replace(at, 1, "\\n");
    EXPECT_EQ(Unquote('"' + body + '"')->at(at), '\n') << at;
    std::string cut = '"' + std::string(40, 'x') + '"';
    cut[at + 1] = '"';
    EXPECT_FALSE(Unquote(cut).ok()) << at;
  }
}

// A string read a byte at a time: what it says, or where it goes wrong.
struct Plainly {
  explicit Plainly(std::string_view text) {
    size_t at = 1;
    const auto fail = [&](size_t where) {
      if (!wrong) wrong = where;
    };
    while (!wrong && at < text.size() && text[at] != '"') {
      const auto c = static_cast<unsigned char>(text[at]);
      if (c == '\\') {
        Escape(text, at, fail);
      } else if (c < 0x20 || c == 0xFF) {
        fail(at);
      } else {
        said += text[at++];
      }
    }
    if (!wrong && at + 1 != text.size()) wrong = std::min(at + 1, text.size());
  }
  template <typename Fail>
  void Escape(std::string_view text, size_t& at, const Fail& fail) {
    static const std::map<char, char> kLetters = {{'"', '"'},  {'\\', '\\'}, {'/', '/'},
                                                  {'n', '\n'}, {'t', '\t'},  {'r', '\r'},
                                                  {'b', '\b'}, {'f', '\f'}};
    if (++at == text.size()) return fail(at);
    if (text[at] != 'u') {
      const auto letter = kLetters.find(text[at]);
      if (letter == kLetters.end()) return fail(at);
      said += letter->second;
      ++at;
      return;
    }
    for (int i = 0; i < 4; ++i) {
      if (++at == text.size() || std::isxdigit(static_cast<unsigned char>(text[at])) == 0)
        return fail(at);
    }
    // The test's texts have digits of 0 and 4 only: U+0000 to U+4444.
    const auto code =
        static_cast<uint32_t>(std::stoul(std::string(text.substr(at - 3, 4)), nullptr, 16));
    if (code < 0x80) {
      said += static_cast<char>(code);
    } else if (code < 0x800) {
      said += {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    } else {
      said += {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
               static_cast<char>(0x80 | (code & 0x3F))};
    }
    ++at;
  }
  std::string said;
  std::optional<size_t> wrong;
};

TEST(JsonUnquote, AgreesWithAReaderOfSingleBytes) {
  std::mt19937_64 random(3);
  // Many backslashes, then few; good pieces, then also bad ones.
  const std::vector<std::string> pieces = {"\\",
                                           "\\\\",
                                           "\\n",
                                           "\\\"",
                                           "\\u0044",
                                           "\\u4400",
                                           "é",
                                           "n",
                                           "u",
                                           "4",
                                           "some plain words of a prompt ",
                                           "\"",
                                           "\x01",
                                           "\xFF",
                                           "\\x",
                                           "\\u004",
                                           "0"};
  int good = 0, bad = 0;
  for (int round = 0; round < 40'000; ++round) {
    const size_t first = round % 2 == 0 ? 0 : 1, last = round % 3 == 0 ? pieces.size() : 11;
    std::string text = "\"";
    for (size_t n = random() % 60; n > 0; --n) {
      text += pieces[first + random() % (last - first)];
      if (round % 5 == 0) text += std::string(random() % 70, 'x');
    }
    text += '"';
    const Plainly plainly(text);
    const auto read = Unquote(text);
    ASSERT_EQ(read.ok(), !plainly.wrong) << text;
    if (plainly.wrong) {
      ++bad;
      const std::string where = " at offset " + std::to_string(*plainly.wrong);
      ASSERT_TRUE(read.status().message().ends_with(where)) << read.status().ToString() << text;
      continue;
    }
    ++good;
    ASSERT_EQ(*read, plainly.said) << text;
    const std::string array = "[" + text + ",1]";
    const auto spans = ScanArray(array, {.validated = true});
    ASSERT_TRUE(spans.ok()) << text;
    ASSERT_EQ((*spans)[0].In(array), text);
  }
  EXPECT_GT(good, 5'000);
  EXPECT_GT(bad, 5'000);
}

TEST(JsonUnquote, RefusesWhatIsNoString) {
  for (const char* text : {"", "a", "\"", "\"a\"b", "\"\\\"", "1"})
    EXPECT_FALSE(Unquote(text).ok()) << text;
  EXPECT_EQ(*Unquote("\"\""), "");
}

TEST(JsonValue, ConvertsOnlyWhatFits) {
  EXPECT_EQ(Value(3.0).AsInt(), 3);
  EXPECT_EQ(Value(3.5).AsInt(9), 9);
  EXPECT_EQ(Value(9.3e18).AsInt(9), 9);
  EXPECT_EQ(Value(-1).AsUint(9), 9u);
  EXPECT_EQ(Value(std::nan("")).AsInt(9), 9);
  EXPECT_EQ(Value("x").AsInt(9), 9);
  EXPECT_EQ(Value(uint64_t{5}), Value(5));
  EXPECT_TRUE(Value(true).is_bool());
  EXPECT_FALSE(Value(1).AsBool());
  EXPECT_EQ(Value(size_t{1} << 63).AsDouble(), 9223372036854775808.0);
}

TEST(JsonValue, SetsReplacesAndErasesMembers) {
  Value value;
  value.Set("a", 1);
  value.Set("b", "x");
  value.Set("a", Array{1, nullptr});
  EXPECT_EQ(value.Dump(), R"({"a":[1,null],"b":"x"})");
  EXPECT_TRUE(value.Erase("a"));
  EXPECT_FALSE(value.Erase("a"));
  EXPECT_TRUE(value["absent"]["deeper"].is_null());
  EXPECT_EQ(value.TypeName(), "object");
}

TEST(JsonDump, WritesNumbersSoThatTheyReadBack) {
  EXPECT_EQ(Value(3.0).Dump(), "3.0");
  EXPECT_EQ(Value(0.1).Dump(), "0.1");
  EXPECT_EQ(Value(1e16).Dump(), "1e+16");
  EXPECT_EQ(Value(std::numeric_limits<double>::infinity()).Dump(), "null");
  EXPECT_EQ(Value(-1).Dump(), "-1");
  EXPECT_EQ(Value(std::numeric_limits<uint64_t>::max()).Dump(), "18446744073709551615");
  std::mt19937_64 random(7);
  for (int i = 0; i < 2000; ++i) {
    const double d = std::bit_cast<double>(random());
    if (std::isfinite(d)) EXPECT_EQ(Parse(Value(d).Dump())->AsDouble(), d);
    const auto n = static_cast<int64_t>(random());
    EXPECT_EQ(Parse(Value(n).Dump())->AsInt(), n);
  }
}

TEST(JsonDump, EscapesControlsAndRepairsUtf8) {
  EXPECT_EQ(Value(std::string("a\x01\n\"\\\x7f", 6)).Dump(), "\"a\\u0001\\n\\\"\\\\\x7f\"");
  EXPECT_EQ(Value("é\xFFx").Dump(), "\"é\xEF\xBF\xBDx\"");
  EXPECT_EQ(Value("\xE2\x82").Dump(), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(JsonDump, IndentsPrettyText) {
  EXPECT_EQ(Parse(R"({"a":[1,{}],"b":[]})")->DumpPretty(),
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
}

TEST(JsonDump, RoundTripsRandomTrees) {
  std::mt19937 random(3);
  const std::function<Value(int)> make = [&](int depth) -> Value {
    switch (random() % (depth > 4 ? 5 : 7)) {
      case 0:
        return nullptr;
      case 1:
        return random() % 2 == 0;
      case 2:
        return static_cast<int64_t>(random()) - (int64_t{1} << 31);
      case 3:
        return static_cast<double>(random()) / 7;
      case 4:
        return std::string(random() % 20, static_cast<char>(random() % 128));
      case 5: {
        Array items;
        for (size_t n = random() % 5; n > 0; --n) items.push_back(make(depth + 1));
        return items;
      }
      default: {
        Value object = Object{};
        for (size_t n = random() % 5; n > 0; --n)
          object.Set("k" + std::to_string(random() % 9), make(depth + 1));
        return object;
      }
    }
  };
  for (int i = 0; i < 300; ++i) {
    const Value value = make(0);
    EXPECT_EQ(*Parse(value.Dump()), value);
    EXPECT_EQ(*Parse(value.DumpPretty()), value);
  }
}

// Whatever the bytes, the scanner and the parser agree and stay inside the text.
TEST(JsonScan, AgreesWithParseOnMangledTexts) {
  std::mt19937 random(11);
  const std::string seed =
      R"({"model":"m","a":[1,2.5e1,{"b":"\u00e9\ud83d\ude00é"}],"c":null,"d":true})";
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = seed;
    for (size_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text.erase(at, 1);
          break;
        case 1:
          text[at] = "{}[]\",:0\\e-\xC3"[random() % 12];
          break;
        default:
          text.insert(at, 1, text[random() % text.size()]);
      }
    }
    const bool parsed = Parse(text).ok();
    const bool scanned = ScanArray("[" + text + "]").ok();
    accepted += parsed ? 1 : 0;
    // A comma at the top is one value for neither, two elements for the array.
    if (parsed) EXPECT_TRUE(scanned) << text;
    if (Parse("[" + text + "]").ok() != scanned) ADD_FAILURE() << text;
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace llmd::json
