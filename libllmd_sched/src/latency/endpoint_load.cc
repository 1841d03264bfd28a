#include "latency/endpoint_load.h"

#include <algorithm>

namespace llmd::sched::latency {

EndpointLoads::Cell& EndpointLoads::CellOf(uint32_t slot) {
  {
    std::shared_lock lock(mutex_);
    if (slot < cells_.size()) return cells_[slot];
  }
  std::unique_lock lock(mutex_);
  while (cells_.size() <= slot) cells_.emplace_back();
  return cells_[slot];
}

void EndpointLoads::Add(uint32_t slot, double dispatched, double prefill_tokens,
                        double decode_tokens) {
  Cell& cell = CellOf(slot);
  cell.dispatched.fetch_add(dispatched, std::memory_order_relaxed);
  cell.prefill_tokens.fetch_add(prefill_tokens, std::memory_order_relaxed);
  cell.decode_tokens.fetch_add(decode_tokens, std::memory_order_relaxed);
}

void EndpointLoads::AddSlo(uint32_t slot, double tpot_ms) {
  Cell& cell = CellOf(slot);
  std::lock_guard lock(cell.mutex);
  cell.slos.push_back(tpot_ms);
  cell.tightest.store(*std::min_element(cell.slos.begin(), cell.slos.end()),
                      std::memory_order_relaxed);
}

void EndpointLoads::RemoveSlo(uint32_t slot, double tpot_ms) {
  Cell& cell = CellOf(slot);
  std::lock_guard lock(cell.mutex);
  const auto it = std::find(cell.slos.begin(), cell.slos.end(), tpot_ms);
  if (it == cell.slos.end()) return;
  *it = cell.slos.back();
  cell.slos.pop_back();
  cell.tightest.store(cell.slos.empty() ? std::numeric_limits<double>::infinity()
                                        : *std::min_element(cell.slos.begin(), cell.slos.end()),
                      std::memory_order_relaxed);
}

}  // namespace llmd::sched::latency
