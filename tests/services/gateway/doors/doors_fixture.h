// Doors over a file of keys, and requests to knock with.
#pragma once

#include <gtest/gtest.h>

#include "gateway/doors/doors.h"
#include "support.h"

namespace llmd::doors {

class DoorsFixture : public ::testing::Test {
 protected:
  // Adds a key to the file of keys, which the doors opened later use.
  void AddKey(std::string id, std::string_view secret,
              const std::function<void(KeyRecord&)>& change = {}) {
    KeyRecord key;
    key.id = std::move(id);
    key.sha256 = HashSecret(secret);
    key.tenant = "acme";
    if (change) change(key);
    keys_.push_back(std::move(key));
    options_.keys_file = folder_.Write("keys.yaml", FormatKeyFile(keys_));
  }
  void Open() {
    auto doors = Doors::Create(options_, logger_, registry_, clock_);
    ASSERT_TRUE(doors.ok()) << doors.status().ToString();
    doors_ = std::move(*doors);
    lane_ = std::make_unique<Lane>(*doors_, 0);
  }
  Admission& Knock(std::string_view method, std::string_view target, const TestLines& lines,
                   std::string_view body = {}, std::string_view peer = "192.0.2.1") {
    const DoorRequest request{method, target, Span(lines), Ip(peer), clock_.Now()};
    lane_->Admit(request, body, {}, admission_);
    return admission_;
  }
  // A completion for a model with a key.
  Admission& Ask(std::string_view model, std::string_view secret, TestLines lines = {}) {
    authorization_ = "Bearer " + std::string(secret);
    if (!secret.empty()) lines.push_back({"Authorization", authorization_});
    body_ = R"({"model":")" + std::string(model) + R"(","prompt":"hello","max_tokens":10})";
    return Knock("POST", "/v1/completions", lines, body_);
  }
  // An engine of the only pool that lists these models.
  void Serve(const std::string& engine, std::string_view page, const std::string& pool = "") {
    ASSERT_TRUE(doors_->catalogue().SetMembers(pool, {{engine, true}}).ok());
    ASSERT_TRUE(doors_->catalogue().Learn({pool, engine}, 200, page, clock_.Now()).ok());
  }
  bool Counted(std::string_view line) { return registry_.Expose().find(line) != std::string::npos; }

  TempFolder folder_;
  FakeClock clock_;
  MetricsRegistry registry_;
  std::shared_ptr<MemoryLogSink> log_ = std::make_shared<MemoryLogSink>();
  Logger logger_{log_, LogLevel::kInfo};
  std::vector<KeyRecord> keys_;
  DoorOptions options_ = [] {
    DoorOptions out;
    out.paths.allow = DefaultAllowedPaths();
    out.all_clients.connections = 100;
    return out;
  }();
  std::string authorization_, body_;
  Admission admission_;
  std::unique_ptr<Doors> doors_;
  std::unique_ptr<Lane> lane_;
};

}  // namespace llmd::doors
