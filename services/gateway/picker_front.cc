#include "gateway/forwarder.h"
#include "gateway/front.h"
#include "llmd/http/error_body.h"

namespace llmd::gateway {
namespace {

// Named functors: a capturing lambda must not be a coroutine.
struct Forward {
  Forwarder* forwarder;
  http::Task<void> operator()(http::Exchange& exchange) const {
    co_await forwarder->Handle(exchange);
  }
};
struct Local {
  const LocalPage* page;
  Forwarder* forwarder;
  http::Task<void> operator()(http::Exchange& exchange) const {
    std::optional<http::Response> response = page->make(exchange.request().query());
    if (!response) {
      co_await forwarder->Handle(exchange);
      co_return;
    }
    (void)co_await exchange.Send(*std::move(response));
  }
};
struct Refuse {
  int status;
  const char* message;
  http::Task<void> operator()(http::Exchange& exchange) const {
    http::Response response = http::JsonResponse(status, http::ErrorBody(status, message));
    (void)co_await exchange.Send(std::move(response));
  }
};

class PickerFront final : public Front {
 public:
  PickerFront(const FrontOptions& options, Picker& picker, http::Runtime& runtime,
              std::vector<LocalPage> pages, const Logger& logger, MetricsRegistry& metrics)
      : pages_(std::move(pages)),
        client_(runtime, http::ClientOptions()),
        forwarder_(picker, client_, OptionsOf(options), logger, metrics, SystemClock()) {
    const Forward forward{&forwarder_};
    for (const char* path : {"/v1/*", "/v2/*", "/inference/*", "/tokenize", "/detokenize",
                             "/rerank", "/score", "/pooling", "/classify"}) {
      for (const char* method : {"GET", "POST", "DELETE", "OPTIONS"})
        router_.Add(method, path, forward);
    }
    for (const LocalPage& page : pages_) router_.Add("GET", page.path, Local{&page, &forwarder_});
    router_.NotFound(Refuse{404, "no such route"});
    router_.MethodNotAllowed(Refuse{405, "method not allowed"});
  }

  Status Start(const FrontOptions& options, http::Runtime& runtime, const Logger& logger) {
    http::ServerOptions server;
    server.host = options.host;
    server.port = options.port;
    server.max_body_bytes = options.max_body_bytes;
    LLMD_ASSIGN_OR_RETURN(
        server_, http::Server::Create(runtime, std::move(server), router_.AsHandler(), logger));
    return OkStatus();
  }

  uint16_t port() const override { return server_->port(); }
  void Stop(Duration drain) override { server_->Stop(drain); }

 private:
  static ForwarderOptions OptionsOf(const FrontOptions& options) {
    ForwarderOptions out;
    out.max_attempts = options.max_attempts;
    out.first_byte_timeout = options.first_byte_timeout;
    return out;
  }

  const std::vector<LocalPage> pages_;
  http::Client client_;
  Forwarder forwarder_;
  http::Router router_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace

StatusOr<std::unique_ptr<Front>> MakePickerFront(const FrontOptions& options, Picker& picker,
                                                 http::Runtime& runtime,
                                                 std::vector<LocalPage> pages, const Logger& logger,
                                                 MetricsRegistry& metrics) {
  auto front =
      std::make_unique<PickerFront>(options, picker, runtime, std::move(pages), logger, metrics);
  LLMD_RETURN_IF_ERROR(front->Start(options, runtime, logger));
  return std::unique_ptr<Front>(std::move(front));
}

}  // namespace llmd::gateway
