#include "gateway/open_doors.h"

#include <filesystem>
#include <utility>

namespace llmd::gateway {
namespace {

using services::PickerFlags;

void AddEndpointsFiles(const std::string& pool, std::string_view config, doors::RouteFiles& files) {
  for (std::string& path : doors::EndpointsFilesOf(config))
    files.endpoints_files.emplace_back(pool, std::move(path));
}

StatusOr<doors::RouteFiles> FilesOf(const PickerFlags& flags, bool with_picker) {
  doors::RouteFiles out;
  out.pools_file = flags.pools_file;
  if (with_picker) return out;
  if (flags.pools_file.empty()) {
    std::string config = flags.config_text;
    if (!flags.config_file.empty()) {
      LLMD_ASSIGN_OR_RETURN(config, services::ReadConfigFile("--config-file", flags.config_file));
    }
    AddEndpointsFiles("", config, out);
    return out;
  }
  LLMD_ASSIGN_OR_RETURN(const std::string yaml,
                        services::ReadConfigFile("--pools-file", flags.pools_file));
  auto pools =
      sched::ParsePools(yaml, std::filesystem::path(flags.pools_file).parent_path().string());
  if (!pools.ok()) return pools.status().WithContext(flags.pools_file);
  for (const sched::PoolRule& pool : pools->pools) {
    LLMD_ASSIGN_OR_RETURN(const std::string config,
                          services::ReadConfigFile("pool '" + pool.name + "'", pool.config_path));
    AddEndpointsFiles(pool.name, config, out);
  }
  return out;
}

}  // namespace

StatusOr<std::unique_ptr<doors::Doors>> OpenDoors(const doors::DoorFlags& flags,
                                                  const PickerFlags& picker, bool with_picker,
                                                  const Logger& logger, MetricsRegistry& metrics) {
  LLMD_ASSIGN_OR_RETURN(doors::RouteFiles files, FilesOf(picker, with_picker));
  LLMD_ASSIGN_OR_RETURN(
      doors::DoorOptions options,
      doors::ToDoorOptions(flags, std::move(files), static_cast<uint64_t>(picker.seed)));
  options.key_priorities = !with_picker;
  return doors::Doors::Create(std::move(options), logger, metrics, SystemClock());
}

EngineList EnginesOf(const services::Pools& pools) {
  return [&pools] {
    std::vector<doors::EngineName> out;
    for (const auto& [name, director] : pools.directors()) {
      for (const sched::EndpointInfo& endpoint : director->Endpoints())
        out.push_back({name, endpoint.HostPort()});
    }
    return out;
  };
}

}  // namespace llmd::gateway
