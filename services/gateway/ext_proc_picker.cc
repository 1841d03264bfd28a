#include <grpcpp/grpcpp.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <chrono>
#include <thread>

#include "envoy/service/ext_proc/v3/external_processor.grpc.pb.h"
#include "gateway/mailbox.h"
#include "gateway/picker.h"

namespace llmd::gateway {
namespace {

using envoy::config::core::v3::HeaderValueOption;
using envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
using envoy::service::ext_proc::v3::ExternalProcessor;
using envoy::service::ext_proc::v3::HeaderMutation;
using envoy::service::ext_proc::v3::ImmediateResponse;
using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;

constexpr std::string_view kDestination = "x-gateway-destination-endpoint";
constexpr std::string_view kLbNamespace = "envoy.lb";
constexpr std::string_view kServed = "x-gateway-destination-endpoint-served";
constexpr size_t kPieceBytes = 1 << 20;  // under the picker's 4 MiB receive limit

// One stream. Writes queue up (bounded by the callers, who wait for an answer to each message but
// the request body's pieces); answers go to the mailbox. Lives until gRPC is done with it.
class Call final : public grpc::ClientBidiReactor<ProcessingRequest, ProcessingResponse> {
 public:
  static std::shared_ptr<Call> Start(ExternalProcessor::Stub& stub,
                                     std::shared_ptr<Mailbox<ProcessingResponse>> answers) {
    auto call = std::shared_ptr<Call>(new Call(std::move(answers)));
    call->self_ = call;
    stub.async()->Process(&call->context_, call.get());
    call->StartRead(&call->response_);
    call->AddHold();
    call->StartCall();
    return call;
  }

  void Send(ProcessingRequest message) {
    std::lock_guard lock(mutex_);
    if (closing_) return;
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) StartWrite(&queue_.front());
  }

  // No more messages from us; the picker ends its side.
  void Close() {
    std::lock_guard lock(mutex_);
    if (closing_) return;
    closing_ = true;
    if (queue_.empty()) StartWritesDone();
    RemoveHold();
  }
  void Cancel() {
    context_.TryCancel();
    Close();
  }

  void OnWriteDone(bool) override {
    std::lock_guard lock(mutex_);
    queue_.pop_front();
    if (!queue_.empty()) {
      StartWrite(&queue_.front());
    } else if (closing_) {
      StartWritesDone();
    }
  }
  void OnReadDone(bool ok) override {
    if (!ok) return answers_->Close();
    answers_->Send(std::move(response_));
    response_.Clear();
    StartRead(&response_);
  }
  void OnDone(const grpc::Status&) override {
    answers_->Close();
    const std::shared_ptr<Call> last = std::move(self_);
  }

 private:
  explicit Call(std::shared_ptr<Mailbox<ProcessingResponse>> answers)
      : answers_(std::move(answers)) {}

  grpc::ClientContext context_;
  std::shared_ptr<Mailbox<ProcessingResponse>> answers_;
  std::shared_ptr<Call> self_;
  ProcessingResponse response_;
  std::mutex mutex_;
  std::deque<ProcessingRequest> queue_;  // the front is being written
  bool closing_ = false;
};

void FillHeaders(const HeaderList& headers, envoy::config::core::v3::HeaderMap& map) {
  for (const auto& [name, value] : headers) {
    auto* header = map.add_headers();
    header->set_key(name);
    header->set_raw_value(value);
  }
}

std::vector<std::string> SplitCommas(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    if (comma > 0) out.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return out;
}

const std::string& ValueOf(const HeaderValueOption& option) {
  return option.header().raw_value().empty() ? option.header().value()
                                             : option.header().raw_value();
}

void ReadMutation(const HeaderMutation& mutation, sched::Routing& routing) {
  for (const auto& option : mutation.set_headers()) {
    if (option.header().key() == kDestination) {
      routing.endpoints = SplitCommas(ValueOf(option));
    } else {
      routing.set_headers.emplace_back(option.header().key(), ValueOf(option));
    }
  }
  routing.remove_headers.assign(mutation.remove_headers().begin(), mutation.remove_headers().end());
}

void ReadDenial(const ImmediateResponse& immediate, sched::Denial& denial) {
  denial.http_status = immediate.status().code();
  denial.message = immediate.body();
  for (const auto& option : immediate.headers().set_headers()) {
    if (option.header().key() == "x-llm-d-request-dropped-reason")
      denial.dropped_reason = ValueOf(option);
    if (option.header().key() == "retry-after")
      denial.retry_after_s = std::atoi(ValueOf(option).c_str());
    if (option.header().key().starts_with("x-llm-d-queue-"))
      denial.headers.emplace_back(option.header().key(), ValueOf(option));
  }
}

class AnyCertificate final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest*,
              std::function<void(grpc::Status)>, grpc::Status* status) override {
    *status = grpc::Status::OK;
    return true;
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest*) override {}
};

