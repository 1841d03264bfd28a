// The floor of any ext_proc server on gRPC C++: takes the same calls and sends every message back
// as it came, unread. Prints its port.
//   ext_proc_echo [--port 0] [--queues N]
// --queues: completion queues, each with a thread of its own; 0: the callback API.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "epp/args.h"

namespace {

class CallbackEcho final : public grpc::ServerGenericBidiReactor {
 public:
  CallbackEcho() { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    StartWrite(&message_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    StartRead(&message_);
  }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer message_;
};

class CallbackService final : public grpc::CallbackGenericService {
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new CallbackEcho;
  }
};

// One call on a completion queue; one operation at a time is under way.
class QueueEcho {
 public:
  QueueEcho(grpc::AsyncGenericService& service, grpc::ServerCompletionQueue& queue)
      : service_(service), queue_(queue), stream_(&context_) {
    service_.RequestCall(&context_, &stream_, &queue_, &queue_, this);
  }
  void Proceed(bool ok) {
    switch (step_) {
      case Step::kCall:
        if (!ok) return delete this;
        new QueueEcho(service_, queue_);
        return Read();
      case Step::kRead:
        if (!ok) return Finish(grpc::Status::OK);
        step_ = Step::kWrite;
        return stream_.Write(message_, this);
      case Step::kWrite:
        return ok ? Read() : Finish(grpc::Status::CANCELLED);
      case Step::kFinish:
        delete this;
    }
  }

 private:
  enum class Step { kCall, kRead, kWrite, kFinish };
  void Read() {
    step_ = Step::kRead;
    stream_.Read(&message_, this);
  }
  void Finish(const grpc::Status& status) {
    step_ = Step::kFinish;
    stream_.Finish(status, this);
  }
  grpc::AsyncGenericService& service_;
  grpc::ServerCompletionQueue& queue_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  grpc::ByteBuffer message_;
  Step step_ = Step::kCall;
};

void Serve(grpc::AsyncGenericService& service, grpc::ServerCompletionQueue& queue) {
  new QueueEcho(service, queue);
  void* tag = nullptr;
  for (bool ok = false; queue.Next(&tag, &ok);) static_cast<QueueEcho*>(tag)->Proceed(ok);
}

}  // namespace

int main(int argc, char** argv) {
  llmd::perf::Args args(argc, argv);
  int port = static_cast<int>(args.Number("port", 0));
  const int count = static_cast<int>(args.Number("queues", 0));
  args.Done();
  CallbackService callbacks;
  grpc::AsyncGenericService calls;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(),
                           &port);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  if (count == 0) {
    builder.RegisterCallbackGenericService(&callbacks);
  } else {
    builder.RegisterAsyncGenericService(&calls);
    for (int i = 0; i < count; ++i) queues.push_back(builder.AddCompletionQueue());
  }
  const auto server = builder.BuildAndStart();
  if (!server) return 1;
  std::vector<std::thread> threads;
  for (const auto& queue : queues) threads.emplace_back([&calls, &queue] { Serve(calls, *queue); });
  std::printf("port %d\n", port);
  std::fflush(stdout);
  server->Wait();
}
