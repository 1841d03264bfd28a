// The hand-over from the engine thread to a loop thread: one slot per child request. An output that
// finds its slot taken is merged into it, so that a slow reader costs at most one output of
// max_tokens tokens per child and never blocks the engine. Thread-safe; shared by the engine's
// callbacks and the reader.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "llmd/clock.h"
#include "llmd/engine/request.h"

namespace llmd::engine::serving {

class ServingMetrics;

// When a child's tokens left the engine.
struct ChildTimes {
  TimePoint arrival{}, queued{}, scheduled{}, load_started{}, load_ended{};
  TimePoint first_token{}, last_token{};
  int outputs = 0;
};

class Mailbox {
 public:
  struct Letter {
    size_t child = 0;
    Output output;
    ChildTimes times;
  };

  // Latencies between outputs are observed in `metrics`, which must outlive the engine's callbacks.
  Mailbox(size_t children, TimePoint arrival, const Clock& clock, ServingMetrics& metrics);

  // Engine thread. Wakes the reader when nothing was waiting.
  void Put(size_t child, Output&& output);
  // Everything that waits, in child order.
  std::vector<Letter> Take();
  // `wake` is called from the engine thread, or at once when something waits already. It must own
  // what it touches.
  void SetWake(std::function<void()> wake);

 private:
  struct Slot {
    std::optional<Output> output;
    ChildTimes times;
  };
  void Stamp(ChildTimes& times, const Output& output);

  const Clock& clock_;
  ServingMetrics& metrics_;
  std::mutex mutex_;
  std::vector<Slot> slots_;     // guarded by mutex_
  bool waiting_ = false;        // guarded by mutex_
  std::function<void()> wake_;  // guarded by mutex_
};

}  // namespace llmd::engine::serving
