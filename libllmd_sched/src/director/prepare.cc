// Producers that may have to wait: the request leaves the thread it came on and goes on where the
// last of them is done.
#include <algorithm>

#include "director/impl.h"
#include "pass/scheduling_pass.h"
#include "pass/stopwatch.h"
#include "trace/schedule_log.h"

namespace llmd::sched {
namespace {

constexpr char kShuttingDown[] = "rejected-shutting-down";

// The answer when the director is gone, and with it all that could count or record it.
void AnswerOfNobody(RequestState& q) {
  Routing routing;
  routing.request_id = q.context.request_id;
  routing.denial = {503, "shutting down", kShuttingDown, 1, {}};
  q.Take(Step::kRefuse);
  q.Answer(routing);
}

}  // namespace

void DirectorImpl::DenyStopped(const std::shared_ptr<RequestState>& q) {
  Deny(q, 503, "shutting down", kShuttingDown);
}

void DirectorImpl::Prepare(std::shared_ptr<RequestState> q) {
  q->Take(Step::kProduce);
  if (!q->graph->slow) return Decide(q);
  const Door<DirectorImpl>::Visit visit(*door_);
  if (visit.shut()) return DenyStopped(q);
  if (q->flow != nullptr) q->flow->Hold(q->dispatched);
  q->snapshot = store_.Get();
  SetEligible(*q, *q->snapshot);
  RunProducers(std::move(q), 0);
}

// Holds the request itself: the callback it comes from may go away meanwhile.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void DirectorImpl::RunProducers(std::shared_ptr<RequestState> q, size_t next) {
  RequestContext& request = q->context;
  const std::vector<TimedProducer>& producers = q->setup->graph->producers;
  Stopwatch watch(clock_);
  for (; next < producers.size(); ++next) {
    const TimedProducer& producer = producers[next];
    if (producer.slow != nullptr) return Wait(q, next);
    Status failed;
    if (!RunProducer(*producer.plugin, *q->setup->graph, request, *q->snapshot, failed))
      failures_.Note(*producer.plugin, failed, request.request_id);
    watch.Lap(producer.duration);
  }
  if (!Recheck(q)) return;
  Decide(q);
  if (q->flow != nullptr) q->flow->Release(q->dispatched);
}

bool DirectorImpl::Recheck(const std::shared_ptr<RequestState>& q) {
  const std::shared_ptr<const EndpointSet> now = store_.Members();
  const EndpointSet& seen = *q->snapshot->set;
  if (now.get() == &seen) return true;
  std::erase_if(q->context.eligible, [&](uint32_t i) {
    return std::find(now->lives.begin(), now->lives.end(), seen.lives[i]) == now->lives.end();
  });
  if (!q->context.eligible.empty() || q->again) return true;
  q->again = true;
  for (Attribute& attribute : q->context.attributes) attribute.Clear();
  q->snapshot = store_.Get();
  SetEligible(*q, *q->snapshot);
  RunProducers(q, 0);
  return false;
}

void DirectorImpl::Wait(const std::shared_ptr<RequestState>& q, size_t producer) {
  if (slow_waiting_.fetch_add(1, std::memory_order_relaxed) == 0) WakeMaintenance();
  RequestContext& request = q->context;
  const std::shared_ptr<const Snapshot> snapshot = q->snapshot;
  // The producer outlives its call, whatever becomes of the request in it.
  const std::shared_ptr<const Setup> setup = q->setup;
  const TimedProducer& slow = setup->graph->producers[producer];
  auto go_on = [door = door_, q, producer,
                watch = Stopwatch(clock_)](const Status& status) mutable {
    const std::shared_ptr<Door<DirectorImpl>> held = door;  // this call may go with its maker
    const std::shared_ptr<RequestState> answered = q;
    const Door<DirectorImpl>::Visit self(*held);
    if (!self) return AnswerOfNobody(*answered);
    self->slow_waiting_.fetch_sub(1, std::memory_order_relaxed);
    if (self.shut()) return self->DenyStopped(answered);
    const TimedProducer& waited = answered->setup->graph->producers[producer];
    watch.Lap(waited.duration);
    schedule_log::ProducerFailed(answered->context, *waited.plugin, status);
    self->RunProducers(answered, producer + 1);
  };
  // A producer that throws may have kept the call all the same: the first answer counts, and the
  // request is the other's from then on.
  const auto answered = std::make_shared<std::atomic<bool>>(false);
  const auto done = [answered, go_on](const Status& status) mutable {
    if (!answered->exchange(true)) go_on(status);
  };
  Guarded(
      *slow.plugin, [&] { slow.slow->ProduceLater(request, snapshot, done); },
      [&](const Status& failed) {
        if (answered->exchange(true)) return failures_.Note(*slow.plugin, failed);
        failures_.Note(*slow.plugin, failed, request.request_id);
        ForgetProduced(*slow.plugin, *setup->graph, request);
        go_on(failed);
      });
}

void DirectorImpl::TickProducers(TimePoint now) {
  for (const auto& graph : LiveGraphs()) {
    for (const TimedProducer& producer : graph->producers)
      if (producer.slow != nullptr)
        failures_.Run(*producer.plugin, "", [&] { producer.slow->Tick(now); });
  }
}

TimePoint DirectorImpl::ProducersDue(TimePoint now) {
  TimePoint due = TimePoint::max();
  for (const auto& graph : LiveGraphs()) {
    for (const TimedProducer& producer : graph->producers)
      if (producer.slow != nullptr)
        failures_.Run(*producer.plugin, "",
                      [&] { due = std::min(due, producer.slow->DueAt(now)); });
  }
  return due;
}

}  // namespace llmd::sched
