// GrpcPickerClient over a real gRPC server on loopback.
#include "gateway/ext_proc_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>

#include "envoy/service/ext_proc/v3/external_processor.grpc.pb.h"

namespace llmd::gateway {
namespace {

using envoy::service::ext_proc::v3::ExternalProcessor;
using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;
using Next = PickerStream::Next;
using std::chrono::milliseconds;
using std::chrono::seconds;

// The loop: what is posted runs when the test says so, on its thread.
class Posts {
 public:
  bool Post(std::function<void()> fn) {
    const std::lock_guard lock(mutex_);
    if (full) return false;
    posts_.push_back(std::move(fn));
    come_.notify_all();
    return true;
  }
  // Runs what comes until `done`; false when that takes too long.
  template <typename Done>
  bool RunUntil(Done done) {
    const auto deadline = std::chrono::steady_clock::now() + seconds(20);
    while (!done()) {
      std::function<void()> fn;
      {
        std::unique_lock lock(mutex_);
        if (!come_.wait_until(
                lock, std::min(deadline, std::chrono::steady_clock::now() + milliseconds(20)),
                [this] { return !posts_.empty(); })) {
          if (std::chrono::steady_clock::now() >= deadline) return false;
          continue;
        }
        fn = std::move(posts_.front());
        posts_.pop_front();
      }
      fn();
    }
    return true;
  }
  std::atomic<bool> full{false};

 private:
  std::mutex mutex_;
  std::condition_variable come_;
  std::deque<std::function<void()>> posts_;
};

struct Noted final : PickerListener {
  void OnPickerAnswer(std::string_view message) override {
    EXPECT_TRUE(answers.emplace_back().ParseFromString(std::string(message)));
  }
  void OnPickerBatch() override { ++batches; }
  void OnPickerRoom() override { ++rooms; }
  void OnPickerEnd(bool ok, std::string_view why) override {
    ended = true;
    clean = ok;
    reason = why;
  }
  std::vector<ProcessingResponse> answers;
  int batches = 0, rooms = 0;
  bool ended = false, clean = false;
  std::string reason;
};

// Answers each body piece with its bytes; "hold" keeps it from reading on until `release`, "end"
// ends the stream.
class EchoPicker final : public ExternalProcessor::Service {
 public:
  grpc::Status Process(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<ProcessingResponse, ProcessingRequest>* stream) override {
    ProcessingRequest in;
    while (stream->Read(&in)) {
      const std::string& text = in.response_body().body();
      if (text == "end") return grpc::Status::OK;
      if (text == "fail") return {grpc::StatusCode::INTERNAL, "on purpose"};
      while (text == "hold" && !release && !context->IsCancelled())
        std::this_thread::sleep_for(milliseconds(1));
      ProcessingResponse out;
      out.mutable_response_body()->mutable_response()->mutable_body_mutation()->set_body(text);
      stream->Write(out);
    }
    if (context->IsCancelled()) cancelled = true;
    over = true;
    return grpc::Status::OK;
  }
  std::atomic<bool> release{false}, cancelled{false}, over{false};
};

grpc::ByteBuffer Piece(const std::string& text) {
  ProcessingRequest message;
  message.mutable_response_body()->set_body(text);
  const std::string bytes = message.SerializeAsString();
  const grpc::Slice slice(bytes.data(), bytes.size());
  return grpc::ByteBuffer(&slice, 1);
}

class ExtProcClient : public testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&picker);
    server = builder.BuildAndStart();
    Connect(port);
  }
  void TearDown() override {
    client.reset();
    picker.release = true;
    server->Shutdown(std::chrono::system_clock::now());
  }
  void Connect(int to) {
    PickerClientOptions options;
    options.channel =
        grpc::CreateChannel("127.0.0.1:" + std::to_string(to), grpc::InsecureChannelCredentials());
    options.post = [this](std::function<void()> fn) { return posts.Post(std::move(fn)); };
    options.probe_timeout = milliseconds(200);
    options.close_patience = milliseconds(100);
    client = std::make_unique<GrpcPickerClient>(std::move(options));
  }
  std::shared_ptr<PickerStream> Open(const std::string& text, Next next = Next::kOpen) {
    return client->Open(noted, Piece(text), text.size(), next);
  }

  int port = 0;
  EchoPicker picker;
  std::unique_ptr<grpc::Server> server;
  Posts posts;
  Noted noted;
  std::unique_ptr<GrpcPickerClient> client;
};

TEST_F(ExtProcClient, MessagesGoAndAnswersComeInOrder) {
  const auto stream = Open("0", Next::kSoon);
  for (int i = 1; i < 50; ++i) stream->Send(Piece(std::to_string(i)), 1, Next::kOpen);
  ASSERT_TRUE(posts.RunUntil([this] { return noted.answers.size() == 50; }));
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(noted.answers[i].response_body().response().body_mutation().body(),
              std::to_string(i));
  EXPECT_LE(noted.batches, 50);
  EXPECT_EQ(stream->queued(), 0U);
  stream->Send(Piece("end"), 3, Next::kNone);
  ASSERT_TRUE(posts.RunUntil([this] { return noted.ended; }));
  EXPECT_TRUE(noted.clean);
  EXPECT_TRUE(client->ready());
}

