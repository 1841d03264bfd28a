#include "request_spans.h"

#include <algorithm>
#include <string>

namespace llmd::engine::serving {

RequestSpans::RequestSpans(const ServingContext& context, const RequestMeta& meta,
                           std::string_view id)
    : context_(context), steady_(context.clock.Now()), unix_(context.clock.UnixNanos()) {
  whole_.context = meta.trace;
  whole_.parent_span_id = meta.trace_parent;
  whole_.name = "llm_request";
  whole_.kind = Span::Kind::kServer;
  whole_.start_unix_nanos = Unix(meta.arrival);
  whole_.attributes = {{"gen_ai.request.id", std::string(id)},
                       {"gen_ai.response.model", context.options.model_names.front()}};
}

// Of stamps that an engine did not set there is no part.
void RequestSpans::AddPart(std::string_view name, TimePoint begin, TimePoint end) {
  if (begin == TimePoint() || end == TimePoint()) return;
  Span& span = parts_.emplace_back();
  span.context = whole_.context.Child();
  span.parent_span_id = whole_.context.span_id;
  span.name = name;
  span.start_unix_nanos = Unix(begin);
  span.end_unix_nanos = Unix(std::max(begin, end));
}

void RequestSpans::Add(const ChildTimes& times, int remote_tokens) {
  const bool loaded = times.load_started != TimePoint();
  AddPart("llm_request.queue", times.queued, loaded ? times.load_started : times.scheduled);
  if (loaded) {
    AddPart("llm_request.kv_load", times.load_started, times.load_ended);
    parts_.back().attributes = {{"llm_d.remote_tokens", int64_t{remote_tokens}}};
  }
  AddPart("llm_request.prefill", times.scheduled, times.first_token);
  AddPart("llm_request.decode", times.first_token, times.last_token);
}

void RequestSpans::End(const openai::Usage& usage, std::string_view reason) {
  whole_.end_unix_nanos = context_.clock.UnixNanos();
  whole_.attributes.emplace_back("gen_ai.usage.input_tokens", int64_t{usage.prompt_tokens});
  whole_.attributes.emplace_back("gen_ai.usage.output_tokens", int64_t{usage.completion_tokens});
  whole_.attributes.emplace_back("gen_ai.response.finish_reason", std::string(reason));
  if (reason == "abort" || reason == "error") whole_.error = reason;
  parts_.push_back(std::move(whole_));
  context_.tracer->Submit(std::move(parts_));
}

}  // namespace llmd::engine::serving
