// What readers see of a run: consecutive keys and who holds them. A view never changes once a head
// table points to it; a change makes a new one.
#pragma once

#include <atomic>
#include <cstdint>

#include "index/holder_set.h"

namespace llmd::kv {

struct RunSpan {
  uint32_t end;          // one past its last block
  const HolderSet* set;  // null = a hole
};

struct RunView {
  uint64_t head;         // = keys[0]
  const uint64_t* keys;  // `length` of them never change; what stands behind is the writer's
  uint32_t length;       // up to the last block that somebody holds
  uint16_t space;
  uint16_t spans;
  uint32_t run;                        // the writer's number for it
  mutable std::atomic<uint32_t> used;  // 1 = a query came by since the budget last looked

  const RunSpan* begin() const { return reinterpret_cast<const RunSpan*>(this + 1); }
  const RunSpan* end() const { return begin() + spans; }
  RunSpan* begin() { return reinterpret_cast<RunSpan*>(this + 1); }
};

}  // namespace llmd::kv
