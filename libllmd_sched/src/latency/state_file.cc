#include "latency/state_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace llmd::sched::latency {
namespace {

constexpr int kVersion = 1;
constexpr size_t kMaxBytes = 2 << 20;

Status Failed(const std::string& what, const std::string& path) {
  return Unavailable(what + " '" + path + "': " + std::strerror(errno));
}

Status WriteAll(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Failed("cannot write", path);
    text.remove_prefix(static_cast<size_t>(n));
  }
  return ::fsync(fd) == 0 ? OkStatus() : Failed("cannot flush", path);
}

}  // namespace

Status SaveModel(const LatencyModel& model, const std::string& path) {
  const std::string text =
      json::Value(json::Object{{"version", kVersion}, {"model", model.ToJson()}}).Dump();
  const std::string beside = path + ".new";
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return Failed("cannot create", beside);
  Status written = WriteAll(fd, text, beside);
  ::close(fd);
  LLMD_RETURN_IF_ERROR(written);
  if (::rename(beside.c_str(), path.c_str()) != 0) return Failed("cannot replace", path);
  return OkStatus();
}

Status LoadModel(const std::string& path, LatencyModel* model) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("no file '" + path + "'");
  std::error_code error;
  if (std::filesystem::file_size(path, error) > kMaxBytes || error)
    return InvalidArgument("'" + path + "' is no file of at most 2 MiB");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  StatusOr<json::Value> value = json::Parse(text);
  if (!value.ok()) return InvalidArgument("'" + path + "': " + value.status().message());
  const json::Value& version = (*value)["version"];
  if (!version.is_int() || version.AsInt() != kVersion)
    return InvalidArgument("'" + path + "' is not of version " + std::to_string(kVersion));
  Status status = model->FromJson((*value)["model"]);
  return status.ok() ? status : status.WithContext("'" + path + "'");
}

StateKeeper::StateKeeper(std::shared_ptr<const LatencyModel> model, std::string path, Logger logger,
                         Duration every)
    : model_(std::move(model)), path_(std::move(path)), logger_(std::move(logger)), every_(every) {
  saved_ = model_->learned();
  thread_ = std::thread([this] { Run(); });
}

StateKeeper::~StateKeeper() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  SaveIfChanged();
}

void StateKeeper::Run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, every_, [this] { return stopping_; })) {
    lock.unlock();
    SaveIfChanged();
    lock.lock();
  }
}

void StateKeeper::SaveIfChanged() {
  const uint64_t learned = model_->learned();
  if (learned == saved_) return;
  if (Status status = SaveModel(*model_, path_); !status.ok()) {
    logger_.Warn("the latency model could not be saved", {{"error", status.message()}});
    return;
  }
  saved_ = learned;
}

}  // namespace llmd::sched::latency
