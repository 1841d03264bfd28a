// Endpoints that no server stands behind, for tests of plugins and of configurations.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "llmd/sched/endpoint.h"

namespace llmd::sched::testing {

// An endpoint said in one expression: FakeEndpoint("a").Waiting(3).KvUsage(0.5).Role("decode").
// Its address and port follow from the name.
class FakeEndpoint {
 public:
  explicit FakeEndpoint(std::string name);
  FakeEndpoint& Waiting(double requests);
  FakeEndpoint& Running(double requests);
  FakeEndpoint& KvUsage(double share);  // 0..1
  // Tokens a block, blocks in all.
  FakeEndpoint& Cache(int block_size, int num_blocks);
  FakeEndpoint& Label(std::string key, std::string value);
  FakeEndpoint& Role(std::string value) { return Label(std::string(kRoleLabel), std::move(value)); }
  // LoRA adapters loaded and waited for, and how many fit.
  FakeEndpoint& Adapters(std::vector<std::string> active, std::vector<std::string> waiting,
                         int max_active);
  // A named number as an extractor fills it ("GPUUtilization"); see EndpointState::attributes.
  FakeEndpoint& Attribute(std::string name, double value);
  FakeEndpoint& NeverScraped();
  operator EndpointState() const { return state_; }  // NOLINT: made to be put into lists

 private:
  EndpointState state_;
};

// `count` endpoints "e0", "e1" … with varied gauges, roles, labels (zone, context-length-range) and
// adapters. The same for the same seed.
std::vector<EndpointState> MixedPool(size_t count, uint64_t seed = 7);
// The same, some with gauges that are NaN and some never scraped.
std::vector<EndpointState> UnknownPool(size_t count, uint64_t seed = 7);
// `count` endpoints that differ by name only.
std::vector<EndpointState> TiedPool(size_t count);

// What plugins see of these endpoints, less their named attributes; slots follow the order.
Snapshot SnapshotOf(std::span<const EndpointState> endpoints);

}  // namespace llmd::sched::testing
