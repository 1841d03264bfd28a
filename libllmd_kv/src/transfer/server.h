// The lender's side: one epoll thread serves the handshake, grants, TCP block streams and
// completions of every reader.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>

#include "llmd/kv/transfer.h"
#include "transfer/lease_table.h"
#include "transfer/socket.h"

namespace llmd::kv {

class Connection;

// The abstract Unix socket of an engine.
std::string SocketName(const std::string& engine_id);

// Thread-compatible; Stop from any thread but its own.
class TransferServer {
 public:
  // `on_tick` runs on the server's thread a few times a second.
  static StatusOr<std::unique_ptr<TransferServer>> Start(Region& region,
                                                         const AgentOptions& options,
                                                         LeaseTable& leases, Logger logger,
                                                         std::function<void()> on_tick);
  ~TransferServer();
  uint16_t port() const { return port_; }
  void Stop();

 private:
  TransferServer(Region& region, const AgentOptions& options, LeaseTable& leases, Logger logger,
                 std::function<void()> on_tick);
  Status Open();
  void Run();
  void Accept(int listener, bool local);
  void Serve(int fd, uint32_t events);
  void Watch(int op, int fd, uint32_t events);
  void DropStalled();

  Region& region_;
  const AgentOptions& options_;
  LeaseTable& leases_;
  const Logger logger_;
  const std::function<void()> on_tick_;
  UniqueFd epoll_, tcp_, local_;
  StopEvent stop_;
  uint16_t port_ = 0;
  std::unordered_map<int, std::unique_ptr<Connection>> connections_;
  std::thread thread_;
};

}  // namespace llmd::kv
