#include <map>
#include <string_view>

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

// The page under docs/reference that has a heading for each plugin of the kind; "" = none.
std::string_view PageOf(std::string_view kind) {
  static const std::map<std::string_view, std::string_view> kPages = {
      {"admitter", "admitters"},
      {"decider", "profile-handlers"},
      {"discovery", "data"},
      {"eviction policy", "flow-control"},
      {"extractor", "data"},
      {"fairness policy", "flow-control"},
      {"filter", "filters"},
      {"filter, scorer", "filters"},
      {"header handler", "profile-handlers"},
      {"ordering policy", "flow-control"},
      {"parser", "parsers"},
      {"picker", "pickers"},
      {"producer", "producers"},
      {"profile handler", "profile-handlers"},
      {"reporter", "reporters"},
      {"request header hook", "request-headers"},
      {"saturation detector, filter", "flow-control"},
      {"scorer", "scorers"},
      {"source", "data"},
      {"usage limit policy", "flow-control"},
  };
  const auto page = kPages.find(kind);
  return page == kPages.end() ? std::string_view() : page->second;
}

// As the text of a table's cell.
std::string Cell(std::string_view text) {
  std::string out;
  for (const char c : text) out.append(c == '|' ? "\\" : "").push_back(c);
  return out.empty() ? "–" : out;
}

std::string Section(const PluginDescriptor& d, bool built_in) {
  std::string out =
      "\n### `" + d.type + "`\n\nKind: " + d.kind + ". Stability: " + Word(d.stability) + ".";
  if (const std::string_view page = PageOf(d.kind); built_in && !page.empty()) {
    const std::string file = std::string(page) + ".md";
    out += " Reference: [" + file + "](reference/" + file + "#" + d.type + ").";
  }
  out += "\n\n" + d.help + "\n";
  if (!d.params.empty()) out += "\n| parameter | default | what |\n|---|---|---|\n";
  for (const ParamHelp& p : d.params)
    out += "| `" + p.name + "` | " + Cell(p.fallback) + " | " + Cell(p.help) + " |\n";
  return out;
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
  // Plugins of other libraries have no page here.
  const PluginRegistry known = BuiltinPlugins();
  for (const auto& [kind, list] : by_kind) {
    out += "\n## " + kind + "\n";
    for (const PluginDescriptor* d : list) out += Section(*d, known.Find(d->type).ok());
  }
  return out;
}

}  // namespace llmd::sched
