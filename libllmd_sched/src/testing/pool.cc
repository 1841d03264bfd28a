#include "llmd/sched/testing/pool.h"

#include <limits>
#include <utility>

#include "llmd/sched/request_context.h"

namespace llmd::sched::testing {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

uint32_t HashOf(const std::string& name) {
  uint32_t hash = 2166136261u;
  for (unsigned char c : name) hash = (hash ^ c) * 16777619u;
  return hash;
}

double Below(uint64_t& random, uint64_t bound) {
  return static_cast<double>(RandomBelow(random, bound));
}

EndpointState MixedEndpoint(size_t i, uint64_t& random) {
  FakeEndpoint e("e" + std::to_string(i));
  e.Waiting(Below(random, 9)).Running(Below(random, 5)).KvUsage(Below(random, 101) / 100);
  e.Cache(16, static_cast<int>(100 + RandomBelow(random, 4000)));
  if (i % 2) e.Label("zone", i % 4 == 1 ? "north" : "south");
  if (i % 3 == 0) e.Role(i % 2 ? "prefill" : "decode");
  if (i % 5 == 0) e.Label("llm-d.ai/context-length-range", i % 2 ? "0-100" : "nonsense");
  if (i % 4 == 2) e.Adapters({"test-model"}, {"other"}, 4);
  if (i % 4 == 3) e.Adapters({"other"}, {}, 1);
  return e;
}

}  // namespace

FakeEndpoint::FakeEndpoint(std::string name) {
  const uint32_t hash = HashOf(name);
  state_.info.name = std::move(name);
  state_.info.address = "10." + std::to_string(hash & 255) + "." + std::to_string(hash >> 8 & 255) +
                        "." + std::to_string(hash >> 16 & 255);
  state_.info.port = static_cast<uint16_t>(8000 + (hash >> 24));
  state_.metrics.block_size = 16;
  state_.metrics.ever = true;
}

FakeEndpoint& FakeEndpoint::Waiting(double requests) {
  state_.metrics.waiting = requests;
  return *this;
}
FakeEndpoint& FakeEndpoint::Running(double requests) {
  state_.metrics.running = requests;
  return *this;
}
FakeEndpoint& FakeEndpoint::KvUsage(double share) {
  state_.metrics.kv_usage = share;
  return *this;
}
FakeEndpoint& FakeEndpoint::Cache(int block_size, int num_blocks) {
  state_.metrics.block_size = block_size;
  state_.metrics.num_blocks = num_blocks;
  return *this;
}
FakeEndpoint& FakeEndpoint::Label(std::string key, std::string value) {
  state_.info.labels.insert_or_assign(std::move(key), std::move(value));
  return *this;
}
FakeEndpoint& FakeEndpoint::Adapters(std::vector<std::string> active,
                                     std::vector<std::string> waiting, int max_active) {
  state_.metrics.active_models = std::move(active);
  state_.metrics.waiting_models = std::move(waiting);
  state_.metrics.max_active_models = max_active;
  return *this;
}
FakeEndpoint& FakeEndpoint::Attribute(std::string name, double value) {
  state_.attributes.insert_or_assign(std::move(name), value);
  return *this;
}
FakeEndpoint& FakeEndpoint::NeverScraped() {
  state_.metrics = EndpointMetrics();
  return *this;
}

std::vector<EndpointState> MixedPool(size_t count, uint64_t seed) {
  std::vector<EndpointState> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(MixedEndpoint(i, seed));
  return out;
}

std::vector<EndpointState> UnknownPool(size_t count, uint64_t seed) {
  std::vector<EndpointState> out = MixedPool(count, seed);
  for (size_t i = 0; i < count; ++i) {
    EndpointMetrics& m = out[i].metrics;
    if (i % 2) m.waiting = m.running = m.kv_usage = kNan;
    if (i % 3 == 0) m = EndpointMetrics();
  }
  return out;
}

std::vector<EndpointState> TiedPool(size_t count) {
  std::vector<EndpointState> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    out.push_back(
        FakeEndpoint("e" + std::to_string(i)).Waiting(3).Running(2).KvUsage(0.5).Cache(16, 1000));
  }
  return out;
}

Snapshot SnapshotOf(std::span<const EndpointState> endpoints) {
  Snapshot snapshot;
  auto set = std::make_shared<EndpointSet>();
  for (const EndpointState& e : endpoints) {
    set->Add(std::make_shared<const EndpointInfo>(e.info), static_cast<uint32_t>(set->size()));
    snapshot.Add(std::make_shared<const EndpointMetrics>(e.metrics));
  }
  snapshot.set = std::move(set);
  return snapshot;
}

}  // namespace llmd::sched::testing