TEST_F(ExtProcClient, AFailureIsToldWithItsReason) {
  const auto stream = Open("fail");
  ASSERT_TRUE(posts.RunUntil([this] { return noted.ended; }));
  EXPECT_FALSE(noted.clean);
  EXPECT_EQ(noted.reason, "on purpose");
}

TEST_F(ExtProcClient, WhatThePickerDoesNotTakeIsCountedAndRoomIsTold) {
  const std::string block(100'000, 'x');
  const auto stream = Open("hold");
  for (int i = 0; i < 100; ++i) stream->Send(Piece(block), block.size(), Next::kOpen);
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_GT(stream->queued(), 5'000'000U);
  ASSERT_TRUE(stream->AskRoom(1'000'000));
  posts.RunUntil([n = 0]() mutable { return ++n > 20; });
  EXPECT_EQ(noted.rooms, 0);
  picker.release = true;
  ASSERT_TRUE(posts.RunUntil([this] { return noted.rooms == 1; }));
  EXPECT_LE(stream->queued(), 1'000'000U);
  EXPECT_FALSE(stream->AskRoom(10'000'000));
  stream->Cancel();
}

TEST_F(ExtProcClient, UnreadAnswersHoldThePickerUp) {
  const std::string block(100'000, 'x');
  const auto stream = Open("first");
  stream->SetReading(false);
  for (int i = 0; i < 50; ++i) stream->Send(Piece(block), block.size(), Next::kOpen);
  std::this_thread::sleep_for(milliseconds(300));
  posts.RunUntil([n = 0]() mutable { return ++n > 20; });
  EXPECT_LE(noted.answers.size(), 2U);
  stream->SetReading(true);
  ASSERT_TRUE(posts.RunUntil([this] { return noted.answers.size() == 51; }));
}

TEST_F(ExtProcClient, CancelReachesThePickerAndSilencesTheStream) {
  const auto stream = Open("hold");
  std::this_thread::sleep_for(milliseconds(100));
  stream->Cancel();
  stream->Cancel();
  stream->Send(Piece("late"), 4, Next::kOpen);
  EXPECT_TRUE(posts.RunUntil([this] { return picker.cancelled.load(); }));
  EXPECT_FALSE(noted.ended);
  EXPECT_TRUE(noted.answers.empty());
}

TEST_F(ExtProcClient, AClosedStreamEndsByItselfOrIsEnded) {
  const auto stream = Open("x");
  ASSERT_TRUE(posts.RunUntil([this] { return noted.answers.size() == 1; }));
  stream->Close();
  ASSERT_TRUE(posts.RunUntil([this] { return picker.over.load(); }));
  EXPECT_FALSE(picker.cancelled);
  picker.over = false;
  const auto stuck = Open("hold");
  std::this_thread::sleep_for(milliseconds(50));
  stuck->Close();
  EXPECT_TRUE(posts.RunUntil([this] {
    client->OnTick();
    return picker.cancelled.load();
  }));
}

TEST_F(ExtProcClient, AnyAnswerIsASignOfLife) {
  const auto stream = Open("x");
  ASSERT_TRUE(posts.RunUntil([this] { return noted.answers.size() == 1; }));
  const TimePoint before = client->heard();
  EXPECT_EQ(client->unanswered_since(), TimePoint::max());
  client->Probe();  // the server knows no such method
  EXPECT_TRUE(posts.RunUntil([&] { return client->heard() > before; }));
  EXPECT_EQ(client->unanswered_since(), TimePoint::max());
}

TEST_F(ExtProcClient, OneThatStandsStillIsNoticed) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener, 8), 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  Connect(ntohs(address.sin_port));
  const auto stream = Open("x");
  const TimePoint asked = SystemClock().Now();
  client->Probe();
  EXPECT_TRUE(posts.RunUntil(
      [&] { return client->unanswered_since() <= SystemClock().Now() - milliseconds(300); }));
  EXPECT_GE(client->unanswered_since(), asked - milliseconds(1));
  EXPECT_FALSE(client->ready());
  stream->Cancel();
  close(listener);
}

TEST_F(ExtProcClient, WhatAFullLoopRefusesIsDeliveredLater) {
  posts.full = true;
  const auto stream = Open("x");
  std::this_thread::sleep_for(milliseconds(200));
  posts.full = false;
  EXPECT_TRUE(posts.RunUntil([this] {
    client->OnTick();
    return noted.answers.size() == 1;
  }));
}

TEST_F(ExtProcClient, StopEndsWhatIsLeft) {
  std::vector<std::shared_ptr<PickerStream>> streams;
  for (int i = 0; i < 20; ++i) streams.push_back(Open("hold"));
  std::this_thread::sleep_for(milliseconds(50));
  client->Probe();
  client->Stop();
  client->Stop();
  EXPECT_EQ(Open("x"), nullptr);
}

}  // namespace
}  // namespace llmd::gateway
