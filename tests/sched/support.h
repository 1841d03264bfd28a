// Builders shared by the sched tests: endpoints, schedulers, a canned Fetch.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "llmd/sched/data/fetch.h"
#include "llmd/sched/scheduler.h"

namespace llmd::sched {

inline EndpointState Ep(std::string name, double waiting = 0, double running = 0, double kv = 0,
                        std::string role = "") {
  EndpointState e;
  e.info.name = std::move(name);
  e.info.address = "10.0.0.1";
  e.info.port = static_cast<uint16_t>(8000 + std::hash<std::string>()(e.info.name) % 1000);
  if (!role.empty()) e.info.labels["llm-d.ai/role"] = std::move(role);
  e.metrics.waiting = waiting;
  e.metrics.running = running;
  e.metrics.kv_usage = kv;
  e.metrics.ever = true;
  return e;
}

// A configuration with one profile of these plugin entries ("{type: queue-scorer}").
inline std::string Config(const std::vector<std::string>& plugins) {
  std::string out = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n";
  for (const std::string& p : plugins) out += "- " + p + "\n";
  return out;
}

inline std::unique_ptr<Scheduler> MakeScheduler(const std::string& yaml, uint64_t seed = 1,
                                                const Clock* clock = nullptr) {
  StatusOr<std::unique_ptr<Scheduler>> s =
      Scheduler::FromYaml(yaml, {.seed = seed, .clock = clock});
  EXPECT_TRUE(s.ok()) << s.status().ToString();
  return s.ok() ? std::move(*s) : nullptr;
}

inline RequestSpec Prompt(std::string text, std::string model = "m") {
  RequestSpec r;
  r.model = std::move(model);
  r.prompt = std::move(text);
  return r;
}

// The raw scores of the `scorer`-th scorer of the first profile, by endpoint index.
inline std::vector<double> Raw(const Decision& d, size_t scorer = 0) {
  return d.trace.profiles.at(0).scores.at(scorer).raw;
}

inline Decision Must(Scheduler& s, const RequestSpec& r, const std::vector<EndpointState>& e) {
  StatusOr<Decision> d = s.Schedule(r, e);
  EXPECT_TRUE(d.ok()) << d.status().ToString();
  return d.ok() ? std::move(*d) : Decision();
}

// Answers from a table by endpoint name; a missing entry is an error. Thread-safe.
class CannedFetch final : public Fetch {
 public:
  void Set(const std::string& name, StatusOr<std::string> page) {
    std::lock_guard lock(mutex_);
    pages_.insert_or_assign(name, std::move(page));
  }
  void Get(const EndpointInfo& endpoint, const PageSpec& page, Duration,
           std::function<void(StatusOr<std::string>)> done) override {
    StatusOr<std::string> answer = Unavailable("HTTP 500");
    {
      std::lock_guard lock(mutex_);
      asked_.push_back(endpoint.name + page.path);
      if (const auto it = pages_.find(endpoint.name); it != pages_.end()) answer = it->second;
    }
    done(std::move(answer));
  }
  std::vector<std::string> TakeAsked() {
    std::lock_guard lock(mutex_);
    return std::exchange(asked_, {});
  }

 private:
  std::mutex mutex_;
  std::map<std::string, StatusOr<std::string>> pages_;
  std::vector<std::string> asked_;
};

}  // namespace llmd::sched
