// A model server in virtual time: continuous batching with chunked prefill and a prefix cache. One
// step takes as long as its tokens cost; nothing here reads a clock. Deterministic.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <vector>

namespace llmd {

struct SimRequest {
  uint64_t id = 0;
  double arrival_ms = 0;
  int prompt_tokens = 0, output_tokens = 0;
  int group = 0, shared_tokens = 0;  // the beginning it shares with its group
  double slo_ttft_ms = 0, slo_tpot_ms = 0;
};

// Costs in milliseconds; the defaults resemble an 8B model on one large accelerator.
struct SimEngineCosts {
  double step = 6;                 // of any step
  double prefill_token = 0.045;    // per prompt token computed
  double prefill_context = 2e-6;   // per prompt token computed and token before it
  double decode_sequence = 0.12;   // per sequence decoded in the step
  double decode_context = 3.5e-5;  // per token of their contexts
  int step_tokens = 2048;          // most prompt tokens of one step
  int max_running = 64;
  int kv_tokens = 300'000;
  int cached_groups = 64;
};

// Owned by one thread.
class SimEngine {
 public:
  using Event = std::function<void(const SimRequest&, double at_ms)>;
  SimEngine(SimEngineCosts costs, Event first_token, Event finished)
      : c_(costs), first_token_(std::move(first_token)), finished_(std::move(finished)) {}

  void Submit(const SimRequest& request, double now_ms) {
    waiting_.push_back({request, 0, 0, 0});
    if (busy_until_ < 0) Begin(now_ms);
  }
  // When the running step ends; negative = idle.
  double next_ms() const { return busy_until_; }
  // Ends that step: tokens come out, and the next step begins.
  void Step() {
    const double now = busy_until_;
    for (auto it = running_.begin(); it != running_.end();) {
      Sequence& s = *it;
      s.done += s.chunk;
      const bool decodes = s.done >= s.request.prompt_tokens;
      if (decodes && ++s.generated == 1) {
        Touch(s.request.group);
        first_token_(s.request, now);
      }
      if (decodes && s.generated >= s.request.output_tokens) {
        finished_(s.request, now);
        it = running_.erase(it);
      } else {
        ++it;
      }
    }
    Begin(now);
  }

  double waiting() const { return static_cast<double>(waiting_.size()); }
  double running() const { return static_cast<double>(running_.size()); }
  double kv_usage() const { return std::min(1.0, Used() / c_.kv_tokens); }
  bool Holds(int group) const {
    return std::find(cached_.begin(), cached_.end(), group) != cached_.end();
  }

 private:
  struct Sequence {
    SimRequest request;
    int done = 0, generated = 0, chunk = 0;  // prompt tokens there, answer tokens, of this step
  };
  double Used() const {
    double out = 0;
    for (const Sequence& s : running_) out += s.request.prompt_tokens + s.generated;
    return out;
  }
  void Touch(int group) {
    cached_.remove(group);
    cached_.push_front(group);
    if (static_cast<int>(cached_.size()) > c_.cached_groups) cached_.pop_back();
  }
  void Admit() {
    double used = Used();
    while (!waiting_.empty() && static_cast<int>(running_.size()) < c_.max_running) {
      Sequence s = waiting_.front();
      if (!running_.empty() && used + s.request.prompt_tokens > c_.kv_tokens) break;
      if (Holds(s.request.group))
        s.done = std::min(s.request.shared_tokens, s.request.prompt_tokens - 1);
      used += s.request.prompt_tokens;
      running_.push_back(s);
      waiting_.pop_front();
    }
  }
  void Begin(double now) {
    Admit();
    if (running_.empty()) {
      busy_until_ = -1;
      return;
    }
    double cost = c_.step;
    int budget = c_.step_tokens;
    for (Sequence& s : running_) {
      s.chunk = std::min(budget, s.request.prompt_tokens - s.done);
      budget -= s.chunk;
      const double context = s.done + s.generated;
      if (s.done >= s.request.prompt_tokens) {
        cost += c_.decode_sequence + c_.decode_context * context;
      } else {
        cost += s.chunk * (c_.prefill_token + c_.prefill_context * (context + s.chunk / 2.0));
      }
    }
    busy_until_ = now + cost;
  }

  const SimEngineCosts c_;
  const Event first_token_, finished_;
  std::deque<Sequence> waiting_;
  std::list<Sequence> running_;
  std::list<int> cached_;
  double busy_until_ = -1;
};

}  // namespace llmd
