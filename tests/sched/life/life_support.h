// A Director whose one endpoint takes one request at a time, and a producer that answers when told.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "llmd/sched/discovery.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/policy.h"
#include "llmd/sched/producer.h"
#include "sched/director_support.h"

namespace llmd::sched {

// Producers of type "held-producer" put what they are asked here. Thread-safe.
class Held {
 public:
  struct Call {
    RequestContext* request = nullptr;
    std::shared_ptr<const Snapshot> snapshot;
    std::function<void(Status)> done;
  };
  void Add(Call call) {
    if (!keep) return;
    std::lock_guard lock(mutex_);
    calls_.push_back(std::move(call));
  }
  size_t size() const {
    std::lock_guard lock(mutex_);
    return calls_.size();
  }
  // Answers the one that has waited longest; false when none waits.
  bool Answer() {
    Call call;
    {
      std::lock_guard lock(mutex_);
      if (calls_.empty()) return false;
      call = std::move(calls_.front());
      calls_.pop_front();
    }
    call.done(OkStatus());
    return true;
  }
  // The same without an answer.
  bool Drop() {
    Call call;
    std::lock_guard lock(mutex_);
    if (calls_.empty()) return false;
    std::swap(call, calls_.front());
    calls_.pop_front();
    return true;
  }
  std::atomic<bool> keep = true;  // else calls are dropped at once

 private:
  mutable std::mutex mutex_;
  std::deque<Call> calls_;  // guarded by mutex_
};

class HeldProducer final : public SlowProducer {
 public:
  explicit HeldProducer(std::shared_ptr<Held> held) : held_(std::move(held)) {}
  Status Produce(RequestContext&, const Snapshot&) override { return OkStatus(); }
  void ProduceLater(RequestContext& request, const std::shared_ptr<const Snapshot>& snapshot,
                    std::function<void(Status)> done) override {
    held_->Add({&request, snapshot, std::move(done)});
  }

 private:
  const std::shared_ptr<Held> held_;
};

// Answers, then throws.
class RashProducer final : public SlowProducer {
 public:
  Status Produce(RequestContext&, const Snapshot&) override { return OkStatus(); }
  void ProduceLater(RequestContext&, const std::shared_ptr<const Snapshot>&,
                    std::function<void(Status)> done) override {
    done(OkStatus());
    throw std::runtime_error("too late");
  }
};

// Members as the test says. Of the policies it knows the objectives batch (-1) and chat (5).
class GivenMembers {
 public:
  void Set(const std::vector<std::string>& names) {
    std::vector<EndpointInfo> all;
    for (const std::string& name : names) {
      EndpointInfo& one = all.emplace_back();
      one.name = name;
      one.address = "127.0.0.1";
      one.port = static_cast<uint16_t>(8000 + (name[0] - 'a') + 1);
    }
    std::lock_guard lock(mutex_);
    members_ = std::move(all);
    if (update_) update_(members_);
  }
  void Follow(std::function<void(std::vector<EndpointInfo>)> update) {
    std::lock_guard lock(mutex_);
    update_ = std::move(update);
    update_(members_);
  }
  void Leave() {
    std::lock_guard lock(mutex_);
    update_ = nullptr;
  }

 private:
  std::mutex mutex_;
  std::vector<EndpointInfo> members_;                      // guarded by mutex_
  std::function<void(std::vector<EndpointInfo>)> update_;  // guarded by mutex_
};

class GivenDiscovery final : public Discovery {
 public:
  explicit GivenDiscovery(std::shared_ptr<GivenMembers> members) : members_(std::move(members)) {}
  void FollowPolicy(std::function<void(std::shared_ptr<const PoolPolicy>)> update) override {
    auto policy = std::make_shared<PoolPolicy>();
    policy->objectives = {{"batch", -1}, {"chat", 5}};
    update(std::move(policy));
  }
  Status Start(std::function<void(std::vector<EndpointInfo>)> update) override {
    members_->Follow(std::move(update));
    return OkStatus();
  }
  void Stop() override { members_->Leave(); }

 private:
  const std::shared_ptr<GivenMembers> members_;
};

class HeaderProbe final : public RequestHeaderHook {
 public:
  explicit HeaderProbe(std::shared_ptr<std::function<void()>> call) : call_(std::move(call)) {}
  void OnRequestHeaders(RequestContext&) override {
    if (*call_) (*call_)();
  }

 private:
  const std::shared_ptr<std::function<void()>> call_;
};

// Of a request on its way out of the Director, and of its answer: what the test says.
struct AnswerCalls {
  std::function<void()> pre_request, headers, first_chunk, end;
};

class AnswerProbe final : public PreRequestHook, public ResponseHook {
 public:
  explicit AnswerProbe(std::shared_ptr<AnswerCalls> calls) : calls_(std::move(calls)) {}
  void PreRequest(RequestContext&, const Snapshot&, const ScheduleOutcome&, HeaderList&) override {
    if (calls_->pre_request) calls_->pre_request();
  }
  void OnHeaders(RequestContext&, const ResponseInfo&, HeaderList&) override {
    if (calls_->headers) calls_->headers();
  }
  void OnFirstChunk(RequestContext&, const ResponseInfo&) override {
    if (calls_->first_chunk) calls_->first_chunk();
  }
  void OnEnd(RequestContext&, const ResponseInfo&) override {
    if (calls_->end) calls_->end();
  }

