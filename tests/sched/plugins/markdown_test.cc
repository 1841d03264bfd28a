#include <fstream>
#include <sstream>

#include "llmd/sched/plugin.h"
#include "sched/support.h"
#include "support/paths.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;

TEST(PluginsMarkdown, DocsHoldTheGeneratedText) {
  std::ifstream file(::llmd::testing::SourcePath("docs/plugins.md"));
  std::stringstream text;
  text << file.rdbuf();
  const std::string fresh = PluginsMarkdown(BuiltinPlugins());
  const std::string path = ::testing::TempDir() + "plugins.md";
  if (text.str() != fresh) std::ofstream(path) << fresh;
  EXPECT_TRUE(text.str() == fresh)
      << "docs/plugins.md is not what the code says; the new text is in " << path;
}

TEST(PluginsMarkdown, ListsEveryTypeOnceUnderItsKind) {
  const PluginRegistry registry = BuiltinPlugins();
  const std::string page = PluginsMarkdown(registry);
  for (const std::string& type : registry.Types()) {
    const std::string own = "\n### `" + type + "`\n";
    const size_t at = page.find(own);
    ASSERT_NE(at, std::string::npos) << type;
    EXPECT_EQ(page.find(own, at + 1), std::string::npos) << type;
    const size_t heading = page.rfind("\n## ", at);
    const std::string kind = page.substr(heading + 4, page.find('\n', heading + 4) - heading - 4);
    EXPECT_EQ(kind, (*registry.Find(type))->kind) << type;
  }
}

TEST(PluginsMarkdown, ShowsStabilityDefaultsAndHelp) {
  PluginRegistry registry;
  ASSERT_TRUE(AddPlugin(registry, {.type = "a-filter",
                                   .kind = "filter",
                                   .stability = Stability::kAlpha,
                                   .help = "Keeps some.",
                                   .params = {{"one", "1", "first"}, {"two", "", "a || b"}},
                                   .make = nullptr})
                  .ok());
  const std::string page = PluginsMarkdown(registry);
  EXPECT_THAT(page, HasSubstr("## filter\n"));
  EXPECT_THAT(page, HasSubstr("### `a-filter`\n\nKind: filter. Stability: alpha.\n\nKeeps some.\n\n"
                              "| parameter | default | what |\n|---|---|---|\n"
                              "| `one` | 1 | first |\n| `two` | – | a \\|\\| b |\n"));
}

TEST(PluginsMarkdown, LinksEveryBuiltInPluginToItsHeadingInTheReference) {
  const PluginRegistry registry = BuiltinPlugins();
  const std::string page = PluginsMarkdown(registry);
  for (const std::string& type : registry.Types()) {
    const size_t link = page.find("#" + type + ")");
    ASSERT_NE(link, std::string::npos) << type;
    const size_t begin = page.rfind("(reference/", link) + 1;
    const std::string path = "docs/" + page.substr(begin, link - begin);
    std::ifstream file(::llmd::testing::SourcePath(path));
    std::stringstream text;
    text << file.rdbuf();
    EXPECT_THAT(text.str(), HasSubstr("\n## `" + type + "`\n")) << path;
  }
}

}  // namespace
}  // namespace llmd::sched
