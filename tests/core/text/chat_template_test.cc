#include "llmd/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llmd::text {
namespace {

using testing::HasSubstr;

StatusOr<std::string> TryRender(std::string_view source, std::string_view variables = "{}",
                                TemplateLimits limits = {}) {
  LLMD_ASSIGN_OR_RETURN(const auto made, ChatTemplate::Parse(source, limits));
  return made->Render(json::Parse(variables).value());
}
std::string Render(std::string_view source, std::string_view variables = "{}") {
  auto text = TryRender(source, variables);
  return text.ok() ? *text : text.status().ToString();
}

TEST(ChatTemplate, TrimsBlocksAsTransformersDoes) {
  EXPECT_EQ(Render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(Render("a  {{- 1 -}}  b"), "a1b");
  EXPECT_EQ(Render("a {#- x -#} b"), "ab");
  EXPECT_EQ(Render("{% raw %}{{ x }}{% endraw %}"), "{{ x }}");
}

TEST(ChatTemplate, LoopsWithVariablesFilterAndElse) {
  EXPECT_EQ(Render("{% for x in [1,2,3] if x != 2 %}{{ loop.index }}:{{ x }}{{ ',' if not "
                   "loop.last }}{% endfor %}"),
            "1:1,2:3");
  EXPECT_EQ(Render("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% else %}none{% endfor %}"),
            "a1");
  EXPECT_EQ(Render("{% for x in [] %}x{% else %}none{% endfor %}"), "none");
  EXPECT_EQ(Render("{% for x in range(9) %}{% if x == 1 %}{% continue %}{% elif x == 3 %}{% break "
                   "%}{% endif %}{{ x }}{% endfor %}"),
            "02");
}

TEST(ChatTemplate, KeepsLoopScopesApart) {
  EXPECT_EQ(Render("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}"), "1");
  EXPECT_EQ(
      Render(
          "{% set n = namespace(x=1) %}{% for i in [1] %}{% set n.x = 2 %}{% endfor %}{{ n.x }}"),
      "2");
}

TEST(ChatTemplate, SlicesTestsAndMethods) {
  EXPECT_EQ(Render("{{ [1,2,3][::-1] }}{{ 'héllo'[1:3] }}{{ 'abc'[-1] }}"), "[3, 2, 1]élc");
  EXPECT_EQ(Render("{{ x is defined }} {{ none is none }} {{ 'a' is string }} {{ 3 is odd }}"),
            "False True True True");
  EXPECT_EQ(Render("{{ ' a,b '.strip().split(',') }} {{ 'abc'.startswith('ab') }}"),
            "['a', 'b'] True");
}

TEST(ChatTemplate, UndefinedIsEmptyAndFalsy) {
  EXPECT_EQ(Render("[{{ x }}{% if x %}y{% endif %}{{ m.x }}]", R"({"m":{}})"), "[]");
  EXPECT_THAT(Render("{{ x.y }}"), HasSubstr("'x' is undefined"));
}

TEST(ChatTemplate, WritesJsonAsTransformersDoes) {
  const auto vars = R"({"v":{"b":"é<\"","a":[1,2.0,null,true]}})";
  EXPECT_EQ(Render("{{ v|tojson }}", vars), R"({"b": "é<\"", "a": [1, 2.0, null, true]})");
  EXPECT_EQ(Render("{{ [1,{}]|tojson(indent=2) }}"), "[\n  1,\n  {}\n]");
}

TEST(ChatTemplate, MacrosAndBlocks) {
  EXPECT_EQ(Render("{% macro m(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}"),
            "1x12");
  EXPECT_EQ(
      Render("{% set t %}a{{ 1 }}{% endset %}{{ t|upper }}{% filter upper %}b{% endfilter %}"),
      "A1B");
  EXPECT_EQ(Render("{% generation %}g{% endgeneration %}"), "g");
}

TEST(ChatTemplate, ErrorsSayWhere) {
  EXPECT_THAT(Render("a\n{{ x ! }}"), HasSubstr("line 2, column 6"));
  EXPECT_THAT(Render("{% if x %}"), HasSubstr("endif"));
  EXPECT_THAT(Render("{{ 1|nothing }}"), HasSubstr("no filter named 'nothing'"));
  EXPECT_EQ(Render("{{ raise_exception('no way') }}"), "INVALID_ARGUMENT: no way");
  EXPECT_THAT(Render("{{ 1 / 0 }}"), HasSubstr("division by zero"));
}

