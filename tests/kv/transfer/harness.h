// Two or more engines' worth of KV transfer in one process, with content that tells which block it
// is.
#pragma once

#include <gtest/gtest.h>

#include <unistd.h>
#include <cstring>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "llmd/kv/transfer.h"

namespace llmd::kv::testing {

inline constexpr size_t kBlockBytes =
    40'000;  // not a multiple of 64, above the streaming threshold

inline Compatibility TestCompatibility() {
  return {"model-a@f00d", "bf16", "block:layer,kv,head,token,dim", 2, 3, 64, 16, "sha256_cbor"};
}

inline std::string UniqueId(const std::string& name) {
  static std::atomic<int> counter{0};
  return name + "-" + std::to_string(getpid()) + "-" + std::to_string(counter++);
}

// content = f(seed, block, offset): a wrong block or a wrong lender is never equal by chance.
inline uint32_t ContentWord(uint32_t seed, int block, size_t word) {
  return (seed * 2654435761u) ^ (static_cast<uint32_t>(block) * 40503u) ^
         static_cast<uint32_t>(word * 97);
}

struct Released {
  std::string request_id;
  bool read;
  friend bool operator==(const Released&, const Released&) = default;
};

class Node {
 public:
  Node(std::string engine_id, int blocks, uint32_t seed, const Clock& clock = SystemClock(),
       std::function<void(AgentOptions&)> tune = {}, size_t block_bytes = kBlockBytes)
      : engine_id_(std::move(engine_id)), block_bytes_(block_bytes) {
    auto region = Region::Create({blocks, block_bytes, true});
    EXPECT_TRUE(region.ok()) << region.status().ToString();
    region_ = *std::move(region);
    for (int b = 0; b < blocks; ++b) Fill(b, seed);
    AgentOptions options;
    options.engine_id = engine_id_;
    options.compatibility = TestCompatibility();
    options.connect_timeout = std::chrono::seconds(5);
    if (tune) tune(options);
    auto agent = Agent::Start(
        *region_, options,
        [this](const std::string& id, bool read) {
          const std::lock_guard lock(mutex_);
          released_.push_back({id, read});
        },
        Logger(), metrics_, clock);
    EXPECT_TRUE(agent.ok()) << agent.status().ToString();
    if (agent.ok()) agent_ = *std::move(agent);
  }

  void Fill(int block, uint32_t seed) {
    std::byte* at = Block(block);
    for (size_t w = 0; w * 4 + 4 <= block_bytes_; ++w) {
      const uint32_t word = ContentWord(seed, block, w);
      std::memcpy(at + w * 4, &word, 4);
    }
  }
  // Whether our block `local` holds what block `remote` of the node filled with `seed` held.
  bool Holds(int local, uint32_t seed, int remote) {
    const std::byte* at = Block(local);
    for (size_t w = 0; w * 4 + 4 <= block_bytes_; ++w) {
      const uint32_t word = ContentWord(seed, remote, w);
      if (std::memcmp(at + w * 4, &word, 4) != 0) return false;
    }
    return true;
  }
  std::byte* Block(int block) {
    return region_->blocks() + static_cast<size_t>(block) * region_->block_stride();
  }

  PullRequest RequestFor(const Node& lender, const std::string& request_id,
                         std::vector<int32_t> remote, std::vector<int32_t> local) const {
    return {lender.engine_id_, "127.0.0.1",       lender.agent_->port(),
            request_id,        std::move(remote), std::move(local)};
  }
  std::future<PullResult> PullAsync(PullRequest request) {
    auto promise = std::make_shared<std::promise<PullResult>>();
    agent_->Pull(std::move(request),
                 [promise](PullResult result) { promise->set_value(std::move(result)); });
    return promise->get_future();
  }
  PullResult Pull(PullRequest request) { return PullAsync(std::move(request)).get(); }

  std::vector<Released> released() const {
    const std::lock_guard lock(mutex_);
    return released_;
  }
  double Metric(const std::string& line_start) const {
    const std::string text = metrics_.Expose();
    const size_t at = text.find("\n" + line_start + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + line_start.size() + 2));
  }

  Agent& agent() { return *agent_; }
  Region& region() { return *region_; }
  const std::string& engine_id() const { return engine_id_; }

 private:
  const std::string engine_id_;
  const size_t block_bytes_;
  std::unique_ptr<Region> region_;
  MetricsRegistry metrics_;
  mutable std::mutex mutex_;
  std::vector<Released> released_;
  std::unique_ptr<Agent> agent_;
};

}  // namespace llmd::kv::testing
