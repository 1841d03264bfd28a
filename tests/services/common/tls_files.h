// A folder of certificate files under a clock of the test's.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "common/tls.h"

namespace llmd::services {

class TlsFiles : public testing::Test {
 protected:
  TlsFiles() {
    dir_ = std::filesystem::temp_directory_path() /
           ("llmd_tls_" + std::to_string(::getpid()) + "_" + std::to_string(++count_));
    std::filesystem::create_directories(dir_);
    files_.dir = dir_.string();
  }
  ~TlsFiles() override { std::filesystem::remove_all(dir_); }

  std::string Path(const char* name) const { return (dir_ / name).string(); }
  // Writes with a time of modification of `age` before the clock's now.
  void Write(const char* name, const std::string& text, Duration age = std::chrono::seconds(10)) {
    std::ofstream(dir_ / name, std::ios::binary) << text;
    const auto modified = std::chrono::system_clock::time_point(
        std::chrono::nanoseconds(clock_.UnixNanos() - age.count()));
    std::filesystem::last_write_time(dir_ / name, std::chrono::file_clock::from_sys(modified));
  }
  Certificate WritePair(Duration age = std::chrono::seconds(10)) {
    Certificate made = *SelfSigned("");
    Write("tls.crt", made.chain, age);
    Write("tls.key", made.key, age);
    return made;
  }

  static inline int count_ = 0;
  std::filesystem::path dir_;
  CertificateFiles files_;
  FakeClock clock_;
  std::shared_ptr<MemoryLogSink> sink_ = std::make_shared<MemoryLogSink>();
  Logger logger_{sink_, LogLevel::kDebug};
};

}  // namespace llmd::services