class ExtProcPick final : public Pick {
 public:
  ExtProcPick(std::shared_ptr<Call> call, std::shared_ptr<Mailbox<ProcessingResponse>> answers)
      : call_(std::move(call)), answers_(std::move(answers)) {}
  ~ExtProcPick() override {
    answers_->Watch(nullptr);
    if (ended_) {
      call_->Close();
    } else {
      call_->Cancel();
    }
  }

  const sched::Routing& routing() const override { return routing_; }
  std::string_view body() const override { return body_; }

  // Reads the picker's answers to the request. UNAVAILABLE when the stream ended before they were
  // complete.
  http::Task<Status> ReadRouting(bool has_body) {
    bool head = false, end = !has_body;
    while (!head || !end) {
      std::optional<ProcessingResponse> answer = co_await answers_->Receive();
      if (!answer) co_return Unavailable("the endpoint picker ended the stream before it answered");
      if (answer->has_immediate_response()) {
        ReadDenial(answer->immediate_response(), routing_.denial);
        ended_ = true;
        co_return OkStatus();
      }
      if (answer->has_request_headers()) {
        ReadMutation(answer->request_headers().response().header_mutation(), routing_);
        head = true;
      } else if (answer->has_request_body()) {
        const auto& piece = answer->request_body().response().body_mutation().streamed_response();
        body_ += piece.body();
        end = piece.end_of_stream();
      }
    }
    routing_.ok = true;
    co_return OkStatus();
  }

  void OnServed(std::string_view endpoint) override { served_ = endpoint; }

  http::Task<HeaderList> OnResponseHeaders(int status, const HeaderList& headers) override {
    ProcessingRequest message;
    if (!served_.empty()) {
      auto& spaces = *message.mutable_metadata_context()->mutable_filter_metadata();
      auto& fields = *spaces[std::string(kLbNamespace)].mutable_fields();
      fields[std::string(kServed)].set_string_value(served_);
    }
    auto* map = message.mutable_response_headers()->mutable_headers();
    const HeaderList pseudo = StatusHeader(status);
    FillHeaders(pseudo, *map);
    FillHeaders(headers, *map);
    call_->Send(std::move(message));
    std::optional<ProcessingResponse> answer = co_await answers_->Receive();
    for (const auto& [name, value] : headers) {
      streaming_ |= name == "content-type" && value.find("text/event-stream") != std::string::npos;
    }
    HeaderList set;
    if (!answer || TakenBack(*answer)) co_return set;
    // The picker does not read this answer's body: it is spared the chunks and sees the end by the
    // end of the stream.
    unread_ = answer->has_mode_override() &&
              answer->mode_override().response_body_mode() == ProcessingMode::NONE;
    for (const auto& option :
         answer->response_headers().response().header_mutation().set_headers()) {
      set.emplace_back(option.header().key(), ValueOf(option));
    }
    co_return set;
  }

  // A picker that is gone does not stop an answer that is under way. Streams are passed chunk by
  // chunk; of other answers the picker may hold all pieces back to the end, so they are collected
  // there.
  http::Task<std::string_view> OnResponseBody(std::string_view chunk, bool end) override {
    ended_ |= end;
    if (unread_) co_return HasBeenTakenBack() ? std::string_view() : chunk;
    ProcessingRequest message;
    message.mutable_response_body()->set_body(chunk.data(), chunk.size());
    message.mutable_response_body()->set_end_of_stream(end);
    call_->Send(std::move(message));
    if (!streaming_ && !end) co_return std::string_view();
    replaced_.clear();
    for (bool more = true; more;) {
      std::optional<ProcessingResponse> answer = co_await answers_->Receive();
      if (!answer) co_return replaced_.empty() ? chunk : std::string_view(replaced_);
      if (TakenBack(*answer)) co_return std::string_view();
      const auto& piece = answer->response_body().response().body_mutation().streamed_response();
      replaced_ += piece.body();
      // A picker cuts long chunks into pieces; short of the end the last one is known by the bytes
      // still owed.
      more = end ? !piece.end_of_stream()
                 : piece.body().size() >= kPickerPieceBytes && replaced_.size() < chunk.size();
    }
    co_return HasBeenTakenBack() ? std::string_view() : std::string_view(replaced_);
  }

  const sched::Denial* evicted() const override { return evicted_ ? &*evicted_ : nullptr; }
  void OnEvicted(std::function<void()> callback) override {
    if (callback == nullptr) return answers_->Watch(nullptr);
    answers_->Watch([this, callback] {
      if (HasBeenTakenBack()) callback();
    });
    if (HasBeenTakenBack()) callback();
  }

 private:
  static constexpr size_t kPickerPieceBytes = 62'000;

