#include "http/client_pool.h"

#include <algorithm>

namespace llmd::http {

std::shared_ptr<Connection> ClientPool::Take(const std::string& peer) {
  const auto found = idle_.find(peer);
  while (found != idle_.end() && !found->second.empty()) {
    std::shared_ptr<Connection> connection = std::move(found->second.back());
    found->second.pop_back();
    connection->OnEnd(nullptr);
    // Bytes that nobody asked for belong to no answer.
    if (!connection->ended() && connection->input().empty()) {
      connection->Watch();
      return connection;
    }
    connection->Close();
  }
  return nullptr;
}

void ClientPool::Put(const std::string& peer, std::shared_ptr<Connection> connection) {
  auto& idle = idle_[peer];
  if (closed_ || connection->ended() || !connection->input().empty() ||
      idle.size() >= max_idle_per_host_) {
    return connection->Close();
  }
  connection->Watch(idle_timeout_);
  connection->OnEnd([weak = weak_from_this(), peer, raw = connection.get()] {
    if (auto self = weak.lock()) self->Remove(peer, raw);
  });
  idle.push_back(std::move(connection));
}

void ClientPool::Remove(const std::string& peer, const Connection* connection) {
  const auto found = idle_.find(peer);
  if (found == idle_.end()) return;
  auto& idle = found->second;
  const auto it =
      std::find_if(idle.begin(), idle.end(), [&](const auto& c) { return c.get() == connection; });
  if (it == idle.end()) return;
  (*it)->Close();
  idle.erase(it);
  if (idle.empty()) idle_.erase(found);
}

void ClientPool::CloseAll() {
  closed_ = true;
  for (auto& [peer, idle] : idle_) {
    for (auto& connection : idle) connection->Close();
  }
  idle_.clear();
}

}  // namespace llmd::http
