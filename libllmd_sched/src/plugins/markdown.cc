#include <map>

#include "llmd/sched/plugin.h"

namespace llmd::sched {
namespace {

const char* Word(Stability s) {
  switch (s) {
    case Stability::kStable:
      return "stable";
    case Stability::kBeta:
      return "beta";
    case Stability::kAlpha:
      return "alpha";
    case Stability::kDeprecated:
      return "deprecated";
  }
  return "";
}

}  // namespace

std::string PluginsMarkdown(const PluginRegistry& registry) {
  std::string out =
      "# Plugins\n\nGenerated from the code by `llmd plugins --markdown`. Alpha plugins need "
      "`--allow-experimental-plugins`. Parameters not listed are errors.\n";
  std::map<std::string, std::vector<const PluginDescriptor*>> by_kind;
  for (const std::string& type : registry.Types()) {
    const PluginDescriptor* d = *registry.Find(type);
    by_kind[d->kind].push_back(d);
  }
  for (const auto& [name, list] : by_kind) {
    out += "\n## " + name +
           "\n\n| type | stability | what | parameters (default) |\n|---|---|---|---|\n";
    for (const PluginDescriptor* d : list) {
      out += "| `" + d->type + "` | " + Word(d->stability) + " | " + d->help + " | ";
      for (size_t i = 0; i < d->params.size(); ++i) {
        const ParamHelp& p = d->params[i];
        out += (i ? "<br>" : "") + ("`" + p.name + "`") +
               (p.fallback.empty() ? "" : " (" + p.fallback + ")") + ": " + p.help;
      }
      out += std::string(d->params.empty() ? "–" : "") + " |\n";
    }
  }
  return out;
}

}  // namespace llmd::sched
