// All that can happen to requests at once, from eight threads, and what must hold afterwards:
// every callback came once, nothing waits and nothing is in flight. LLMD_STRESS_SECONDS says how
// long.
#include <atomic>
#include <random>
#include <thread>

#include "sched/life/life_support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;

std::chrono::seconds HowLong() {
  const char* given = std::getenv("LLMD_STRESS_SECONDS");
  return std::chrono::seconds(given ? std::atoi(given) : 20);
}

constexpr int kThreads = 8, kMembers = 6, kDeepest = 3;

class DirectorStress : public LifeFixture {
 protected:
  struct Request : std::enable_shared_from_this<Request> {
    HeaderList headers;
    std::string body;
    std::shared_ptr<RequestState> given;  // what Route wrote; its thread's only
    std::atomic<int> answers{0};
    std::mutex mutex;
    std::shared_ptr<RequestState> state;  // null = dropped; guarded by mutex
    bool routed = false, ended = false;   // guarded by mutex
  };
  using Rng = std::mt19937;

  static std::string Configuration(size_t which) {
    static constexpr std::string_view kFlow =
        ", enableEviction: true, maxRequests: 40, defaultRequestTTL: 300ms";
    static constexpr char kScorers[] = "{type: prefix-cache-scorer}";
    static constexpr char kDetector[] =
        "{type: concurrency-detector, parameters: {maxConcurrency: 2}}";
    std::vector<std::string> plugins = {kScorers, kDetector};
    if (which % 3 != 0) plugins.push_back("{type: held-producer}");
    std::string yaml = Yaml(plugins, std::string(kFlow), "{pluginRef: prefix-cache-scorer}");
    if (which % 5 == 4) {
      const std::string gate = "featureGates: [flowControl]\n";
      yaml.erase(yaml.find(gate));
    }
    return yaml;
  }

  // Routes one request, and others from its callback.
  std::shared_ptr<Request> Ask(Rng& rng, int depth) {
    static constexpr const char* kObjectives[] = {"batch", "chat", ""};
    auto request = std::make_shared<Request>();
    request->headers = {{":path", "/v1/completions"},
                        {"x-llm-d-inference-objective", kObjectives[rng() % 3]},
                        {"x-llm-d-inference-fairness-id", std::string(1, 'a' + rng() % 4)}};
    if (rng() % 4 == 0) request->headers.emplace_back("x-llm-d-inference-ttl", "5ms");
    request->body =
        R"({"model":"m","prompt":"tell me about number )" + std::to_string(rng() % 20) + "\"}";
    RequestInput input;
    input.headers = &request->headers;
    input.body = request->body;
    if (rng() % 4 != 0) input.state = &request->given;
    if (rng() % 2 == 0) {
      input.evicted = [this, weak = std::weak_ptr(request)](const Denial&) {
        evictions_.fetch_add(1);
        if (const auto alive = weak.lock()) CancelOne(*alive);
      };
    }
    const uint32_t choice = rng();
    asked_count_.fetch_add(1);
    director_->Route(std::move(input), [this, request, choice, depth](Routing r) {
      Answered(*request, std::move(r), choice, depth);
    });
    {
      std::lock_guard lock(request->mutex);
      if (request->answers == 0) request->state = std::move(request->given);
    }
    request->given.reset();
    return request;
  }
  void Answered(Request& request, Routing r, uint32_t choice, int depth) {
    if (request.answers.fetch_add(1) != 0) twice_.fetch_add(1);
    answered_.fetch_add(1);
    std::shared_ptr<RequestState> state = std::move(r.state);
    if (r.ok) routed_.fetch_add(1);
    if (choice % 16 == 0) {
      Rng rng(choice);
      if (depth < kDeepest) Post(Ask(rng, depth + 1));
    }
    if (choice % 16 == 1) director_->Cancel(state);
    std::lock_guard lock(request.mutex);
    request.routed = r.ok;
    if (choice % 16 != 2) request.state.swap(state);  // else dropped here
  }
  void CancelOne(Request& request) {
    std::shared_ptr<RequestState> state;
    {
      std::lock_guard lock(request.mutex);
      state = request.state;
    }
    director_->Cancel(state);
  }
  // The answer's way, as far as it comes.
  void Respond(Request& request, Rng& rng) {
    std::shared_ptr<RequestState> state;
    {
      std::lock_guard lock(request.mutex);
      if (!request.routed) return;
      state = request.state;
    }
    std::string replaced;
    director_->OnResponseHeaders(state, 200, {{"content-type", "application/json"}});
    if (rng() % 4 == 0) return director_->Cancel(state);
    director_->OnResponseBody(state, R"({"usage":{"prompt_tokens":3,"completion_tokens":5}})",
                              rng() % 4 != 0, &replaced);
  }

  // A few requests that any thread may take up.
  void Post(std::shared_ptr<Request> request) {
    std::lock_guard lock(board_mutex_);
    board_.push_back(std::move(request));
  }
  std::shared_ptr<Request> TakeOne(Rng& rng, size_t* crowd = nullptr) {
    std::lock_guard lock(board_mutex_);
    if (crowd != nullptr) *crowd = board_.size();
    if (board_.empty()) return nullptr;
    std::swap(board_[rng() % board_.size()], board_.back());
    std::shared_ptr<Request> out = std::move(board_.back());
    board_.pop_back();
    return out;
  }

  void Client(unsigned seed) {
    Rng rng(seed);
    while (!over_.load(std::memory_order_relaxed)) {
      Post(Ask(rng, 0));
      while (true) {
        size_t crowd = 0;
        const std::shared_ptr<Request> one = TakeOne(rng, &crowd);
        if (!one) break;
        switch (rng() % 8) {
          case 0:
            CancelOne(*one);
            break;
          case 1: {
            std::lock_guard lock(one->mutex);
            std::shared_ptr<RequestState> dropped;
            dropped.swap(one->state);
            drops_.push(std::move(dropped), rng);
            break;
          }
          default:
            if (one->answers.load() == 0 || rng() % 2 == 0) {
              Post(one);
              if (crowd < 8 * kThreads) std::this_thread::yield();
            } else {
              Respond(*one, rng);
            }
        }
        if (rng() % 3 != 0 && crowd < 4 * kThreads) break;
      }
      if (rng() % 4 == 0) held_->Answer();
    }
  }
  void World() {
    Rng rng(99);
    static constexpr const char* kNames[] = {"a", "b", "c", "d", "e", "f"};
    for (size_t round = 0; !over_.load(std::memory_order_relaxed); ++round) {
      clock_.Advance(milliseconds(1 + rng() % 5));
      if (rng() % 8 == 0) {
        std::vector<std::string> members;
        for (const char* name : kNames)
          if (rng() % 3 != 0) members.push_back(name);
        members_->Set(members);
      }
      if (rng() % 32 == 0) {
        const Status status = director_->Reload(Configuration(rng()));
        EXPECT_TRUE(status.ok()) << status.ToString();
      }
      held_->Answer();
      std::this_thread::sleep_for(milliseconds(1));
    }
  }
  // States to be dropped outside of locks.
  struct Drops {
    void push(std::shared_ptr<RequestState> one, Rng&) {
      std::lock_guard lock(mutex);
      all.push_back(std::move(one));
    }
    void Go() {
      std::vector<std::shared_ptr<RequestState>> now;
      {
        std::lock_guard lock(mutex);
        now.swap(all);
      }
    }
    std::mutex mutex;
    std::vector<std::shared_ptr<RequestState>> all;
  };
  double Sum(const std::string& series) const {
    double sum = 0;
    std::istringstream page(registry_->Expose());
    for (std::string line; std::getline(page, line);) {
      if (line.starts_with(series + "{") || line.starts_with(series + " "))
        sum += std::atof(line.c_str() + line.rfind(' '));
    }
    return sum;
  }

  std::atomic<bool> over_{false};
  std::atomic<int64_t> asked_count_{0}, answered_{0}, routed_{0}, twice_{0}, evictions_{0};
  std::mutex board_mutex_;
  std::vector<std::shared_ptr<Request>> board_;  // guarded by board_mutex_
  Drops drops_;
};

