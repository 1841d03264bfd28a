#include "plugins/producer/inflight_flows.h"

#include <algorithm>
#include <charconv>

namespace llmd::sched {

uint64_t InflightFlows::Of(std::string_view fairness_id, int priority) {
  static thread_local std::string key;
  char text[16];
  const auto end = std::to_chars(text, text + sizeof(text), priority).ptr;
  const std::string_view digits(text, static_cast<size_t>(end - text));
  key.assign(digits).append(1, ' ').append(fairness_id);
  const std::lock_guard lock(mutex_);
  if (const auto it = numbers_.find(key); it != numbers_.end()) return it->second;
  const Flow flow{fairness_ids_.Fold(std::string(fairness_id)), std::string(digits)};
  key.assign(flow.priority).append(1, ' ').append(flow.fairness_id);
  if (const auto it = numbers_.find(key); it != numbers_.end()) return it->second;
  if (flows_.size() >= kMaxFlows) return 0;
  flows_.push_back(flow);
  return numbers_[key] = flows_.size() - 1;
}

void InflightFlows::Start(uint64_t flow, EndpointId life,
                          const std::shared_ptr<const EndpointInfo>& endpoint, double tokens) {
  const std::lock_guard lock(mutex_);
  if (counts_.size() >= next_sweep_) Sweep();
  Count& count = counts_[{flow, life}];
  if (count.endpoint != endpoint) count.endpoint = endpoint;
  count.requests += 1;
  count.tokens += tokens;
}

void InflightFlows::End(uint64_t flow, EndpointId life, double requests, double tokens) {
  const std::lock_guard lock(mutex_);
  const auto it = counts_.find({flow, life});
  if (it == counts_.end()) return;
  it->second.requests -= requests;
  it->second.tokens -= tokens;
}

void InflightFlows::Forget(const EndpointInfo& endpoint) {
  const std::lock_guard lock(mutex_);
  for (auto& [key, count] : counts_) {
    if (count.endpoint && count.endpoint->ns == endpoint.ns &&
        count.endpoint->name == endpoint.name)
      count.endpoint.reset();
  }
}

void InflightFlows::ForEach(
    const std::function<void(const EndpointInfo&, const Flow&, double, double)>& visit) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [key, count] : counts_) {
    if (count.endpoint) visit(*count.endpoint, flows_[key.flow], count.requests, count.tokens);
  }
}

// Whatever has nothing in flight goes.
void InflightFlows::Sweep() {
  std::erase_if(counts_, [](const auto& entry) { return entry.second.requests == 0; });
  next_sweep_ = std::max(kFirstSweep, 2 * counts_.size());
}

}  // namespace llmd::sched
