// An engine over the fake model, a client that collects outputs, and a gate that holds the engine
// thread in a step.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "engine/fake_model.h"
#include "llmd/engine/engine.h"

namespace llmd::engine {

inline constexpr auto kPatience = std::chrono::seconds(30);

struct Result {
  std::vector<TokenId> tokens;
  std::vector<PositionLogprobs> logprobs, prompt_logprobs;
  FinishReason finish = FinishReason::kNone;
  std::optional<TokenId> stop_token;
  Status error;
  int cached_tokens = 0, remote_tokens = 0, outputs = 0;
  std::optional<json::Value> kv_transfer_params;
};

// Thread-safe.
class Client {
 public:
  OutputFn For(const std::string& id) {
    return [this, id](Output&& o) {
      std::lock_guard lock(mutex_);
      Result& r = results_[id];
      EXPECT_EQ(r.finish, FinishReason::kNone) << "output after the last of " << id;
      r.tokens.insert(r.tokens.end(), o.tokens.begin(), o.tokens.end());
      for (auto& l : o.logprobs) r.logprobs.push_back(std::move(l));
      if (r.outputs++ == 0) {
        r.cached_tokens = o.cached_tokens;
        r.remote_tokens = o.remote_tokens;
        r.prompt_logprobs = std::move(o.prompt_logprobs);
      }
      r.finish = o.finish;
      r.stop_token = o.stop_token;
      r.error = o.error;
      if (o.kv_transfer_params) r.kv_transfer_params = std::move(o.kv_transfer_params);
      if (o.finish != FinishReason::kNone) order_.push_back(id);
      changed_.notify_all();
    };
  }
  Result Wait(const std::string& id) {
    std::unique_lock lock(mutex_);
    const bool done = changed_.wait_for(lock, kPatience,
                                        [&] { return results_[id].finish != FinishReason::kNone; });
    EXPECT_TRUE(done) << "no end of " << id;
    return results_[id];
  }
  void WaitForTokens(const std::string& id, size_t n) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        changed_.wait_for(lock, kPatience, [&] { return results_[id].tokens.size() >= n; }));
  }
  std::vector<std::string> FinishOrder() {
    std::lock_guard lock(mutex_);
    return order_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Result> results_;
  std::vector<std::string> order_;
};

// Holds the engine thread at the start of a step until opened.
class Gate {
 public:
  FakeModel::Hook Hook() {
    return [this](const StepBatch&) {
      std::unique_lock lock(mutex_);
      waiting_ = true;
      changed_.notify_all();
      changed_.wait_for(lock, kPatience, [this] { return open_; });
      return OkStatus();
    };
  }
  // Until the engine thread stands at the gate.
  void Await() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [this] { return waiting_; }));
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool waiting_ = false, open_ = false;
};

inline std::vector<TokenId> Prompt(int length, int salt = 0) {
  std::vector<TokenId> out;
  for (int i = 0; i < length; ++i) out.push_back((i * 7 + salt * 13 + 3) % 101);
  return out;
}

class Harness {
 public:
  static EngineOptions Options(int usable_blocks = 63) {
    EngineOptions o;
    o.block_size = 4;
    o.num_blocks = usable_blocks + 1;
    return o;
  }
  explicit Harness(EngineOptions options = Options(),
                   std::unique_ptr<FakeModel> fake = std::make_unique<FakeModel>(),
                   const Clock& clock = SystemClock(), Logger logger = {}) {
    model = fake.get();
    auto made =
        Engine::Create(std::move(fake), std::move(options), std::move(logger), metrics, clock);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    engine = std::move(*made);
  }
  ~Harness() {
    model->SetHook(nullptr);
    engine->Stop();
  }

  Request Make(const std::string& id, std::vector<TokenId> prompt, int max_tokens) {
    Request r;
    r.id = id;
    r.prompt = std::move(prompt);
    r.sampling.max_tokens = max_tokens;
    r.sampling.temperature = 0;
    r.on_output = client.For(id);
    return r;
  }
  Status Submit(const std::string& id, std::vector<TokenId> prompt, int max_tokens) {
    return engine->Submit(Make(id, std::move(prompt), max_tokens));
  }
  Result Run(Request request) {
    const std::string id = request.id;
    const Status s = engine->Submit(std::move(request));
    EXPECT_TRUE(s.ok()) << s.ToString();
    return s.ok() ? client.Wait(id) : Result{};
  }
  Result Run(const std::string& id, std::vector<TokenId> prompt, int max_tokens) {
    return Run(Make(id, std::move(prompt), max_tokens));
  }
  // Until `ready` holds for the published figures.
  template <typename Ready>
  bool Eventually(Ready ready) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!ready(engine->Stats())) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }
  bool AllBlocksFree() {
    return Eventually([](const EngineStats& s) { return s.free_blocks == s.total_blocks; });
  }

  MetricsRegistry metrics;
  Client client;
  FakeModel* model;
  std::unique_ptr<Engine> engine;
};

}  // namespace llmd::engine