 private:
  const std::shared_ptr<AnswerCalls> calls_;
};

class LifeFixture : public DirectorFixture {
 protected:
  static constexpr char kBody[] = R"({"model":"m","prompt":"hello"})";
  struct Asked {
    HeaderList headers;
    std::shared_ptr<RequestState> state;
    std::atomic<int> answers = 0;
    Routing routing;
    std::vector<Denial> evictions;
    std::function<void(Asked&)> then;  // at the end of the callback
  };
  // While callbacks have where to write; and before the registry goes.
  void TearDown() override { End(); }
  void End() {
    if (director_) director_->Stop();
    asked_.clear();
    director_.reset();
  }

  // `flow` = more of flowControl; `plugins` beside the detector.
  void Begin(const std::string& flow = "", const std::vector<std::string>& plugins = {},
             const std::vector<std::string>& members = {"a"}) {
    Open(plugins, flow, "{type: concurrency-detector, parameters: {maxConcurrency: 1}}", members);
  }
  void Open(std::vector<std::string> plugins, const std::string& flow, const std::string& detector,
            const std::vector<std::string>& members, const std::string& chosen = "") {
    members_->Set(members);
    plugins.push_back(detector);
    Create(Yaml(plugins, flow, chosen));
  }
  void Create(const std::string& yaml) {
    options_.registry = Registry();
    options_.config_yaml = yaml;
    auto made = Director::Create(options_, fetch_, Logger(sink_, level_), *registry_, clock_);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    director_ = std::move(*made);
  }
  // `chosen` = the plugins of the profile.
  static std::string Yaml(std::vector<std::string> plugins, const std::string& flow,
                          const std::string& chosen = "") {
    plugins.push_back("{type: given-discovery}");
    plugins.push_back("{type: header-probe}");
    plugins.push_back("{type: answer-probe}");
    return Config(plugins) +
           "dataLayer: {injectDefaults: false, discovery: {pluginRef: given-discovery}}\n"
           "schedulingProfiles: [{name: p, plugins: [" +
           chosen +
           "]}]\nfeatureGates: [flowControl]\nflowControl: "
           "{saturationDetector: {pluginRef: concurrency-detector}" +
           flow + "}\n";
  }
  // The same configuration without flow control.
  static std::string Ungated(std::string yaml) {
    const std::string gate = "featureGates: [flowControl]\n";
    return yaml.erase(yaml.find(gate), gate.size());
  }
  std::shared_ptr<const PluginRegistry> Registry() {
    PluginRegistry registry = BuiltinPlugins();
    const auto add = [&](const char* type, auto make) {
      const Status added =
          AddPlugin(registry, {.type = type,
                               .kind = "test",
                               .make = [make](PluginArgs&) -> StatusOr<std::unique_ptr<Plugin>> {
                                 return std::unique_ptr<Plugin>(make());
                               }});
      EXPECT_TRUE(added.ok()) << added.ToString();
    };
    add("held-producer", [held = held_] { return std::make_unique<HeldProducer>(held); });
    add("given-discovery", [m = members_] { return std::make_unique<GivenDiscovery>(m); });
    add("rash-producer", [] { return std::make_unique<RashProducer>(); });
    add("answer-probe", [c = calls_] { return std::make_unique<AnswerProbe>(c); });
    add("header-probe", [c = on_headers_] { return std::make_unique<HeaderProbe>(c); });
    return std::make_shared<const PluginRegistry>(std::move(registry));
  }
  Asked* Ask(const std::string& objective, HeaderList more = {},
             std::function<void(Asked&)> then = nullptr) {
    Asked* asked = nullptr;
    {
      std::lock_guard lock(asked_mutex_);
      asked = &asked_.emplace_back();
    }
    asked->then = std::move(then);
    asked->headers = std::move(more);
    asked->headers.emplace_back(":path", "/v1/completions");
    if (!objective.empty()) asked->headers.emplace_back("x-llm-d-inference-objective", objective);
    RequestInput input;
    input.headers = &asked->headers;
    input.body = kBody;
    input.state = &asked->state;
    input.evicted = [asked](const Denial& d) { asked->evictions.push_back(d); };
    director_->Route(std::move(input), [asked](Routing r) {
      asked->routing = std::move(r);
      ++asked->answers;
      if (asked->then) asked->then(*asked);
    });
    return asked;
  }
  // The director's own thread may be the one that dispatches it.
  static void Answered(const Asked& asked) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (asked.answers == 0 && std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_EQ(asked.answers, 1);
  }
  // Ends the program where a deadlock would hang it.
  static void Returns(const std::function<void()>& call) {
    std::future<void> done = std::async(std::launch::async, call);
    if (done.wait_for(std::chrono::seconds(20)) == std::future_status::ready) return;
    std::fprintf(stderr, "a call into the Director did not return\n");
    std::_Exit(1);
  }

  LogLevel level_ = LogLevel::kDefault;
  std::unique_ptr<MetricsRegistry> registry_ = std::make_unique<MetricsRegistry>();
  std::shared_ptr<GivenMembers> members_ = std::make_shared<GivenMembers>();
  std::shared_ptr<std::function<void()>> on_headers_ = std::make_shared<std::function<void()>>();
  std::shared_ptr<AnswerCalls> calls_ = std::make_shared<AnswerCalls>();
  std::shared_ptr<Held> held_ = std::make_shared<Held>();
  std::mutex asked_mutex_;
  std::deque<Asked> asked_;  // growth guarded by asked_mutex_
};

}  // namespace llmd::sched
