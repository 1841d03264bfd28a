// Completion queues of a gRPC server, each with a thread that does all the work of its calls. With
// one queue no event crosses threads, and a call costs half of what it costs by gRPC's callback
// API. With more, whichever thread reads a connection hands the others what is theirs: more is
// served, and each call is dearer. One service by callbacks on a server suffices to lose all that:
// gRPC's own threads then poll its connections too.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace llmd::epp {

// What a queue gives back when something asked of gRPC is done.
class CallTag {
 public:
  // On the queue's thread; `ok` as gRPC says.
  virtual void OnEvent(bool ok) = 0;

 protected:
  ~CallTag() = default;
};

// Counts calls from the moment they are asked for until nothing can be asked of gRPC for them any
// more. To ask on a queue that is shut down is fatal, so none may be left then. Thread-safe.
class LiveCalls {
 public:
  class Member {
   public:
    explicit Member(LiveCalls& calls) : calls_(calls) { calls_.Change(1); }
    ~Member() { calls_.Change(-1); }
    Member(const Member&) = delete;

   private:
    LiveCalls& calls_;
  };
  // Waits until there are none; false when that takes longer than `patience`.
  bool WaitNone(std::chrono::seconds patience);

 private:
  void Change(std::ptrdiff_t by);
  std::mutex mutex_;
  std::condition_variable none_;
  std::ptrdiff_t count_ = 0;  // guarded by mutex_
};

class CallQueues {
 public:
  // With `every` above zero the threads look that often and sleep between. A thread that waits in a
  // queue takes its turn in reading for every connection of the process: for calls that are rare
  // and may wait, that is dearer than looking.
  explicit CallQueues(std::string thread_name, std::chrono::milliseconds every = {})
      : thread_name_(std::move(thread_name)), every_(every) {}
  ~CallQueues() { Stop(); }

  // Before the server is built: `count` queues.
  void AddTo(grpc::ServerBuilder& builder, unsigned count);
  // Once it is built: `accept` is called for each queue and asks for calls, then the queue is
  // served.
  void Start(const std::function<void(grpc::ServerCompletionQueue&)>& accept);
  // Once it is shut down, or when it was not built: waits for the calls to end and joins the
  // threads. Idempotent.
  void Stop();
  LiveCalls& calls() { return calls_; }

 private:
  const std::string thread_name_;
  const std::chrono::milliseconds every_;
  LiveCalls calls_;
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues_;
  std::vector<std::thread> threads_;
};

}  // namespace llmd::epp
