// Spans (OpenTelemetry's data model, https://opentelemetry.io/docs/specs/otel/trace/) and their way
// out of the process. What is not sampled costs its identity only: nobody records anything for it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "llmd/clock.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/status.h"
#include "llmd/trace.h"

namespace llmd {

using SpanValue = std::variant<std::string, int64_t, double, bool>;

struct Span {
  enum class Kind { kInternal = 1, kServer = 2, kClient = 3 };  // as OTLP numbers them
  TraceContext context;
  uint64_t parent_span_id = 0;  // 0 = root
  std::string name;
  Kind kind = Kind::kInternal;
  int64_t start_unix_nanos = 0, end_unix_nanos = 0;
  std::vector<std::pair<std::string, SpanValue>> attributes;
  std::string error;  // not empty: the span failed
};

// The spans of one sampled request while it runs; they nest as they are begun. Thread-compatible.
class SpanLog {
 public:
  // `root` is the identity of the first span, `parent_span_id` what it hangs on.
  SpanLog(const TraceContext& root, uint64_t parent_span_id, const Clock& clock)
      : root_(root), parent_span_id_(parent_span_id), clock_(clock) {}

  // Begins a child of the innermost open span.
  void Begin(std::string name, Span::Kind kind = Span::Kind::kInternal);
  // Of the innermost open span.
  void Add(std::string_view key, SpanValue value);
  void Fail(std::string message);
  // Ends the innermost open span. None open is our own bug.
  void End();
  // Adds to the first span, open or not.
  void AddToRoot(std::string_view key, SpanValue value);
  // Ends all that is open and gives the spans away.
  std::vector<Span> Finish();
  size_t open() const { return open_.size(); }

 private:
  const TraceContext root_;
  const uint64_t parent_span_id_;
  const Clock& clock_;
  std::vector<Span> spans_;
  std::vector<size_t> open_;  // indexes into spans_, innermost last
};

// A span for the length of a scope; nothing at all when `log` is null.
class ScopedSpan {
 public:
  // Called `name` + `more`.
  ScopedSpan(SpanLog* log, std::string_view name, std::string_view more = {}) : log_(log) {
    if (log_ != nullptr) log_->Begin(std::string(name).append(more));
  }
  ~ScopedSpan() {
    if (log_ != nullptr) log_->End();
  }
  void Add(std::string_view key, SpanValue value) {
    if (log_ != nullptr) log_->Add(key, std::move(value));
  }
  ScopedSpan(const ScopedSpan&) = delete;
  ScopedSpan& operator=(const ScopedSpan&) = delete;

 private:
  SpanLog* const log_;
};

struct TracingOptions {
  enum class Exporter { kNone, kConsole, kOtlp };
  enum class Protocol { kGrpc, kHttpProtobuf, kHttpJson };
  enum class Sampler { kAlwaysOn, kAlwaysOff, kRatio };
  Exporter exporter = Exporter::kConsole;
  Protocol protocol = Protocol::kGrpc;
  std::string endpoint = "http://localhost:4317";  // HTTP: with the path
  // Of https endpoints, PEM files: whom to believe ("" = whom the system believes), what to show.
  std::string ca_file, certificate_file, key_file;
  std::vector<std::pair<std::string, std::string>> headers;
  Duration timeout = std::chrono::seconds(10);
  Sampler sampler = Sampler::kRatio;
  bool parent_based = true;  // a parent's decision wins over the sampler
  double ratio = 0.1;
  std::string service_name = "llm-d-epp";
  size_t max_queue = 2048, max_batch = 512;
  Duration schedule_delay = std::chrono::seconds(5);

  // Reads OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_[TRACES_]{ENDPOINT,PROTOCOL,HEADERS,TIMEOUT,
  // CERTIFICATE,CLIENT_CERTIFICATE,CLIENT_KEY}, OTEL_TRACES_SAMPLER[_ARG], OTEL_SERVICE_NAME,
  // OTEL_BSP_{SCHEDULE_DELAY,MAX_QUEUE_SIZE, MAX_EXPORT_BATCH_SIZE} and OTEL_SDK_DISABLED through
  // `get` ("" = unset); INVALID_ARGUMENT names the variable. `service_name` is used when the
  // environment has none.
  static StatusOr<TracingOptions> FromEnvironment(
      const std::function<std::string(const char* name)>& get, std::string service_name);
};

// Takes batches to where they are kept. Called by one thread at a time; blocks no longer than its
// timeout.
class SpanExporter {
 public:
  virtual ~SpanExporter() = default;
  virtual Status Export(std::span<const Span> spans) = 0;
};

// Decides what is sampled and exports it in batches from a thread of its own. Thread-safe. Bounded:
// what does not fit into the queue is dropped and counted in llm_d_epp_trace_spans_dropped_total.
class Tracer {
 public:
  Tracer(TracingOptions options, std::unique_ptr<SpanExporter> exporter, MetricsRegistry& metrics,
         Logger logger);
  ~Tracer();
  // The identity of a new span, with the sampler's decision.
  TraceContext Start(const std::optional<TraceContext>& parent) const;
  void Submit(std::vector<Span> spans);
  // Exports what is queued and joins the thread. Idempotent.
  void Stop();

 private:
  bool Samples(uint64_t trace_id_low) const;
  void Run();
  void Export(std::vector<Span> batch);

  const TracingOptions options_;
  const std::unique_ptr<SpanExporter> exporter_;
  Counter &exported_, &dropped_, &failed_;
  const Logger logger_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Span> queue_;  // guarded by mutex_
  bool stopping_ = false;    // guarded by mutex_
  std::atomic<bool> failing_{false};
  std::thread thread_;
};

// An ExportTraceServiceRequest of OTLP 1.x (opentelemetry-proto) as protobuf and as its JSON form.
std::string OtlpProtobuf(std::span<const Span> spans, std::string_view service_name);
std::string OtlpJson(std::span<const Span> spans, std::string_view service_name);
// Writes one JSON object a line, as the logs are.
std::unique_ptr<SpanExporter> ConsoleExporter(std::shared_ptr<LogSink> sink,
                                              std::string service_name);

}  // namespace llmd
