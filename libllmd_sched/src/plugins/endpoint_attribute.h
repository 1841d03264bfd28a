// What the plugins share that read one endpoint attribute.
#pragma once

#include <string>
#include <string_view>

#include "llmd/sched/plugin.h"

namespace llmd::sched {

// The attribute that the parameters `key` and `producer` name; errors go to `params`.
inline AttributeId ReadAttribute(Params& params, PluginEnv& env, std::string_view key) {
  const std::string name = params.String(key, "");
  const std::string producer = params.String("producer", "core-metrics-extractor");
  if (name.empty()) params.Fail(key, "expected the name of an endpoint attribute");
  if (name.empty()) return kNoAttribute;
  if (name.find('/') != std::string::npos && !params.Has("producer")) {
    params.Fail(key, "'" + name + "' holds a '/': name its producer in 'producer'");
    return kNoAttribute;
  }
  const StatusOr<AttributeId> id = env.ConsumeAttribute(name, producer);
  if (!id.ok()) params.Fail(key, id.status().message());
  return id.value_or(kNoAttribute);
}

}  // namespace llmd::sched
