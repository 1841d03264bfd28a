// Plugins from outside: a shared library that registers filters, scorers, pickers … with a program
// that was not built with them. The library is compiled against the headers alone
// (CMake target llmd::sched_plugin); every llmd symbol it needs comes from the program that loads
// it. docs/custom-plugins.md walks through one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmd/sched/admitter.h"
#include "llmd/sched/filter.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/picker.h"
#include "llmd/sched/plugin.h"
#include "llmd/sched/producer.h"
#include "llmd/sched/profile_handler.h"
#include "llmd/sched/scorer.h"
#include "llmd/version.h"

// Raised with every change that a compiled plugin would not notice: the order or signature of
// virtual functions, the order or meaning of fields.
#define LLMD_SCHED_PLUGIN_ABI 2

namespace llmd::sched {

namespace internal {
inline std::string AbiText(uint64_t abi) {
  return std::to_string(abi >> 32) + "." + std::to_string(abi & 0xffffffff);
}
constexpr uint32_t Mix(uint32_t hash, size_t value) {
  return (hash ^ static_cast<uint32_t>(value)) * 16777619u;
}
template <typename... T>
constexpr uint32_t LayoutOf() {
  uint32_t hash = 2166136261u;
  ((hash = Mix(Mix(hash, sizeof(T)), alignof(T))), ...);
  return hash;
}
}  // namespace internal

// What a library and the program that loads it must agree on: LLMD_SCHED_PLUGIN_ABI above, and a
// hash of the sizes of the types that cross between them below.
inline constexpr uint64_t kPluginAbi =
    (uint64_t{LLMD_SCHED_PLUGIN_ABI} << 32) |
    internal::LayoutOf<std::string, std::vector<double>, json::Value, config::Node, Logger,
                       StatusOr<int>, RequestContext, Attribute, EndpointInfo, EndpointMetrics,
                       EndpointSet, Snapshot, Plugin, PluginEnv, PluginArgs, PluginDescriptor,
                       PluginRegistry, ScheduleOutcome>();

// The entry point every plugin library exports as "llmd_plugin_init". Returns null when its plugins
// are registered, else why not: text that stays valid. With another abi_version it must return
// before it touches `registry`.
using PluginInit = const char*(uint64_t abi_version, PluginRegistry* registry);
inline constexpr const char* kPluginInitName = "llmd_plugin_init";

// Opens the shared library at `path` (a file, never searched for) and adds its plugins to
// `registry`: all of them or, with an error, none. It stays loaded for the life of the process.
// NOT_FOUND without the file; INVALID_ARGUMENT when it is no shared library, needs symbols this
// program lacks, has no entry point, or registers nothing or something incomplete;
// FAILED_PRECONDITION when it refuses, another ABI version among the reasons; ALREADY_EXISTS for a
// type that `registry` has; INTERNAL for an exception. Every message names the file. The program
// must export llmd's symbols, as llmd-epp, llmd-gateway and llmd do.
Status LoadPluginLibrary(const std::string& path, PluginRegistry& registry);

namespace internal {
// The body of the entry point; runs inside the library.
inline const char* InitPluginLibrary(uint64_t abi_version, PluginRegistry* registry,
                                     Status (*add)(PluginRegistry&)) {
  static std::string error;
  if (abi_version == kPluginAbi) {
    const Status status = add(*registry);
    if (status.ok()) return nullptr;
    error = status.message();
  } else {
    error = "it was built for plugin ABI " + AbiText(kPluginAbi) +
            " (llmd " LLMD_VERSION_STRING "), this program has " + AbiText(abi_version) +
            ": rebuild it against the headers of this program";
  }
  return error.c_str();
}
}  // namespace internal

}  // namespace llmd::sched

// Opens the function that registers a library's plugins; its body follows and returns a Status:
//   LLMD_SCHED_PLUGIN_LIBRARY(registry) { return llmd::sched::AddPlugin(registry, {...}); }
// Once per library, outside any namespace.
#define LLMD_SCHED_PLUGIN_LIBRARY(registry)                                               \
  static ::llmd::Status LlmdAddPlugins(::llmd::sched::PluginRegistry& registry);          \
  extern "C" __attribute__((visibility("default"))) const char* llmd_plugin_init(         \
      uint64_t abi_version, ::llmd::sched::PluginRegistry* into) {                        \
    return ::llmd::sched::internal::InitPluginLibrary(abi_version, into, LlmdAddPlugins); \
  }                                                                                       \
  static ::llmd::Status LlmdAddPlugins(::llmd::sched::PluginRegistry& registry)
