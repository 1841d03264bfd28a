#include "llmd/openai/coerce.h"

#include <gtest/gtest.h>

namespace llmd::openai {
namespace {

json::Value J(std::string_view text) {
  auto value = json::Parse(text);
  EXPECT_TRUE(value.ok()) << text;
  return value.ok() ? std::move(*value) : json::Value();
}

TEST(CoerceInt, TakesWhatPydanticTakes) {
  const std::pair<const char*, int64_t> cases[] = {{"1", 1},
                                                   {"-7", -7},
                                                   {"1.0", 1},
                                                   {"1e2", 100},
                                                   {"\"1\"", 1},
                                                   {"\" 1 \"", 1},
                                                   {"\"1.0\"", 1},
                                                   {"\"+3\"", 3},
                                                   {"\"007\"", 7},
                                                   {"true", 1},
                                                   {"false", 0},
                                                   {"9223372036854775807", INT64_MAX},
                                                   {"\"-12.000\"", -12},
                                                   {"-0.0", 0}};
  for (const auto& [text, want] : cases) EXPECT_EQ(CoerceInt(J(text)), want) << text;
}

TEST(CoerceInt, RefusesTheRest) {
  for (const char* text :
       {"1.5", "\"abc\"", "\"1.5\"", "\"\"", "null", "[]", "{}", "\"1e2\"", "9223372036854775808",
        "1e30", "\"1.\"", "\"0x10\"", "\"1 2\"", "18446744073709551615"}) {
    EXPECT_EQ(CoerceInt(J(text)), std::nullopt) << text;
  }
}

TEST(CoerceDouble, TakesNumbersAndNumericStrings) {
  EXPECT_EQ(CoerceDouble(J("0.5")), 0.5);
  EXPECT_EQ(CoerceDouble(J("2")), 2.0);
  EXPECT_EQ(CoerceDouble(J("\" 1e-3 \"")), 1e-3);
  EXPECT_EQ(CoerceDouble(J("true")), 1.0);
  for (const char* text : {"\"x\"", "null", "[1]", "\"1,5\""}) {
    EXPECT_EQ(CoerceDouble(J(text)), std::nullopt) << text;
  }
}

TEST(CoerceBool, KnowsTheWords) {
  for (const char* text :
       {"true", "1", "1.0", "\"true\"", "\"YES\"", "\"on\"", "\"T\"", "\"y\"", "\"1\""}) {
    EXPECT_EQ(CoerceBool(J(text)), true) << text;
  }
  for (const char* text : {"false", "0", "\"False\"", "\"no\"", "\"off\"", "\"f\"", "\"0\""}) {
    EXPECT_EQ(CoerceBool(J(text)), false) << text;
  }
  for (const char* text : {"2", "\"maybe\"", "null", "[]", "0.5", "\" true \""}) {
    EXPECT_EQ(CoerceBool(J(text)), std::nullopt) << text;
  }
}

TEST(FieldReader, LeavesAbsentFieldsAndUnsetsNullOnes) {
  const json::Value object = J(R"({"a":null})");
  FieldReader reader(object, "body");
  int plain = 7;
  std::optional<int> unset = 3, kept = 4;
  reader.Read("b", &plain);
  reader.Read("a", &unset);
  reader.Read("c", &kept);
  EXPECT_EQ(plain, 7);
  EXPECT_EQ(unset, std::nullopt);
  EXPECT_EQ(kept, 4);
  EXPECT_FALSE(reader.Error());
}

TEST(FieldReader, NamesEveryFailure) {
  const json::Value object = J(R"({"n":null,"s":5,"l":[1,"x"]})");
  FieldReader reader(object, "body");
  int n = 1;
  std::string s;
  std::vector<int32_t> list;
  reader.Read("n", &n);
  reader.Read("s", &s);
  reader.ReadIntList("l", &list);
  const MaybeError error = reader.Error();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, 400);
  EXPECT_EQ(error->type, "Bad Request");
  EXPECT_EQ(error->param, "body.n");
  EXPECT_EQ(error->message,
            "3 validation errors:\n"
            "  body.n: Input should be a valid integer, got null\n"
            "  body.s: Input should be a valid string, got 5\n"
            "  body.l: Input should be a list of valid integers, got \"x\"");
}

TEST(FieldReader, RefusesIntegersWiderThanTheTarget) {
  const json::Value object = J(R"({"n":4294967296})");
  FieldReader reader(object, "body");
  int n = 1;
  reader.Read("n", &n);
  EXPECT_TRUE(reader.Error());
  EXPECT_EQ(n, 1);
}

TEST(FieldReader, ShowsOnlyTheBeginningOfALongValue) {
  const json::Value object = json::Object{{"s", json::Array(1000, json::Value("é"))}};
  FieldReader reader(object, "body");
  std::string s;
  reader.Read("s", &s);
  EXPECT_LT(reader.Error()->message.size(), 250u);
}

}  // namespace
}  // namespace llmd::openai
