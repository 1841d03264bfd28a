// What a reload keeps: plugins made from the same name, type, parameters and dependencies, with the
// state they hold.
#include <algorithm>

#include "config/graph_builder.h"

namespace llmd::sched {
namespace {

Plugin* Predecessor(const Graph& from, const Graph& to, const Plugin& plugin) {
  const auto same_type = [&](const auto& p) { return p->type() == plugin.type(); };
  const auto &before = from.plugins, &after = to.plugins;
  for (const auto& old : before) {
    if (same_type(old) && old->name() == plugin.name()) return old.get();
  }
  // Renamed: only where there is no doubt which is which.
  const bool one_each = std::count_if(before.begin(), before.end(), same_type) == 1 &&
                        std::count_if(after.begin(), after.end(), same_type) == 1;
  return one_each ? std::find_if(before.begin(), before.end(), same_type)->get() : nullptr;
}

}  // namespace

std::shared_ptr<Plugin> GraphBuilder::Kept(size_t i) {
  if (!options_.previous) return nullptr;
  const Graph& old = *options_.previous;
  const Declaration d = declared_[i];  // a copy: dependencies may declare more
  const auto at = std::find_if(old.plugins.begin(), old.plugins.end(), [&](const auto& p) {
    return p->name() == d.name && p->type() == d.type;
  });
  if (at == old.plugins.end()) return nullptr;
  const PluginOrigin& origin = old.origins[static_cast<size_t>(at - old.plugins.begin())];
  if (origin.fills_attributes || !origin.parameters.SameAs(d.parameters)) return nullptr;
  for (const auto& [name, plugin] : origin.dependencies) {
    const StatusOr<Plugin*> now = Dependency(name);
    if (!now.ok() || *now != plugin) return nullptr;
  }
  for (const PluginOrigin::Read& read : origin.attributes) {
    const StatusOr<AttributeId> id = ReadAttribute(read.attribute, read.producer);
    if (!id.ok() || *id != read.id) return nullptr;
  }
  // Asks again for what it asked for when it was made.
  declared_[i].origin = {.parameters = d.parameters,
                         .attributes = origin.attributes,
                         .dependencies = origin.dependencies,
                         .warnings = origin.warnings};
  for (const auto& use : origin.produces) Produce(i, use.data_type, use.producer);
  for (const auto& use : origin.consumes) Consume(i, use.data_type, use.producer, use.required);
  for (const std::string& warning : origin.warnings) Warn(warning);
  return *at;
}

void HandOver(const Graph& before, const Graph& after) {
  for (const auto& plugin : after.plugins) {
    auto* successor = dynamic_cast<Successor*>(plugin.get());
    Plugin* old = successor ? Predecessor(before, after, *plugin) : nullptr;
    if (old != nullptr && old != plugin.get()) successor->Inherit(*old);
  }
}

}  // namespace llmd::sched