TEST_F(DirectorStress, EveryCallbackComesOnceAndNothingIsLeft) {
  options_.attach_trace = false;
  options_.seed = 7;
  Begin("", {"{type: prefix-cache-scorer}"}, {"a", "b", "c"});
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([this, t] { Client(static_cast<unsigned>(t)); });
  threads.emplace_back([this] { World(); });
  const auto until = std::chrono::steady_clock::now() + HowLong();
  while (std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(milliseconds(20));
    drops_.Go();
  }
  over_.store(true);
  for (std::thread& t : threads) t.join();

  // All that is left comes to its end.
  members_->Set({"a", "b", "c", "d", "e", "f"});
  ASSERT_TRUE(director_->Reload(Configuration(1)).ok());
  Returns([&] {
    Rng rng(1);
    while (answered_.load() < asked_count_.load() || !board_.empty()) {
      while (held_->Answer()) {
      }
      drops_.Go();
      if (const std::shared_ptr<Request> one = TakeOne(rng)) CancelOne(*one);
      clock_.Advance(milliseconds(1));
      std::this_thread::yield();
    }
    drops_.Go();
  });
  EXPECT_EQ(answered_.load(), asked_count_.load());
  EXPECT_EQ(twice_.load(), 0);
  EXPECT_GT(routed_.load(), 0);
  EXPECT_EQ(Sum("llm_d_epp_flow_control_queue_size"), 0);
  EXPECT_EQ(Sum("llm_d_epp_request_running"), 0);
  // As many as there is room for are routed at once: no place is lost.
  std::vector<std::shared_ptr<Request>> last;
  Rng rng(5);
  ASSERT_TRUE(director_->Reload(Configuration(0)).ok());
  clock_.Advance(milliseconds(1000));
  for (int i = 0; i < 2 * kMembers; ++i) {
    HeaderList headers = {{":path", "/v1/completions"}};
    RequestInput input;
    input.headers = &headers;
    input.body = kBody;
    auto request = std::make_shared<Request>();
    director_->Route(std::move(input), [request](const Routing& r) {
      ++request->answers;
      request->routed = r.ok;
      request->state = r.state;
    });
    EXPECT_EQ(request->answers.load(), 1) << i;
    EXPECT_TRUE(request->routed) << i;
    last.push_back(std::move(request));
  }
  std::printf("%lld requests, %lld routed, %lld evicted\n",
              static_cast<long long>(asked_count_.load()), static_cast<long long>(routed_.load()),
              static_cast<long long>(evictions_.load()));
  last.clear();
}

}  // namespace
}  // namespace llmd::sched
