// CPU time and memory of another process, from /proc.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

namespace llmd::perf {

// User and system time of all threads alive, seconds, to the nanosecond.
inline double CpuSeconds(int pid) {
  double nanos = 0;
  std::error_code ignored;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", ignored)) {
    std::ifstream in(task.path() / "schedstat");
    double on_cpu = 0;
    if (in >> on_cpu) nanos += on_cpu;
  }
  return nanos * 1e-9;
}

// A field of /proc/PID/status such as "VmRSS", in MB (10^6 bytes); 0 when there is none.
inline double StatusMegabytes(int pid, const std::string& field) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  std::string name;
  for (std::string line; in >> name && std::getline(in, line);) {
    if (name == field + ":") return std::stod(line) * 1024e-6;
  }
  return 0;
}

}  // namespace llmd::perf
