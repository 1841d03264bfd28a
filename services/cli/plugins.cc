#include "llmd/sched/plugin.h"

#include <cstdio>

#include "cli/up.h"
#include "common/flags.h"
#include "common/picker_flags.h"
#include "common/process.h"

namespace llmd::cli {

int RunPlugins(int argc, const char* const* argv) {
  bool markdown = false;
  std::vector<std::string> libraries;
  services::FlagSet set("llmd plugins",
                        "Lists the scheduling plugins this build and the given libraries know.");
  set.Bool("markdown", &markdown, "with parameters and defaults, as the page docs/plugins.md");
  set.List("plugin-library", &libraries,
           "shared library with plugins of your own (docs/custom-plugins.md); may be repeated");
  const auto outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  const auto loaded = services::LoadPlugins(libraries);
  if (!loaded.ok()) return services::Fail(loaded.status());
  const sched::PluginRegistry& registry = *loaded;
  if (markdown) {
    std::fputs(sched::PluginsMarkdown(registry).c_str(), stdout);
    return 0;
  }
  for (const std::string& type : registry.Types()) {
    const auto plugin = registry.Find(type);
    std::printf("%-36s %-16s %s\n", type.c_str(), (*plugin)->kind.c_str(), (*plugin)->help.c_str());
  }
  return 0;
}

}  // namespace llmd::cli
