#include "llmd/sched/plugin.h"

#include <cstdio>

#include "cli/up.h"
#include "common/flags.h"

namespace llmd::cli {

int RunPlugins(int argc, const char* const* argv) {
  bool markdown = false;
  services::FlagSet set("llmd plugins", "Lists the scheduling plugins this build knows.");
  set.Bool("markdown", &markdown, "with parameters and defaults, as the page docs/plugins.md");
  const auto outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  const sched::PluginRegistry registry = sched::BuiltinPlugins();
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
