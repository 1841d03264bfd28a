// A Director over a fixed endpoints file and canned metrics.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "llmd/sched/director.h"
#include "sched/support.h"

namespace llmd::sched {

inline std::string Applied(std::string body, const std::vector<BodyEdit>& edits) {
  for (auto it = edits.rbegin(); it != edits.rend(); ++it)
    body.replace(it->begin, it->end - it->begin, it->text);
  return body;
}

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
    Routing out;
    director_->Route(std::move(input), [&](Routing r) { out = std::move(r); });
    return out;
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
