// The sink of processes: lines go to a file descriptor by a thread of its own, so that whoever logs
// never waits for whoever reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "llmd/clock.h"
#include "llmd/log.h"

namespace llmd {

struct FdLogOptions {
  size_t max_waiting_bytes = size_t{4} << 20;
  // How long the destructor waits for what has been taken to be written.
  Duration flush = std::chrono::seconds(1);
};

// Each line goes in one write(2) where the system takes it whole. Lines that would wait behind more
// than `max_waiting_bytes` are dropped, counted, and reported by a line "N lines were dropped" once
// there is room. The descriptor is not owned and must stay open as long as the sink; what cannot be
// written at the end is lost. Thread-safe.
class FdLog final : public LogSink {
 public:
  static std::shared_ptr<FdLog> Create(int fd, FdLogOptions options = {});
  ~FdLog() override;

  void Write(std::string_view line) override;
  // Lines lost so far for want of room.
  uint64_t dropped() const;

 private:
  class Channel;
  struct Thread;
  explicit FdLog(Duration flush);

  const Duration flush_;
  std::shared_ptr<Channel> channel_;
  std::unique_ptr<Thread> thread_;
};

}  // namespace llmd
