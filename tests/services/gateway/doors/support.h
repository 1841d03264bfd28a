// What the tests of the doors share.
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gateway/doors/doors.h"
#include "llmd/uuid.h"

namespace llmd::doors {

// A folder that goes away.
class TempFolder {
 public:
  TempFolder() : path_(std::filesystem::temp_directory_path() / ("doors-" + NewUuid())) {
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  std::string Path(std::string_view name) const { return (path_ / name).string(); }
  // Replaces the file by renaming, as careful writers do.
  std::string Write(std::string_view name, std::string_view text) const {
    const std::string path = Path(name);
    std::ofstream(path + ".tmp", std::ios::binary) << text;
    std::filesystem::rename(path + ".tmp", path);
    return path;
  }

 private:
  std::filesystem::path path_;
};

// As the relay keeps header lines: more than name and value.
struct TestLine {
  std::string_view name, value;
  int known = 0;
};
using TestLines = std::vector<TestLine>;
inline HeaderSpan Span(const TestLines& lines) {
  return std::span<const TestLine>(lines);
}

inline IpAddress Ip(std::string_view text) {
  return IpAddress::Parse(text).value();
}

// Waits for what another thread does; false after ten seconds.
inline bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// The value that edits set a header to; "-" = removed, "" = not touched.
inline std::string EditOf(std::span<const HeaderEdit> edits, std::string_view name) {
  for (const HeaderEdit& edit : edits) {
    if (EqualsIgnoreCase(edit.name, name)) return edit.remove ? "-" : std::string(edit.value);
  }
  return "";
}

}  // namespace llmd::doors
