#include "llmd/status.h"
#include "llmd/tracing.h"

namespace llmd {

void SpanLog::Begin(std::string name, Span::Kind kind) {
  Span span;
  span.context = spans_.empty() ? root_ : root_.Child();
  span.parent_span_id = spans_.empty()  ? parent_span_id_
                        : open_.empty() ? root_.span_id
                                        : spans_[open_.back()].context.span_id;
  span.name = std::move(name);
  span.kind = kind;
  span.start_unix_nanos = clock_.UnixNanos();
  open_.push_back(spans_.size());
  spans_.push_back(std::move(span));
}

void SpanLog::Add(std::string_view key, SpanValue value) {
  LLMD_CHECK(!open_.empty());
  spans_[open_.back()].attributes.emplace_back(key, std::move(value));
}

void SpanLog::Fail(std::string message) {
  LLMD_CHECK(!open_.empty());
  spans_[open_.back()].error = std::move(message);
}

void SpanLog::End() {
  LLMD_CHECK(!open_.empty());
  spans_[open_.back()].end_unix_nanos = clock_.UnixNanos();
  open_.pop_back();
}

void SpanLog::AddToRoot(std::string_view key, SpanValue value) {
  if (!spans_.empty()) spans_[0].attributes.emplace_back(key, std::move(value));
}

std::vector<Span> SpanLog::Finish() {
  while (!open_.empty()) End();
  return std::move(spans_);
}

}  // namespace llmd
