// Idle client connections of one loop, by peer. Watched while idle: one that the peer closes leaves
// the pool at once. Loop thread only, apart from construction and destruction.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "http/connection.h"

namespace llmd::http {

class ClientPool : public std::enable_shared_from_this<ClientPool> {
 public:
  ClientPool(size_t max_idle_per_host, Duration idle_timeout)
      : max_idle_per_host_(max_idle_per_host), idle_timeout_(idle_timeout) {}

  // The connection used last, or null.
  std::shared_ptr<Connection> Take(const std::string& peer);
  // Keeps a connection whose exchange is over, or closes it.
  void Put(const std::string& peer, std::shared_ptr<Connection> connection);
  // Closes all and whatever is put later.
  void CloseAll();

 private:
  void Remove(const std::string& peer, const Connection* connection);
  const size_t max_idle_per_host_;
  const Duration idle_timeout_;
  bool closed_ = false;
  std::unordered_map<std::string, std::vector<std::shared_ptr<Connection>>> idle_;
};

}  // namespace llmd::http
