#include "llmd/pd/object_edit.h"

#include <gtest/gtest.h>

#include <functional>

namespace llmd::pd {
namespace {

struct Case {
  const char* before;
  std::function<void(ObjectEdit&)> edit;
  const char* after;
};

TEST(ObjectEdit, TouchesNothingButTheMember) {
  const auto set = [](const char* key, const char* raw) {
    return [=](ObjectEdit& e) { e.Set(key, raw); };
  };
  const auto remove = [](const char* key) { return [=](ObjectEdit& e) { e.Remove(key); }; };
  const Case cases[] = {
      {R"({"a":1})", [](ObjectEdit&) {}, R"({"a":1})"},
      {" { \"a\" : 9007199254740993 , \"b\":1.0 }\n", set("b", "2"),
       " { \"a\" : 9007199254740993 , \"b\":2 }\n"},
      {R"({"z":"<a&b>","a":1e400})", set("c", "null"), R"({"z":"<a&b>","a":1e400,"c":null})"},
      {R"({})", set("a", "1"), R"({"a":1})"},
      {R"({ })", set("a", "1"), R"({"a":1 })"},
      {R"({"a":1})", remove("a"), R"({})"},
      {R"({"a":1, "b":2})", remove("a"), R"({"b":2})"},
      {R"({"a":1, "b":2})", remove("b"), R"({"a":1})"},
      {R"({"a":1 , "b":2,"c":3})", remove("b"), R"({"a":1,"c":3})"},
      {R"({"a":1,"a":2,"b":3})", set("a", "9"), R"({"a":9,"b":3})"},
      {R"({"a":1,"b":3,"a":2})", remove("a"), R"({"b":3})"},
      {R"({"\u0061":1})", set("a", "2"), R"({"\u0061":2})"},
      {R"({"a":1})",
       [](ObjectEdit& e) {
         e.Remove("a");
         e.Set("b", "2");
       },
       R"({"b":2})"},
      {R"({"a":1})",
       [](ObjectEdit& e) {
         e.Set("b", "2");
         e.Set("b", "3");
         e.Remove("b");
       },
       R"({"a":1})"},
      {R"({"a":1,"b":2})",
       [](ObjectEdit& e) {
         e.Remove("a");
         e.Remove("b");
         e.Set("c\"", "3");
       },
       R"({"c\"":3})"},
  };
  for (const Case& c : cases) {
    auto edit = ObjectEdit::Parse(c.before);
    ASSERT_TRUE(edit.ok()) << c.before << " " << edit.status().ToString();
    c.edit(*edit);
    EXPECT_EQ(edit->Build(), c.after) << c.before;
    std::string joined;
    for (std::string_view piece : edit->Pieces()) joined += piece;
    EXPECT_EQ(joined, c.after) << c.before;
  }
}

TEST(ObjectEdit, PiecesOfTheTextAreTheTextItself) {
  const std::string text = R"({"prompt":"a long one","max_tokens":7,"stop":null})";
  auto edit = ObjectEdit::Parse(text);
  ASSERT_TRUE(edit.ok());
  ASSERT_EQ(edit->Pieces().size(), 1u);
  EXPECT_EQ(edit->Pieces()[0].data(), text.data());
  edit->Set("max_tokens", "1");
  const auto pieces = edit->Pieces();
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].data(), text.data());
  EXPECT_EQ(pieces[0], R"({"prompt":"a long one","max_tokens":)");
  EXPECT_EQ(pieces[2].data(), text.data() + text.find(R"(,"stop")"));
}

TEST(ObjectEdit, GetSeesTheMemberThatCounts) {
  auto edit = ObjectEdit::Parse(R"({"a":1,"a":2})");
  ASSERT_TRUE(edit.ok());
  EXPECT_EQ(edit->Get("a"), "2");
  edit->Set("a", "3");
  edit->Set("b", "4");
  EXPECT_EQ(edit->Get("a"), "3");
  EXPECT_EQ(edit->Get("b"), "4");
  edit->Remove("a");
  EXPECT_FALSE(edit->Has("a"));
}

TEST(ObjectEdit, RefusesWhatIsNoObject) {
  for (const char* bad : {"", "[]", "1", "{", "{\"a\":}", "{\"a\":1}x", "nul"}) {
    EXPECT_EQ(ObjectEdit::Parse(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(
      ObjectEdit::Parse("{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}")
          .ok());
}

}  // namespace
}  // namespace llmd::pd
