// A connection of a loop, the request on it, and where it connects to.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cli/bench/response_reader.h"
#include "cli/bench/tally.h"
#include "cli/bench/workload.h"
#include "http/tls_session.h"
#include "llmd/http/message.h"

namespace llmd::bench {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};
// The first address of a name. UNAVAILABLE with the resolver's words.
StatusOr<Address> Resolve(const http::HostPort& peer);

// A request's bytes: its own, or those of a request that is always the same.
struct Outgoing {
  std::string own;
  std::string_view fixed;
  std::string_view bytes() const { return fixed.empty() ? std::string_view(own) : fixed; }
};

struct Connection {
  enum class State : uint8_t { kClosed, kConnecting, kHandshake, kBusy, kIdle };

  int fd = -1;
  State state = State::kClosed;
  uint32_t number = 0;      // in its loop
  uint32_t generation = 0;  // counts the sockets it had, so that late events are known
  size_t target = 0;
  bool waits_for_room = false;  // EPOLLOUT is asked for
  bool reused = false;          // the request is not the socket's first
  bool resent = false;
  bool counted = false;  // not of the warm-up

  Conversation conversation;
  Outgoing request;
  size_t written = 0;
  int64_t intended = 0, sent = 0;
  ResponseReader reader;
  std::unique_ptr<http::TlsSession> tls;

  // As ::send and ::recv, through TLS where there is any.
  ssize_t Send(std::string_view bytes);
  ssize_t Receive(char* to, size_t room);

  // In flight, by when they were sent.
  Connection* before = nullptr;
  Connection* behind = nullptr;
};

// Requests in flight in the order of sending, which is that of their timeouts.
class InFlightList {
 public:
  Connection* first() const { return first_; }
  void PushBack(Connection& connection);
  void Remove(Connection& connection);

 private:
  Connection* first_ = nullptr;
  Connection* last_ = nullptr;
};

// A socket that is being connected, or a negative errno.
int Connect(const Address& address);
// What an errno of socket(), connect() or an established connection counts as.
Failure ConnectFailure(int error);

}  // namespace llmd::bench
