#include "director/discovery_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;

std::vector<EndpointInfo> Endpoints(size_t n) {
  return std::vector<EndpointInfo>(n);
}

TEST(DiscoveryFeed, HoldsTheNewestUntilItIsOpened) {
  std::vector<size_t> sizes;
  DiscoveryFeed feed(
      [&](std::vector<EndpointInfo> e, DiscoveryFeed::Policy) { sizes.push_back(e.size()); });
  feed.OnEndpoints(Endpoints(1));
  feed.OnEndpoints(Endpoints(2));
  EXPECT_THAT(sizes, ElementsAre());
  feed.Open();
  EXPECT_THAT(sizes, ElementsAre(2));
  feed.OnEndpoints(Endpoints(3));
  feed.Close();
  feed.OnEndpoints(Endpoints(4));
  EXPECT_THAT(sizes, ElementsAre(2, 3));
}

TEST(DiscoveryFeed, WhatComesWhileItOpensGoesLast) {
  std::vector<size_t> sizes;
  DiscoveryFeed* self = nullptr;
  DiscoveryFeed feed([&](std::vector<EndpointInfo> e, DiscoveryFeed::Policy) {
    if (sizes.empty()) self->OnEndpoints(Endpoints(7));
    sizes.push_back(e.size());
  });
  self = &feed;
  feed.OnEndpoints(Endpoints(1));
  feed.Open();
  EXPECT_THAT(sizes, ElementsAre(1, 7));
}

TEST(DiscoveryFeed, CarriesThePolicyWithTheEndpoints) {
  int seen = 0;
  DiscoveryFeed feed([&](std::vector<EndpointInfo>, DiscoveryFeed::Policy policy) {
    seen = policy ? policy->PriorityOf("chat") : -1;
  });
  feed.OnEndpoints({});
  feed.Open();
  EXPECT_EQ(seen, -1);
  auto policy = std::make_shared<PoolPolicy>();
  policy->objectives["chat"] = 7;
  feed.OnPolicy(policy);
  feed.OnEndpoints({});
  EXPECT_EQ(seen, 7);
}

}  // namespace
}  // namespace llmd::sched
