// A Director over a fixed endpoints file and canned metrics.
#pragma once

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>

#include "llmd/sched/director.h"
#include "sched/support.h"

namespace llmd::sched {

inline std::string Applied(std::string body, const std::vector<BodyEdit>& edits) {
  for (auto it = edits.rbegin(); it != edits.rend(); ++it)
    body.replace(it->begin, it->end - it->begin, it->text);
  return body;
}

// The answers to requests that may wait, in their order. A director that is not manual has a thread
// that dispatches too, so what a call brought about may come a little after the call; and an answer
// may come when the test is over.
class Answers {
 public:
  std::function<void(Routing)> To(std::string request) const {
    return [inbox = inbox_, request = std::move(request)](Routing routing) {
      const std::lock_guard lock(inbox->mutex);
      inbox->names.push_back(request);
      inbox->routings.push_back(std::move(routing));
      inbox->changed.notify_all();
    };
  }
  // The names of all so far, once there are `count`, or 5 s later.
  std::vector<std::string> Names(size_t count) const {
    std::unique_lock lock(inbox_->mutex);
    inbox_->changed.wait_for(lock, std::chrono::seconds(5),
                             [&] { return inbox_->names.size() >= count; });
    return inbox_->names;
  }
  std::vector<std::string> Names() const { return Names(0); }
  // Of the request of that place in the order; one that is not ok when there is none.
  Routing At(size_t index) const {
    const std::lock_guard lock(inbox_->mutex);
    return index < inbox_->routings.size() ? inbox_->routings[index] : Routing();
  }

 private:
  struct Inbox {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> names;
    std::vector<Routing> routings;
  };
  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
};

class DirectorFixture : public ::testing::Test {
 protected:
  ~DirectorFixture() override {
    if (director_) director_->Stop();
    std::filesystem::remove(path_);
  }
  void Start(const std::string& endpoints, const std::vector<std::string>& plugins,
             const std::string& rest = "", LogLevel level = LogLevel::kDebug) {
    static int count = 0;
    path_ = (std::filesystem::temp_directory_path() /
             ("llmd_dir_" + std::to_string(::getpid()) + "_" + std::to_string(++count) + ".yaml"))
                .string();
    std::ofstream(path_) << "endpoints: [" << endpoints << "]";
    std::vector<std::string> all = plugins;
    all.push_back("{type: file-discovery, parameters: {path: " + path_ + "}}");
    options_.config_yaml =
        Config(all) +
        "dataLayer: {injectDefaults: false, discovery: {pluginRef: file-discovery}}\n" + rest;
    auto made = Director::Create(options_, fetch_, Logger(sink_, level), metrics_, clock_);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    director_ = std::move(*made);
  }
  static std::string Two() {
    return "{name: a, address: 127.0.0.1, port: 8001}, {name: b, address: 127.0.0.1, port: 8002}";
  }
  Routing Route(const std::string& body, HeaderList headers = {},
                std::vector<std::string> subset = {}, bool has_subset = false) {
    body_ = body;
    headers_ = std::move(headers);
    if (FindHeader(headers_, ":path").empty()) headers_.emplace_back(":path", "/v1/completions");
    RequestInput input;
    input.headers = &headers_;
    input.body = body_;
    input.subset = std::move(subset);
    input.has_subset = has_subset;
    const Answers answers;
    director_->Route(std::move(input), answers.To("it"));
    answers.Names(1);
    return answers.At(0);
  }
  std::vector<std::string> Messages(const std::string& request_id = "") const {
    std::vector<std::string> out;
    for (const json::Value& line : sink_->Lines()) {
      if (request_id.empty() || line["x-request-id"].AsString() == request_id)
        out.push_back(line["msg"].AsString());
    }
    return out;
  }
  std::shared_ptr<Fetch> fetch_;
  DirectorOptions options_;
  std::string path_, body_;
  HeaderList headers_;
  std::shared_ptr<MemoryLogSink> sink_ = std::make_shared<MemoryLogSink>();
  MetricsRegistry metrics_;
  FakeClock clock_;
  std::unique_ptr<Director> director_;
};

}  // namespace llmd::sched
