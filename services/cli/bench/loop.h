// One thread that sends requests and reads answers: an epoll loop over its own connections, without
// coroutines. It shares nothing with the other loops but a flag to stop, and counts that are read
// while it runs.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/bench/arrivals.h"
#include "cli/bench/connection.h"
#include "cli/bench/tally.h"
#include "cli/bench/workload.h"

namespace llmd::bench {

// What all loops of a run share. Thread-safe.
struct Run {
  const Options& options;
  const Workload& workload;
  const Trace* trace = nullptr;                 // kTrace only
  std::vector<Address> addresses;               // of each target
  std::shared_ptr<const http::TlsContext> tls;  // for targets with https
  TimePoint start{};                            // time 0; may lie ahead
  std::atomic<bool> stop{false};                // seen within 100 ms
};

class Loop {
 public:
  // Share `share` of `of`.
  Loop(Run& run, uint64_t share, uint64_t of);
  ~Loop();
  // The thread's body: until every request is over, or `stop`. The answer is the first thing that
  // made it impossible to go on (no epoll); failed requests are counted, not errors.
  Status Go();

  // For everybody, while it runs.
  struct Progress {
    std::atomic<uint64_t> sent{0}, completed{0}, failed{0}, in_flight{0}, output_tokens{0};
    std::atomic<bool> over{false};
  };
  const Progress& progress() const { return progress_; }

  // Once Go has returned.
  const Tally& total() const { return total_; }
  const std::vector<Tally>& stages() const { return stages_; }    // empty for one stage
  const std::vector<Tally>& tenants() const { return tenants_; }  // empty without
  const Series& series() const { return series_; }
  uint64_t reconnects() const { return reconnects_; }
  uint64_t warmup_requests() const { return warmup_requests_; }
  uint64_t connections_opened() const { return opened_; }
  uint64_t most_in_flight() const { return most_in_flight_; }
  int64_t cpu_nanos() const { return cpu_nanos_; }

 private:
  struct Waiting {
    int64_t at = 0;
    Conversation conversation;
  };
  // A request that is built and waits for its time.
  struct Prepared {
    int64_t intended = 0;
    Conversation conversation;
    Outgoing request;
    size_t target = 0;
  };

  // The loop's thread is the only writer.
  static void Bump(std::atomic<uint64_t>& counter, uint64_t by) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  int64_t Now() const { return (SystemClock().Now() - run_.start).count(); }
  bool Closed() const { return run_.options.load == Options::Load::kClosed; }
  bool Over() const;
  void Turn(int64_t now);
  int64_t NextWake(int64_t now) const;
  void Poll(int64_t wait_nanos);

  // Sending.
  void StartDue(int64_t now);
  bool StartClosed(int64_t now);
  bool StartWaiting(int64_t now);
  bool StartOpen(int64_t now);
  bool StageTimeOver(int64_t now) const;
  bool StageOver(int64_t now) const { return stage_left_ == 0 || StageTimeOver(now); }
  void EnterStage(size_t stage, int64_t begin);
  void PrepareArrival();
  void Prepare(Conversation conversation, int64_t intended, Prepared& out);
  void Send(Prepared& prepared);
  Connection* Take(size_t target);
  void CountSent(const Connection& connection);
  void ListenFor(Connection& connection);
  void Open(Connection& connection);
  void Write(Connection& connection);

  // Receiving.
  void OnEvents(Connection& connection, uint32_t events);
  void OnConnected(Connection& connection);
  void Handshake(Connection& connection);
  void WaitForRoom(Connection& connection, bool wait);
  void Read(Connection& connection);
  void OnCut(Connection& connection, Failure failure);
  void Expire(int64_t now);

  // Ending.
  void Finish(Connection& connection, Failure failure);
  Failure Judge(const Answer& answer) const;
  void Count(const Connection& connection, const Outcome& outcome);
  void Continue(Connection& connection, const Outcome& outcome);
  void Close(Connection& connection);
  void Interrupt();

  Run& run_;
  const uint64_t share_, of_;
  int epoll_ = -1;
  Status broken_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<Connection*> closed_;             // of connections_, to be used again
  std::vector<std::vector<Connection*>> idle_;  // [target], the last used last
  InFlightList in_flight_;
  uint64_t in_flight_count_ = 0, max_in_flight_;

  // Open loop.
  Arrivals arrivals_;
  std::optional<Prepared> next_;
  bool arrivals_over_ = false;
  // Closed loop.
  size_t stage_ = 0;
  int64_t stage_begin_ = 0;
  int64_t stage_slots_ = 0, active_ = 0;
  uint64_t stage_left_ = 0, next_index_ = 0;
  std::deque<int64_t> cooling_;  // slots whose request could not be sent; when they go on

  std::deque<Waiting> waiting_;  // next turns, in the order of time
  Prepared now_;                 // of what is sent at once

  std::string buffer_;
  Tally total_;
  std::vector<Tally> stages_, tenants_;
  Series series_;
  Progress progress_;
  uint64_t reconnects_ = 0, warmup_requests_ = 0, opened_ = 0, most_in_flight_ = 0;
  int64_t cpu_nanos_ = 0;
};

}  // namespace llmd::bench
