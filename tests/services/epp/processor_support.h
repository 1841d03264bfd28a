// What the tests of the Processor share.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "epp/processor.h"

namespace llmd::epp {
using Kind = Answer::Kind;

// Answers at once, or keeps the callback when `hold` is set.
class FakeDirector final : public sched::Director {
 public:
  void Route(sched::RequestInput input, std::function<void(sched::Routing)> done) override {
    ++routes;
    body = std::string(input.body);
    had_body = input.has_body;
    subset = input.subset;
    headers = *input.headers;
    if (input.state != nullptr) *input.state = state;
    evict = std::move(input.evicted);
    if (hold) {
      held = std::move(done);
    } else {
      done(routing);
    }
  }
  void Cancel(const std::shared_ptr<sched::RequestState>&) override { ++cancels; }
  HeaderList OnResponseHeaders(const std::shared_ptr<sched::RequestState>&, int status,
                               const HeaderList&) override {
    response_status = status;
    return {{"x-from-hook", "1"}};
  }
  void OnServed(const std::shared_ptr<sched::RequestState>&, std::string_view endpoint) override {
    served.emplace_back(endpoint);
  }
  std::vector<sched::ReportedAttribute> TakeReport(
      const std::shared_ptr<sched::RequestState>&) override {
    return response_ends > 0 ? report : std::vector<sched::ReportedAttribute>();
  }
  bool OnResponseBody(const std::shared_ptr<sched::RequestState>&, std::string_view chunk, bool end,
                      std::string* out) override {
    response_body += chunk;
    response_ends += end;
    if (end && !at_end.empty()) *out = std::exchange(at_end, "");
    if (!out->empty()) return true;
    *out = replace;
    return !replace.empty();
  }
  void OnResponseBodySkipped(const std::shared_ptr<sched::RequestState>&) override { ++skips; }
  bool wants_response_body() const override { return true; }
  bool ready() const override { return true; }
  std::vector<sched::EndpointInfo> Endpoints() const override { return {}; }
  StatusOr<std::string> Explain(std::string_view) const override { return NotFound("none"); }
  void Stop() override {}

  // A director's own state is opaque; any address will do to tell it apart.
  std::shared_ptr<int> marker = std::make_shared<int>(0);
  std::shared_ptr<sched::RequestState> state{marker,
                                             reinterpret_cast<sched::RequestState*>(marker.get())};
  sched::Routing routing;
  bool hold = false, had_body = false;
  std::function<void(sched::Routing)> held;
  std::function<void(const sched::Denial&)> evict;
  int skips = 0;
  int routes = 0, cancels = 0, response_status = 0, response_ends = 0;
  std::string body, response_body, replace;
  std::string at_end;  // held back until the end
  std::vector<std::string> subset, served;
  std::vector<sched::ReportedAttribute> report;
  HeaderList headers;
};

struct Recorded {
  Kind kind;
  std::string body;
  bool end = false;
  int status = 0;
  HeaderList set;
  std::vector<std::string> removed;
  std::string destination;
  bool streamed = true, unchanged = false, skip_bodies = false;
  std::vector<std::string> reported = {};
};

class RecordingSink final : public AnswerSink {
 public:
  void Emit(const Answer& a) override {
    answers.push_back({a.kind, std::string(a.body), a.end_of_stream, a.status, a.set_headers,
                       a.remove_headers, a.destination, a.streamed, a.unchanged, a.skip_bodies});
    for (const sched::ReportedAttribute& r : a.report) answers.back().reported.push_back(r.name);
  }
  void Abort(const Status& status) override { aborts.push_back(status.message()); }
  void EndAnswers() override { ++ended; }
  std::vector<Kind> Kinds() const {
    std::vector<Kind> out;
    for (const Recorded& r : answers) out.push_back(r.kind);
    return out;
  }
  std::string Body(Kind kind) const {
    std::string out;
    for (const Recorded& r : answers) out += r.kind == kind ? r.body : "";
    return out;
  }
  std::vector<Recorded> answers;
  std::vector<std::string> aborts;
  int ended = 0;
};

class ProcessorTest : public testing::Test {
 protected:
  ProcessorTest() {
    director.routing.ok = true;
    director.routing.endpoints = {"10.0.0.1:8000"};
    director.routing.state = director.state;
  }
  std::shared_ptr<Processor> Make(ProcessorOptions options = {}) {
    return std::make_shared<Processor>(director, sink, options);
  }
  FakeDirector director;
  std::shared_ptr<RecordingSink> sink = std::make_shared<RecordingSink>();
  const HeaderList post{{":method", "POST"}, {":path", "/v1/completions"}};
};

}  // namespace llmd::epp
