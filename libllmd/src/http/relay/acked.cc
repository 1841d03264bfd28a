// Apart from socket.cc, as the system's header for TCP_INFO and the C library's exclude each other.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <optional>

#include "http/relay/socket.h"

namespace llmd::relay {

std::optional<uint64_t> AckedBytes(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  constexpr socklen_t kNeeded = offsetof(tcp_info, tcpi_bytes_acked) + sizeof(uint64_t);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || size < kNeeded)
    return std::nullopt;
  return info.tcpi_bytes_acked;
}

}  // namespace llmd::relay
