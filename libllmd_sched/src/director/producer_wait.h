// A request that waits for a slow producer.
#pragma once

#include <atomic>
#include <list>
#include <memory>

#include "director/door.h"
#include "life/request_state.h"
#include "pass/stopwatch.h"

namespace llmd::sched {

class DirectorImpl;

// Whoever takes it first brings the request on: the producer, or the director when the time is over
// or it stops. The calls that the producer holds keep it, and the request's data with it.
struct ProducerWait {
  ProducerWait(std::shared_ptr<RequestState> q, size_t at, TimePoint until, const Clock& clock,
               std::shared_ptr<Door<DirectorImpl>> into)
      : request(std::move(q)), producer(at), limit(until), watch(clock), door(std::move(into)) {}
  bool Take() { return !taken.exchange(true); }

  const std::shared_ptr<RequestState> request;
  const size_t producer;  // its place among those of the graph
  const TimePoint limit;
  Stopwatch watch;  // of whoever took it
  const std::shared_ptr<Door<DirectorImpl>> door;
  std::atomic<bool> taken{false};
  std::list<std::shared_ptr<ProducerWait>>::iterator
      place;  // guarded by the director's waits_mutex_
};

}  // namespace llmd::sched
