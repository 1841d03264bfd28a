#include "llmd/sched/plugin_library.h"

#include <dlfcn.h>

#include <exception>
#include <filesystem>

namespace llmd::sched {
namespace {

StatusOr<PluginInit*> Open(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status file = std::filesystem::status(path, error);
  if (error || !std::filesystem::exists(file))
    return NotFound("no such file" + (error ? ": " + error.message() : std::string()));
  if (!std::filesystem::is_regular_file(file)) return InvalidArgument("it is no regular file");
  // A name without a slash would be searched for in the system's library directories.
  const std::string exact = path.find('/') == std::string::npos ? "./" + path : path;
  void* library = ::dlopen(exact.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    return InvalidArgument(std::string("it is no shared library this program can load: ") +
                           ::dlerror());
  }
  void* entry = ::dlsym(library, kPluginInitName);
  if (entry == nullptr) {
    return InvalidArgument(std::string("it has no entry point ") + kPluginInitName +
                           "; a plugin library opens one with LLMD_SCHED_PLUGIN_LIBRARY");
  }
  return reinterpret_cast<PluginInit*>(entry);
}

Status Init(PluginInit* init, PluginRegistry& registry) {
  try {
    const char* refusal = init(kPluginAbi, &registry);
    return refusal == nullptr ? OkStatus() : FailedPrecondition(refusal);
  } catch (const std::exception& e) {
    return Internal(std::string("exception while it registered its plugins: ") + e.what());
  } catch (...) {
    return Internal("exception of unknown type while it registered its plugins");
  }
}

Status CheckComplete(const std::string& type, const PluginDescriptor& plugin) {
  if (type.empty() || type != plugin.type)
    return InvalidArgument("plugin type '" + type +
                           "' is registered under another name than its own");
  if (!plugin.make) return InvalidArgument("plugin type '" + type + "' has no factory");
  if (plugin.kind.empty() || plugin.help.empty())
    return InvalidArgument("plugin type '" + type + "' lacks its kind or its help text");
  return OkStatus();
}

Status Load(const std::string& path, PluginRegistry& registry) {
  LLMD_ASSIGN_OR_RETURN(PluginInit * init, Open(path));
  PluginRegistry own;
  LLMD_RETURN_IF_ERROR(Init(init, own));
  const std::vector<std::string> types = own.Types();
  if (types.empty()) return InvalidArgument("it registers no plugin");
  for (const std::string& type : types) {
    LLMD_RETURN_IF_ERROR(CheckComplete(type, **own.Find(type)));
    if (registry.Find(type).ok()) {
      return AlreadyExists("plugin type '" + type +
                           "' exists already, built in or from a library given before");
    }
  }
  for (const std::string& type : types)
    LLMD_RETURN_IF_ERROR(registry.Register(type, **own.Find(type)));
  return OkStatus();
}

}  // namespace

Status LoadPluginLibrary(const std::string& path, PluginRegistry& registry) {
  return Load(path, registry).WithContext("plugin library '" + path + "'");
}

}  // namespace llmd::sched
