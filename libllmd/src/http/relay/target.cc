#include "llmd/http/relay/target.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

#include <cstring>
#include <functional>

namespace llmd::relay {

StatusOr<Target> Target::Parse(std::string_view text) {
  LLMD_ASSIGN_OR_RETURN(const http::HostPort peer, http::ParseHostPort(text));
  Target out;
  out.port_ = peer.port;
  if (::inet_pton(AF_INET, peer.host.c_str(), out.address_.data()) == 1) return out;
  out.v6_ = true;
  if (::inet_pton(AF_INET6, peer.host.c_str(), out.address_.data()) == 1) return out;
  return InvalidArgument("'" + std::string(text) + "': expected an IP address and a port");
}

StatusOr<Target> Target::Resolve(const http::HostPort& peer) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(peer.port);
  const int error = ::getaddrinfo(peer.host.c_str(), port.c_str(), &hints, &found);
  if (error != 0 || found == nullptr)
    return Unavailable("cannot resolve " + peer.host + ": " + ::gai_strerror(error));
  Target out;
  out.port_ = peer.port;
  out.v6_ = found->ai_family == AF_INET6;
  if (out.v6_) {
    std::memcpy(out.address_.data(),
                &reinterpret_cast<const sockaddr_in6*>(found->ai_addr)->sin6_addr, 16);
  } else {
    std::memcpy(out.address_.data(),
                &reinterpret_cast<const sockaddr_in*>(found->ai_addr)->sin_addr, 4);
  }
  ::freeaddrinfo(found);
  return out;
}

std::string Target::AddressText() const {
  char text[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(v6_ ? AF_INET6 : AF_INET, address_.data(), text, sizeof text);
  return text;
}

std::string Target::ToString() const {
  return http::HostPort{AddressText(), port_}.ToString();
}

size_t Target::Hash() const {
  const std::string_view bytes(reinterpret_cast<const char*>(address_.data()), address_.size());
  return std::hash<std::string_view>()(bytes) * 31 + port_ * 2 + (v6_ ? 1 : 0);
}

}  // namespace llmd::relay
