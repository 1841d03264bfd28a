#include "llmd/engine/serving/mailbox.h"

#include <iterator>

#include "llmd/engine/serving/metrics.h"

namespace llmd::engine::serving {
namespace {

template <typename T>
void Append(std::vector<T>& to, std::vector<T>&& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

void Merge(Output& into, Output&& next) {
  Append(into.tokens, std::move(next.tokens));
  Append(into.logprobs, std::move(next.logprobs));
  into.finish = next.finish;
  into.stop_token = next.stop_token;
  into.error = std::move(next.error);
  if (next.kv_transfer_params) into.kv_transfer_params = std::move(next.kv_transfer_params);
}

}  // namespace

Mailbox::Mailbox(size_t children, TimePoint arrival, const Clock& clock, ServingMetrics& metrics)
    : clock_(clock), metrics_(metrics), slots_(children) {
  for (Slot& slot : slots_) slot.times.arrival = arrival;
}

void Mailbox::Stamp(ChildTimes& times, const Output& output) {
  if (times.outputs == 0) {
    times.queued = output.queued;
    times.scheduled = output.scheduled;
    times.load_started = output.load_started;
    times.load_ended = output.load_ended;
  }
  if (output.tokens.empty()) return;
  const TimePoint now = clock_.Now();
  if (times.outputs++ == 0) {
    times.first_token = now;
    metrics_.FirstToken(now - times.arrival);
  } else {
    metrics_.InterToken(now - times.last_token);
  }
  times.last_token = now;
}

void Mailbox::Put(size_t child, Output&& output) {
  std::function<void()> wake;
  {
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[child];
    Stamp(slot.times, output);
    if (slot.output) {
      Merge(*slot.output, std::move(output));
    } else {
      slot.output = std::move(output);
    }
    if (!waiting_) wake = wake_;
    waiting_ = true;
  }
  if (wake) wake();
}

std::vector<Mailbox::Letter> Mailbox::Take() {
  std::vector<Letter> letters;
  const std::lock_guard lock(mutex_);
  waiting_ = false;
  for (size_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    if (!slot.output) continue;
    letters.push_back({i, std::move(*slot.output), slot.times});
    slot.output.reset();
  }
  return letters;
}

void Mailbox::SetWake(std::function<void()> wake) {
  std::function<void()> now;
  {
    const std::lock_guard lock(mutex_);
    if (waiting_) now = wake;
    wake_ = std::move(wake);
  }
  if (now) now();
}

}  // namespace llmd::engine::serving
