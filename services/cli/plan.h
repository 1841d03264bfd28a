// From a cluster's description to processes: who is started with which command line, on which
// ports, and the files they read. Pure but for the port probe, so that it can be tested and shown
// (`llmd up --dry-run`).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cli/cluster_spec.h"
#include "llmd/json.h"

namespace llmd::cli {

struct ProcessPlan {
  std::string name;               // "decode-0-sidecar"
  std::string role;               // gateway, epp, sidecar, prefill, decode, both
  std::vector<std::string> argv;  // argv[0] is a path
  uint16_t health_port = 0;
  std::string health_path;               // 200 = ready
  std::vector<std::string> environment;  // NAME=value, besides the parent's
};

struct ClusterPlan {
  std::vector<ProcessPlan> processes;                      // in the order of starting
  std::vector<std::pair<std::string, std::string>> files;  // path and content
  uint16_t gateway_port = 0;
  uint16_t admin_port = 0;  // of the process that decides: the gateway, or its picker
  std::string name, served_model_name;
  // "3 engines, 2 sidecars and a gateway for MODEL".
  std::string Summary() const;
  // What other commands read: ports, names, roles, and the process that owns the cluster.
  json::Value RunFile() const;
};

// Gives a port that nothing listens on: the wanted one if it is free, else another; 0 = any.
using PortPicker = std::function<uint16_t(uint16_t wanted)>;
// Tries to bind 127.0.0.1; never gives the same port twice.
PortPicker FreePorts();

// `bin_dir` holds llmd-engine and the others; files go under `run_dir`. ALREADY_EXISTS when the
// gateway's port is taken.
StatusOr<ClusterPlan> MakePlan(const ClusterSpec& spec, const std::string& bin_dir,
                               const std::string& run_dir, const PortPicker& pick);

// The run file of a cluster that runs here. NOT_FOUND naming the path; PERMISSION_DENIED when its
// folder is not ours alone.
StatusOr<json::Value> ReadRunFile(const std::string& cluster_name);

}  // namespace llmd::cli
