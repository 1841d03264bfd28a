#include "llmd/http/proxy.h"

namespace llmd::http {
namespace {

std::string_view HostOf(std::string_view peer) {
  std::string_view host = peer.substr(0, peer.rfind(':'));
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return host;
}

// The client's leaving cancels the upstream call also while both sides are silent.
class GoneWatch {
 public:
  GoneWatch(Exchange& exchange, ResponseStream& upstream) : exchange_(exchange) {
    exchange_.OnClientGone([&upstream] { upstream.Cancel(); });
  }
  ~GoneWatch() { exchange_.OnClientGone(nullptr); }
  GoneWatch(const GoneWatch&) = delete;
  GoneWatch& operator=(const GoneWatch&) = delete;

 private:
  Exchange& exchange_;
};

ResponseHead RelayHead(const ResponseStream& upstream, const RelayHooks& hooks) {
  ResponseHead head = upstream.head();
  StripHopByHop(head.headers);
  // A hook may change the body's length.
  if (hooks.on_chunk || hooks.on_end) head.headers.Remove("Content-Length");
  if (hooks.on_head) hooks.on_head(head);
  return head;
}

Task<Status> Pump(Exchange& exchange, ResponseStream& upstream, const RelayHooks& hooks,
                  RelayResult& result) {
  while (true) {
    const StatusOr<std::string_view> piece = co_await upstream.Read();
    if (!piece.ok()) co_return piece.status();
    if (piece->empty()) break;
    const std::string_view bytes = hooks.on_chunk ? hooks.on_chunk(*piece) : *piece;
    const Status written = co_await exchange.Write(bytes);
    if (!written.ok()) co_return Cancelled(written.message());
    result.bytes += bytes.size();
  }
  if (hooks.on_end) {
    const std::string tail = hooks.on_end();
    const Status written = co_await exchange.Write(tail);
    if (!written.ok()) co_return Cancelled(written.message());
    result.bytes += tail.size();
  }
  co_return co_await exchange.Finish();
}

}  // namespace

RequestHead ForwardHead(const Exchange& exchange) {
  RequestHead head = exchange.request();
  StripHopByHop(head.headers);
  // The body goes on whole: the client declares its length and asks for no leave.
  head.headers.Remove("Content-Length");
  head.headers.Remove("Expect");
  std::string forwarded;
  for (std::string_view value : head.headers.GetAll("X-Forwarded-For"))
    forwarded.append(value).append(", ");
  forwarded.append(HostOf(exchange.peer()));
  head.headers.Set("X-Forwarded-For", forwarded);
  head.version_minor = 1;
  return head;
}

Task<RelayResult> Relay(Exchange& exchange, ResponseStream& upstream, const RelayHooks& hooks) {
  RelayResult result;
  const GoneWatch watch(exchange, upstream);
  result.status = co_await exchange.Start(RelayHead(upstream, hooks));
  if (result.status.ok()) result.status = co_await Pump(exchange, upstream, hooks, result);
  result.client_gone = exchange.client_gone();
  if (result.client_gone && !result.status.ok()) result.status = Cancelled("the client has left");
  co_return result;
}

}  // namespace llmd::http
