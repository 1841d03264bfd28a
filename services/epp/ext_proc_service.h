// The ext_proc service over gRPC: a few completion queues, each with a thread that does all the
// work of the connections gRPC gave it. No event crosses threads but the answers of requests that
// had to queue; against gRPC's callback API this halves the CPU of an exchange.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "epp/ext_proc_stream.h"

namespace llmd::epp {

class ExtProcService {
 public:
  // `director` must outlive Stop. More than `max_streams` at once are answered 429, one by one, and
  // ended.
  ExtProcService(sched::Director& director, ProcessorOptions options, size_t max_streams,
                 MetricsRegistry& metrics);
  ~ExtProcService() { Stop(); }

  // Before the server is built.
  void AddTo(grpc::ServerBuilder& builder);
  // Once it is built: takes calls.
  void Start();
  // Once it is shut down, or when it was not built: joins the threads. Idempotent.
  void Stop();

  StreamGate& gate() { return context_.gate; }

 private:
  RawService service_;
  StreamContext context_;
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues_;
  std::vector<std::thread> threads_;
};

}  // namespace llmd::epp
