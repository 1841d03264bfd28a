#include "flow/indexed_heap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace llmd::sched {
namespace {

struct Thing {
  int key = 0;
  size_t at = kNotInHeap;
};
struct At {
  size_t& operator()(Thing& t) const { return t.at; }
};
struct Smaller {
  bool operator()(const Thing& a, const Thing& b) const { return a.key < b.key; }
};
using Heap = IndexedHeap<Thing, At, Smaller>;

std::vector<int> Drain(Heap& heap) {
  std::vector<int> out;
  while (!heap.empty()) {
    out.push_back(heap.top()->key);
    heap.Remove(heap.top());
  }
  return out;
}

TEST(IndexedHeap, SortsAndForgetsPositions) {
  std::vector<Thing> things = {{5}, {1}, {4}, {1}, {3}};
  Heap heap;
  for (Thing& t : things) heap.Push(&t);
  EXPECT_THAT(Drain(heap), ::testing::ElementsAre(1, 1, 3, 4, 5));
  for (const Thing& t : things) EXPECT_EQ(t.at, kNotInHeap);
}

TEST(IndexedHeap, AnyOfThemCanLeaveOrChange) {
  std::mt19937 rng(3);
  std::vector<Thing> things(500);
  Heap heap;
  for (Thing& t : things) {
    t.key = static_cast<int>(rng() % 100);
    heap.Push(&t);
  }
  std::vector<int> left;
  for (Thing& t : things) {
    if (rng() % 3 == 0) {
      heap.Remove(&t);
      EXPECT_EQ(t.at, kNotInHeap);
      continue;
    }
    t.key = static_cast<int>(rng() % 100);
    heap.Update(&t);
    left.push_back(t.key);
  }
  std::sort(left.begin(), left.end());
  EXPECT_EQ(Drain(heap), left);
}

}  // namespace
}  // namespace llmd::sched