TEST(ChatTemplate, LimitsStepsOutputAndDepth) {
  const auto code = [](std::string_view source, TemplateLimits limits = {}) {
    return TryRender(source, "{}", limits).status().code();
  };
  EXPECT_EQ(code("{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}"),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(code("{{ range(10000000000) }}"), StatusCode::kResourceExhausted);
  EXPECT_EQ(code("{{ 'a' * 10000000000 }}"), StatusCode::kResourceExhausted);
  EXPECT_EQ(code("{{ 'abcdef' }}", {.max_output_bytes = 5}), StatusCode::kResourceExhausted);
  EXPECT_EQ(code("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(code("{{ " + std::string(5000, '(') + " }}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(code("{{ " + std::string(5000, '-') + "1 }}"), StatusCode::kInvalidArgument);
  std::string doubling =
      "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}";
  EXPECT_EQ(code(doubling), StatusCode::kResourceExhausted);
}

TEST(ChatTemplate, CyclesThroughNamespacesAreFreed) {
  EXPECT_EQ(Render("{% set n = namespace() %}{% set n.self = n %}ok"), "ok");
}

bool ContentIsList(std::string_view source) {
  return ChatTemplate::Parse(source).value()->content_is_list();
}

TEST(ChatTemplate, SeesWhetherContentIsAList) {
  EXPECT_TRUE(
      ContentIsList("{% for m in messages %}{% for p in m['content'] %}{% endfor %}{% endfor %}"));
  EXPECT_TRUE(
      ContentIsList("{% set rest = messages[1:] %}{% for m in rest|list %}"
                    "{% for p in m.content[::-1] %}{% endfor %}{% endfor %}"));
  EXPECT_FALSE(ContentIsList("{% for m in messages %}{{ m.content }}{% endfor %}"));
}

TEST(ChatTemplate, ContentOfOtherThingsDoesNotMakeItAList) {
  // As Mistral-Nemo's: a name that holds content in one branch and tool calls in the other.
  EXPECT_FALSE(ContentIsList(
      "{% for m in messages %}{% if m.tool_calls is defined %}{% set calls = m.tool_calls %}"
      "{% else %}{% set calls = m.content %}{% endif %}{% for c in calls %}{% endfor %}"
      "{{ m.content + 'x' }}{% endfor %}"));
  EXPECT_FALSE(
      ContentIsList("{% for d in documents %}{% for p in d.content %}{% endfor %}"
                    "{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"));
  EXPECT_FALSE(
      ContentIsList("{% macro show(content) %}{% for p in content %}{% endfor %}"
                    "{% endmacro %}{% for m in messages %}{{ show(m.content) }}"
                    "{% endfor %}"));
}

TEST(ChatTemplate, IntegersOfSchemasStayExact) {
  EXPECT_EQ(Render("{{ v|tojson }}|{{ v }}|{{ v.a > 5 }}|{{ v.a + 1 }}",
                   R"({"v":{"a":18446744073709551615,"b":9223372036854775808}})"),
            R"({"a": 18446744073709551615, "b": 9223372036854775808}|)"
            "{'a': 18446744073709551615, 'b': 9223372036854775808}|True|18446744073709551616");
}

TEST(ChatTemplate, FiltersOfNothingGiveNothing) {
  for (const char* nothing : {"none", "false", "0", "''", "x"}) {
    for (const char* filter :
         {"select", "reject", "selectattr('x')", "rejectattr('x')", "map('upper')"}) {
      const std::string source =
          "{{ " + std::string(nothing) + "|" + std::string(filter) + "|list }}";
      EXPECT_EQ(Render(source), "[]") << source;
    }
  }
  EXPECT_THAT(Render("{{ 5|select|list }}"), HasSubstr("not iterable"));
}

TEST(ChatTemplates, OneThatDoesNotParseIsKeptAsItsFault) {
  ChatTemplates templates;
  EXPECT_EQ(templates.Choose(false).status().code(), StatusCode::kNotFound);
  templates.Add("", "{% import 'x' %}");
  templates.Add("tool_use", "ok");
  EXPECT_EQ(templates.Choose(false).status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(templates.fault().message(), HasSubstr("chat template 'default'"));
  EXPECT_TRUE(templates.Choose(true).ok());
  templates.Add("default", "fine");
  EXPECT_TRUE(templates.fault().ok());
  EXPECT_EQ((*templates.Choose(false))->Render(json::Object()).value(), "fine");
  EXPECT_THAT(templates.Find("rag").status().message(), HasSubstr("tool_use, default"));
}

}  // namespace
}  // namespace llmd::text
