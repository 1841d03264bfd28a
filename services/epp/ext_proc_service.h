// The ext_proc service over gRPC: streams on completion queues, large bodies on threads of their
// own.
#pragma once

#include "epp/call_queues.h"
#include "epp/ext_proc_stream.h"
#include "epp/health_service.h"
#include "llmd/worker_pool.h"

namespace llmd::epp {

class ExtProcService {
 public:
  // `director` must outlive Stop. More than `max_streams` at once are answered 429, one by one, and
  // ended. `threads` 0 = one per four cores.
  ExtProcService(sched::Director& director, ProcessorOptions options, size_t max_streams,
                 unsigned threads, MetricsRegistry& metrics);

  ~ExtProcService() { Stop(); }

  // Before the server is built.
  void AddTo(grpc::ServerBuilder& builder);
  // Once it is built: takes calls, also those of `health`, which may be null, on the same port.
  void Start(HealthService* health);
  // Once it is shut down, or when it was not built: joins the threads. Idempotent.
  void Stop() { queues_.Stop(); }

  StreamGate& gate() { return context_.gate; }

 private:
  const unsigned threads_;
  const std::unique_ptr<WorkerPool> readers_;  // of large bodies; null when there are no threads
  RawService service_;
  CallQueues queues_{"ext-proc"};
  StreamContext context_;
};

}  // namespace llmd::epp