  // An immediate answer after the routing: the picker takes the request back.
  bool TakenBack(const ProcessingResponse& answer) {
    if (!answer.has_immediate_response()) return false;
    ReadDenial(answer.immediate_response(), evicted_.emplace());
    ended_ = true;
    return true;
  }

  // Looks whether the picker has said so without being asked.
  bool HasBeenTakenBack() {
    const auto immediate = [](const ProcessingResponse& r) { return r.has_immediate_response(); };
    const std::optional<ProcessingResponse> word = answers_->TryReceive(immediate);
    return evicted_.has_value() || (word && TakenBack(*word));
  }

  static HeaderList StatusHeader(int status) {
    HeaderList out;
    out.emplace_back(":status", std::to_string(status));
    return out;
  }

  std::shared_ptr<Call> call_;
  std::shared_ptr<Mailbox<ProcessingResponse>> answers_;
  sched::Routing routing_;
  std::optional<sched::Denial> evicted_;
  std::string body_, replaced_, served_;
  bool ended_ = false, streaming_ = false, unread_ = false;
};

std::shared_ptr<grpc::ChannelCredentials> Credentials(const PickerAddress& address) {
  if (!address.secure) return grpc::InsecureChannelCredentials();
  if (!address.authority.empty())
    return grpc::SslCredentials({address.authority, address.key, address.chain});
  // A picker's own certificate is self-signed: encrypted, but anyone's.
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);
  options.set_certificate_verifier(
      grpc::experimental::ExternalCertificateVerifier::Create<AnyCertificate>());
  if (!address.chain.empty()) {
    const grpc::experimental::IdentityKeyCertPair ours{address.key, address.chain};
    options.set_certificate_provider(
        std::make_shared<grpc::experimental::StaticDataCertificateProvider>(std::vector{ours}));
    options.watch_identity_key_cert_pairs();
  }
  return grpc::experimental::TlsCredentials(options);
}

class ExtProcPicker final : public Picker {
 public:
  explicit ExtProcPicker(const PickerAddress& address)
      : target_(address.target),
        channel_(grpc::CreateCustomChannel(address.target, Credentials(address), Arguments())),
        stub_(ExternalProcessor::NewStub(channel_)),
        keeper_([this](const std::stop_token& stop) { KeepConnected(stop); }) {}

  http::Task<StatusOr<std::unique_ptr<Pick>>> Choose(http::Exchange& exchange,
                                                     PickInput input) override {
    auto answers = std::make_shared<Mailbox<ProcessingResponse>>(exchange.loop());
    std::shared_ptr<Call> call = Call::Start(*stub_, answers);
    auto pick = std::make_unique<ExtProcPick>(call, answers);
    SendRequest(*call, input);
    exchange.OnClientGone([answers] { answers->Close(); });
    const Status status = co_await pick->ReadRouting(input.has_body);
    exchange.OnClientGone(nullptr);
    if (exchange.client_gone()) co_return Cancelled("the client left while its request waited");
    if (!status.ok()) co_return status.WithContext("endpoint picker " + target_);
    std::unique_ptr<Pick> out = std::move(pick);
    co_return out;
  }

  bool ready() const override {
    return channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY;
  }
  StatusOr<std::string> Explain(std::string_view) const override {
    return NotFound("decisions are kept by the endpoint picker at " + target_);
  }

 private:
  static void SendRequest(Call& call, const PickInput& input) {
    ProcessingRequest head;
    FillHeaders(input.headers, *head.mutable_request_headers()->mutable_headers());
    head.mutable_request_headers()->set_end_of_stream(!input.has_body);
    call.Send(std::move(head));
    if (!input.has_body) return;
    std::string_view rest = *input.body;
    do {
      ProcessingRequest piece;
      const std::string_view part = rest.substr(0, kPieceBytes);
      rest.remove_prefix(part.size());
      piece.mutable_request_body()->set_body(part.data(), part.size());
      piece.mutable_request_body()->set_end_of_stream(rest.empty());
      call.Send(std::move(piece));
    } while (!rest.empty());
  }

  // A picker that starts after the gateway, or comes back, is found within the second.
  static grpc::ChannelArguments Arguments() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    return arguments;
  }

  // gRPC makes progress on an idle channel only while somebody waits for it.
  void KeepConnected(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto soon = std::chrono::system_clock::now() + std::chrono::milliseconds(100);
      if (ready()) {
        channel_->WaitForStateChange(GRPC_CHANNEL_READY, soon);
      } else {
        channel_->WaitForConnected(soon);
      }
    }
  }

  const std::string target_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<ExternalProcessor::Stub> stub_;
  std::jthread keeper_;  // last: it ends before what it uses
};

}  // namespace

std::unique_ptr<Picker> MakeExtProcPicker(const PickerAddress& address) {
  return std::make_unique<ExtProcPicker>(address);
}

}  // namespace llmd::gateway
