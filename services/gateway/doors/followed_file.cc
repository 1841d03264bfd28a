#include "gateway/doors/followed_file.h"

#include <algorithm>
#include <fstream>

#include "data/file_watch.h"
#include "llmd/format.h"

namespace llmd::doors {
namespace {

// Editors write a file in several steps.
constexpr std::chrono::milliseconds kQuiet{100};
constexpr size_t kMaxEngineKey = 4096;

}  // namespace

FollowedFile::FollowedFile(std::string kind, std::string path, std::function<Status()> load,
                           Logger logger, DoorMetrics& metrics)
    : kind_(std::move(kind)),
      path_(std::move(path)),
      load_(std::move(load)),
      logger_(std::move(logger)),
      metrics_(metrics) {}

FollowedFile::~FollowedFile() {
  Stop();
}

Status FollowedFile::Start() {
  // Watched before it is read, so that no change falls between the two.
  watch_ = std::make_unique<sched::FileWatch>();
  std::unique_lock lock(mutex_);
  LLMD_RETURN_IF_ERROR(watch_->Start(path_, [this] { (void)Reload(); }, kQuiet));
  Status status = load_();
  lock.unlock();
  if (!status.ok()) Stop();
  return status;
}

Status FollowedFile::Reload() {
  const std::lock_guard lock(mutex_);
  Status status = load_();
  metrics_.Reloaded(kind_, status.ok());
  if (status.ok()) {
    logger_.Info("file read again", {{"file", kind_}, {"path", path_}});
  } else {
    logger_.Error("file not taken, keeping what was before",
                  {{"file", kind_}, {"path", path_}, {"error", status.ToString()}});
  }
  return status;
}

void FollowedFile::Stop() {
  if (watch_) watch_->Stop();
}

StatusOr<std::string> ReadEngineKey(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("'" + path + "' cannot be opened");
  std::string text(kMaxEngineKey + 2, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  const std::string_view key = Trim(text);
  if (key.empty() || key.size() > kMaxEngineKey ||
      !std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f; })) {
    return InvalidArgument("'" + path + "': expected one line of 1 to 4096 printable ASCII bytes");
  }
  return "Bearer " + std::string(key);
}

}  // namespace llmd::doors
