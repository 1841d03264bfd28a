#include "llmd/log_fd.h"

#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>

#include "llmd/format.h"

namespace llmd {
namespace {

constexpr size_t kKeptBufferBytes = size_t{1} << 16;
// Under load one switch of threads serves many lines: a thread that was woken this many times in a
// row gathers lines for so long before it writes, and so does the next time it is woken, but for
// one time free every such while.
constexpr Duration kGather = std::chrono::milliseconds(5);
constexpr double kFreeWakes = 32;

std::string DroppedLine(uint64_t count) {
  std::string line = "{\"level\":\"warn\",\"ts\":\"" + FormatRfc3339(SystemClock().UnixNanos());
  line += "\",\"caller\":\"log_fd.cc\",\"msg\":\"";
  AppendInteger(line, count);
  line += " lines were dropped\",\"lines\":";
  AppendInteger(line, count);
  return line + "}\n";
}

}  // namespace

// What the sink and its thread share: the thread may outlive the sink, stuck in a write that nobody
// takes.
class FdLog::Channel {
 public:
  Channel(int fd, size_t max_bytes) : fd_(fd), max_bytes_(max_bytes) {
    struct stat info{};
    whole_ = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  }

  void Put(std::string_view line) {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() + line.size() > max_bytes_) {
      ++dropped_;
      ++unreported_;
      return;
    }
    waiting_ += line;
    if (idle_) wake_.notify_one();
  }

  uint64_t dropped() const {
    const std::lock_guard lock(mutex_);
    return dropped_;
  }

  void Run() {
    std::string taken;
    while (Take(taken)) {
      WriteAll(taken);
      taken.clear();
      if (taken.capacity() > kKeptBufferBytes) taken.shrink_to_fit();
    }
  }

  // True when the thread has ended.
  bool End(Duration patience) {
    std::unique_lock lock(mutex_);
    ending_ = true;
    wake_.notify_one();
    return ended_.wait_for(lock, patience, [this] { return done_; });
  }

 private:
  bool Take(std::string& taken) {
    std::unique_lock lock(mutex_);
    idle_ = true;
    wake_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    idle_ = false;
    if (!TakeFreeWake()) wake_.wait_for(lock, kGather, [this] { return ending_; });
    if (waiting_.empty()) {
      done_ = true;
      ended_.notify_all();
      return false;
    }
    taken.swap(waiting_);
    if (unreported_ > 0) taken += DroppedLine(std::exchange(unreported_, 0));
    return true;
  }

  bool TakeFreeWake() {
    const TimePoint now = SystemClock().Now();
    const auto earned = static_cast<double>((now - last_wake_).count()) / kGather.count();
    free_wakes_ = std::min(kFreeWakes, free_wakes_ + earned);
    last_wake_ = now;
    if (free_wakes_ < 1) return false;
    free_wakes_ -= 1;
    return true;
  }

  // Lines that cannot be written are lost: a log must not stop the program.
  void WriteAll(std::string_view lines) const {
    while (!lines.empty()) {
      std::string_view piece = lines.substr(0, PieceBytes(lines));
      lines.remove_prefix(piece.size());
      while (!piece.empty()) {
        const ssize_t n = ::write(fd_, piece.data(), piece.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN && WaitWritable()) continue;
        if (n <= 0) break;
        piece.remove_prefix(static_cast<size_t>(n));
      }
    }
  }

  // As many whole lines as a pipe takes in one piece, but at least one line.
  size_t PieceBytes(std::string_view lines) const {
    if (whole_ || lines.size() <= PIPE_BUF) return lines.size();
    const size_t last = lines.rfind('\n', PIPE_BUF - 1);
    return (last != std::string_view::npos ? last : lines.find('\n')) + 1;
  }

  bool WaitWritable() const {
    pollfd poll_fd{fd_, POLLOUT, 0};
    return ::poll(&poll_fd, 1, -1) > 0 && (poll_fd.revents & POLLOUT) != 0;
  }

  const int fd_;
  const size_t max_bytes_;
  bool whole_ = false;  // a file: takes any number of bytes at once
  mutable std::mutex mutex_;
  std::condition_variable wake_, ended_;
  std::string waiting_;
  uint64_t dropped_ = 0, unreported_ = 0;
  bool idle_ = false, ending_ = false, done_ = false;
  // Of the thread.
  double free_wakes_ = kFreeWakes;
  TimePoint last_wake_{};
};

struct FdLog::Thread {
  std::thread thread;
};

FdLog::FdLog(Duration flush) : flush_(flush) {}

std::shared_ptr<FdLog> FdLog::Create(int fd, FdLogOptions options) {
  std::shared_ptr<FdLog> log(new FdLog(options.flush));
  log->channel_ = std::make_shared<Channel>(fd, options.max_waiting_bytes);
  // Signals are for the threads of the program.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  log->thread_ =
      std::make_unique<Thread>(Thread{std::thread([channel = log->channel_] { channel->Run(); })});
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return log;
}

FdLog::~FdLog() {
  if (channel_->End(flush_)) {
    thread_->thread.join();
  } else {
    thread_->thread.detach();
  }
}

void FdLog::Write(std::string_view line) {
  channel_->Put(line);
}

uint64_t FdLog::dropped() const {
  return channel_->dropped();
}

std::shared_ptr<LogSink> FdLogSink(int fd) {
  return FdLog::Create(fd);
}

}  // namespace llmd
