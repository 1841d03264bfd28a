// The access log: one line for each request, from the loops to the log's sink by a thread of its
// own. A loop never waits: it writes into a ring of its own, without a lock and without an
// allocation, and a line that finds no room there is dropped and counted. Lines of one loop keep
// their order.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "llmd/log.h"
#include "llmd/metrics.h"

namespace llmd::services {

class AccessLog {
 public:
  struct Options {
    int lanes = 1;                        // one for each loop
    size_t lane_bytes = size_t{1} << 18;  // of lines that wait
  };

  // What one loop writes. Owned by the log; one thread at a time.
  class Lane {
   public:
    // A whole line, newline included.
    void Write(std::string_view line);

   private:
    friend class AccessLog;
    Lane(AccessLog& log, size_t bytes) : log_(log), ring_(bytes) {}
    bool Put(std::string_view line);
    void Copy(uint64_t at, std::string_view bytes);
    bool TakeInto(std::string& line);
    void Read(uint64_t at, char* out, size_t bytes) const;
    bool empty() const;

    AccessLog& log_;
    std::vector<char> ring_;
    // Bytes written and read so far; each is stored by one side.
    alignas(64) std::atomic<uint64_t> written_{0};
    std::atomic<uint64_t> dropped_{0};
    uint64_t seen_read_ = 0;  // of the writer
    alignas(64) std::atomic<uint64_t> read_{0};
  };

  // `sink` must not block for long: see FdLog.
  AccessLog(std::shared_ptr<LogSink> sink, Options options);
  // One whose dropped lines are counted as llmd_log_lines_dropped_total. `metrics` outlives it.
  static std::unique_ptr<AccessLog> Create(std::shared_ptr<LogSink> sink, int lanes,
                                           MetricsRegistry& metrics);
  // What has been written is handed to the sink. The loops have ended.
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  Lane& lane(int index) { return *lanes_[static_cast<size_t>(index)]; }
  // Lines lost for want of room in a ring. Thread-safe.
  uint64_t dropped() const;

 private:
  void Wake();
  void Run();
  bool Drain();
  bool AllEmpty() const;

  const std::shared_ptr<LogSink> sink_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::atomic<bool> idle_{false};  // the thread sleeps until it is woken
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mutex_
  std::string line_;       // of the thread
  std::shared_ptr<const void> counted_;
  std::thread thread_;
};

}  // namespace llmd::services
