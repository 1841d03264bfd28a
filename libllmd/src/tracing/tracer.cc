#include <algorithm>
#include <cmath>

#include "llmd/tracing.h"

namespace llmd {

Tracer::Tracer(TracingOptions options, std::unique_ptr<SpanExporter> exporter,
               MetricsRegistry& metrics, Logger logger)
    : options_(std::move(options)),
      exporter_(std::move(exporter)),
      exported_(metrics.AddCounter("llm_d_epp_trace_spans_exported_total",
                                   "Spans handed to the trace exporter")),
      dropped_(metrics.AddCounter("llm_d_epp_trace_spans_dropped_total",
                                  "Spans dropped because the export queue was full")),
      failed_(
          metrics.AddCounter("llm_d_epp_trace_spans_failed_total", "Spans lost in failed exports")),
      logger_(std::move(logger)),
      thread_([this] { Run(); }) {}

Tracer::~Tracer() {
  Stop();
}

// As OpenTelemetry's TraceIdRatioBased in Go: the low 63 bits against the ratio, so that services
// of one trace agree.
bool Tracer::Samples(uint64_t trace_id_low) const {
  switch (options_.sampler) {
    case TracingOptions::Sampler::kAlwaysOn:
      return true;
    case TracingOptions::Sampler::kAlwaysOff:
      return false;
    case TracingOptions::Sampler::kRatio:
      break;
  }
  if (options_.ratio >= 1) return true;
  return trace_id_low >> 1 < static_cast<uint64_t>(std::ldexp(options_.ratio, 63));
}

TraceContext Tracer::Start(const std::optional<TraceContext>& parent) const {
  TraceContext context = parent ? parent->Child() : TraceContext::NewRoot(false);
  if (!parent || !options_.parent_based) context.sampled = Samples(context.trace_id_low);
  return context;
}

void Tracer::Submit(std::vector<Span> spans) {
  bool full_batch = false;
  {
    std::lock_guard lock(mutex_);
    const size_t room = options_.max_queue - std::min(options_.max_queue, queue_.size());
    const size_t taken = stopping_ ? 0 : std::min(room, spans.size());
    for (size_t i = 0; i < taken; ++i) queue_.push_back(std::move(spans[i]));
    if (taken < spans.size()) dropped_.Add(static_cast<double>(spans.size() - taken));
    full_batch = queue_.size() >= options_.max_batch;
  }
  if (full_batch) wake_.notify_one();
}

void Tracer::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait_for(lock, options_.schedule_delay,
                   [this] { return stopping_ || queue_.size() >= options_.max_batch; });
    while (!queue_.empty()) {
      const size_t n = std::min(options_.max_batch, queue_.size());
      const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(n);
      std::vector<Span> batch(std::make_move_iterator(queue_.begin()),
                              std::make_move_iterator(end));
      queue_.erase(queue_.begin(), end);
      lock.unlock();
      Export(std::move(batch));
      lock.lock();
    }
    if (stopping_) return;
  }
}

void Tracer::Export(std::vector<Span> batch) {
  const Status status = exporter_->Export(batch);
  (status.ok() ? exported_ : failed_).Add(static_cast<double>(batch.size()));
  // Once per outage.
  if (failing_.exchange(!status.ok()) != status.ok()) return;
  if (!status.ok()) {
    logger_.Warn("Spans not exported", {{"error", status.message()}});
  } else {
    logger_.Info("Spans exported again");
  }
}

void Tracer::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

}  // namespace llmd
