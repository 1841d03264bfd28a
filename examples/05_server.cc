// An OpenAI-compatible router of your own, in one file: llmd::http takes the request, a Director
// chooses the engine, the answer is relayed as it comes. usage: 05_server ENDPOINTS.yaml [PORT]
#include <signal.h>

#include <cstdio>
#include <cstdlib>

#include "llmd/http/proxy.h"
#include "llmd/sched/director.h"

namespace http = llmd::http;
namespace sched = llmd::sched;

namespace {

// The engine with the fewest of our requests, unless another has the prompt's beginning in its
// cache. Nothing is queued and no producer is slow, so Route answers inside the call.
std::string Config(const std::string& endpoints_file) {
  return "apiVersion: llm-d.ai/v1alpha1\n"
         "kind: EndpointPickerConfig\n"
         "plugins: [{type: active-request-scorer}, {type: prefix-cache-scorer}, "
         "{type: approx-prefix-cache-producer}, {type: inflight-load-producer}, "
         "{type: file-discovery, parameters: {watchFile: true, path: \"" +
         endpoints_file +
         "\"}}]\n"
         "schedulingProfiles: [{name: default, plugins: [{pluginRef: active-request-scorer}, "
         "{pluginRef: prefix-cache-scorer, weight: 2}]}]\n"
         "dataLayer: {injectDefaults: false, discovery: {pluginRef: file-discovery}}\n";
}

sched::Routing Choose(sched::Director& director, const http::RequestHead& head,
                      std::string_view body) {
  sched::HeaderList headers = head.headers.lines();
  headers.emplace_back(":path", head.path());
  sched::Routing routing;
  director.Route({.headers = &headers, .body = body},
                 [&](sched::Routing answer) { routing = std::move(answer); });
  return routing;
}

struct Serve {
  sched::Director& director;
  http::Client& client;

  http::Task<void> operator()(http::Exchange& exchange) const {
    llmd::StatusOr<std::string> body = co_await exchange.ReadAll();
    if (!body.ok()) co_return;
    const sched::Routing routing = Choose(director, exchange.request(), *body);
    if (!routing.ok) {
      http::Response refusal{{routing.denial.http_status, "", {}}, routing.denial.message + "\n"};
      (void)co_await exchange.Send(std::move(refusal));
      co_return;
    }
    http::RequestHead head = http::ForwardHead(exchange);
    for (const auto& [name, value] : routing.set_headers) head.headers.Set(name, value);
    const http::HostPort engine = *http::ParseHostPort(routing.endpoints[0]);
    const http::CallOptions options;
    auto answer = co_await client.Call(engine, std::move(head), *body, options);
    if (!answer.ok()) {
      director.Cancel(routing.state);
      http::Response failure{{502, "", {}}, answer.status().ToString() + "\n"};
      (void)co_await exchange.Send(std::move(failure));
      co_return;
    }
    director.OnResponseHeaders(routing.state, (*answer)->head().status, {});
    std::string renamed;
    http::RelayHooks hooks;  // plugins see the answer too, its token counts among the rest
    hooks.on_chunk = [&](std::string_view chunk) {
      const bool replaced = director.OnResponseBody(routing.state, chunk, false, &renamed);
      return replaced ? std::string_view(renamed) : chunk;
    };
    const http::RelayResult relayed = co_await http::Relay(exchange, **answer, hooks);
    if (relayed.status.ok()) {
      director.OnResponseBody(routing.state, "", true, &renamed);
    } else {
      director.Cancel(routing.state);
      exchange.Abort();
    }
  }
};

int Fail(const llmd::Status& status) {
  return std::fprintf(stderr, "%s\n", status.ToString().c_str()), 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fputs("usage: 05_server ENDPOINTS.yaml [PORT]\n", stderr), 2;
  sigset_t signals;  // blocked before the first thread, so that all leave them to sigwait
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  llmd::MetricsRegistry metrics;
  const llmd::Logger logger(llmd::FdLogSink(2), llmd::LogLevel::kDefault);
  auto director = sched::Director::Create({.config_yaml = Config(argv[1])}, nullptr, logger,
                                          metrics, llmd::SystemClock());
  if (!director.ok()) return Fail(director.status());
  auto runtime = http::Runtime::Create(2);
  if (!runtime.ok()) return Fail(runtime.status());
  http::Client client(**runtime, {});
  http::ServerOptions options;
  options.port = static_cast<uint16_t>(argc > 2 ? std::atoi(argv[2]) : 8000);
  auto server = http::Server::Create(**runtime, options, Serve{**director, client}, logger);
  if (!server.ok()) return Fail(server.status());
  std::printf("listening on http://127.0.0.1:%d\n", (*server)->port());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  (*server)->Stop(std::chrono::seconds(5));
  (*runtime)->Stop();
  (*director)->Stop();
  return 0;
}
