#include "common/access_log.h"

#include <pthread.h>

#include <algorithm>
#include <csignal>
#include <cstring>

namespace llmd::services {
namespace {

// Under load one switch of threads serves many lines: once awake, the thread looks again after so
// long, and sleeps when it has found nothing so many times.
constexpr auto kGather = std::chrono::milliseconds(5);
constexpr int kQuietTurns = 4;

using Length = uint32_t;

}  // namespace

void AccessLog::Lane::Copy(uint64_t at, std::string_view bytes) {
  const size_t begin = at % ring_.size();
  const size_t first = std::min(bytes.size(), ring_.size() - begin);
  std::memcpy(ring_.data() + begin, bytes.data(), first);
  std::memcpy(ring_.data(), bytes.data() + first, bytes.size() - first);
}

void AccessLog::Lane::Read(uint64_t at, char* out, size_t bytes) const {
  const size_t begin = at % ring_.size();
  const size_t first = std::min(bytes, ring_.size() - begin);
  std::memcpy(out, ring_.data() + begin, first);
  std::memcpy(out + first, ring_.data(), bytes - first);
}

bool AccessLog::Lane::Put(std::string_view line) {
  const uint64_t at = written_.load(std::memory_order_relaxed);
  const auto size = static_cast<Length>(line.size());
  const size_t needed = sizeof(size) + line.size();
  if (at + needed - seen_read_ > ring_.size()) {
    seen_read_ = read_.load(std::memory_order_acquire);
    if (at + needed - seen_read_ > ring_.size()) return false;
  }
  Copy(at, {reinterpret_cast<const char*>(&size), sizeof(size)});
  Copy(at + sizeof(size), line);
  written_.store(at + needed, std::memory_order_release);
  return true;
}

void AccessLog::Lane::Write(std::string_view line) {
  if (Put(line)) return log_.Wake();
  dropped_.store(dropped_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

bool AccessLog::Lane::empty() const {
  return read_.load(std::memory_order_relaxed) == written_.load(std::memory_order_acquire);
}

bool AccessLog::Lane::TakeInto(std::string& line) {
  if (empty()) return false;
  const uint64_t at = read_.load(std::memory_order_relaxed);
  Length size = 0;
  Read(at, reinterpret_cast<char*>(&size), sizeof(size));
  line.resize(size);
  Read(at + sizeof(size), line.data(), size);
  read_.store(at + sizeof(size) + size, std::memory_order_release);
  return true;
}

AccessLog::AccessLog(std::shared_ptr<LogSink> sink, Options options) : sink_(std::move(sink)) {
  for (int i = 0; i < options.lanes; ++i) lanes_.emplace_back(new Lane(*this, options.lane_bytes));
  // Signals are for the threads of the program.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

std::unique_ptr<AccessLog> AccessLog::Create(std::shared_ptr<LogSink> sink, int lanes,
                                             MetricsRegistry& metrics) {
  Options options;
  options.lanes = lanes;
  auto log = std::make_unique<AccessLog>(std::move(sink), options);
  log->counted_ = metrics.AddCounterCollector(
      "llmd_log_lines_dropped_total", "Log lines lost because nobody read them in time.",
      [raw = log.get()](const MetricsRegistry::GaugeEmit& emit) {
        const Labels none;
        emit(none, static_cast<double>(raw->dropped()));
      });
  return log;
}

AccessLog::~AccessLog() {
  counted_.reset();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

uint64_t AccessLog::dropped() const {
  uint64_t total = 0;
  for (const auto& lane : lanes_) total += lane->dropped_.load(std::memory_order_relaxed);
  return total;
}

// Either this sees that the thread sleeps, or the thread sees the line before it does.
void AccessLog::Wake() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!idle_.load(std::memory_order_relaxed)) return;
  {
    const std::lock_guard lock(mutex_);
    idle_.store(false, std::memory_order_relaxed);
  }
  wake_.notify_one();
}

bool AccessLog::AllEmpty() const {
  return std::all_of(lanes_.begin(), lanes_.end(), [](const auto& lane) { return lane->empty(); });
}

bool AccessLog::Drain() {
  bool any = false;
  for (const auto& lane : lanes_) {
    while (lane->TakeInto(line_)) {
      sink_->Write(line_);
      any = true;
    }
  }
  return any;
}

void AccessLog::Run() {
  int quiet = 0;
  while (true) {
    const bool any = Drain();
    quiet = any ? 0 : quiet + 1;
    std::unique_lock lock(mutex_);
    if (stopping_ && !any) return;
    if (quiet < kQuietTurns) {
      wake_.wait_for(lock, kGather, [this] { return stopping_; });
      continue;
    }
    idle_.store(true, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (AllEmpty())
      wake_.wait(lock, [this] { return stopping_ || !idle_.load(std::memory_order_relaxed); });
    idle_.store(false, std::memory_order_relaxed);
    quiet = 0;
  }
}

}  // namespace llmd::services
