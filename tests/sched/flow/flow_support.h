// A flow controller over a pool of one number, on a fake clock.
#pragma once

#include "flow/controller.h"
#include "llmd/sched/config_loader.h"
#include "sched/support.h"

namespace llmd::sched {

inline std::shared_ptr<Graph> FlowGraph(const std::string& flow,
                                        const std::vector<std::string>& plugins = {
                                            "{type: queue-scorer}"}) {
  auto graph = LoadGraph(Config(plugins) + "featureGates: [flowControl]\nflowControl: " + flow, {});
  EXPECT_TRUE(graph.ok()) << graph.status().ToString();
  return graph.ok() ? *graph : nullptr;
}

class FlowFixture : public ::testing::Test {
 protected:
  void Start(const std::string& flow,
             const std::vector<std::string>& plugins = {"{type: queue-scorer}"}) {
    flow_ = std::make_unique<FlowController>(
        FlowGraph(flow, plugins), clock_, metrics_, "pool",
        FlowHooks{.load = [this] { return Load(); }, .empty = [this] { return empty_; }});
  }
  PoolLoad Load() const {
    const double s = saturation_ >= 0
                         ? saturation_
                         : static_cast<double>(in_flight_) / static_cast<double>(room_);
    return {
        .prefill = 0, .decode = s, .effective = s, .per_request = per_request_, .stale = stale_};
  }
  uint64_t Ask(const std::string& name, FlowRequest request = {}) {
    request.bytes = request.bytes ? request.bytes : 10;
    request.resume = [this, name](const FlowResult& r) {
      last_ = r;
      if (r.outcome == FlowOutcome::kDispatched) {
        ++in_flight_;
        tickets_[name] = r.ticket;
      }
      events_.push_back(
          r.outcome == FlowOutcome::kDispatched ? name : name + "!" + OutcomeLabel(r.outcome));
    };
    return flow_->Enqueue(std::move(request));
  }
  uint64_t Ask(const std::string& name, int priority, const std::string& flow = "f") {
    return Ask(name, FlowRequest{.priority = priority, .flow = flow});
  }
  // A dispatched request ends.
  void End(const std::string& name, FlowUsage usage = {}) {
    --in_flight_;
    flow_->Complete(tickets_.at(name), usage);
  }
  // What happened since the last call.
  std::vector<std::string> Events() { return std::exchange(events_, {}); }
  // Makes room for so many more.
  std::vector<std::string> Open(size_t room) {
    room_ = in_flight_ + room;
    flow_->Pump();
    room_ = std::max<size_t>(in_flight_, 1);
    return Events();
  }
  void Pass(Duration time) {
    clock_.Advance(time);
    flow_->Expire();
    flow_->Pump();
  }
  FakeClock clock_;
  MetricsRegistry metrics_;
  size_t in_flight_ = 1, room_ = 1, stale_ = 0;  // full
  double saturation_ = -1;                       // set: instead of in flight over room
  double per_request_ = INFINITY;
  bool empty_ = false;
  FlowResult last_;
  std::vector<std::string> events_;
  std::map<std::string, uint64_t> tickets_;
  std::unique_ptr<FlowController> flow_;
};

}  // namespace llmd::sched
