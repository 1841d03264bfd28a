#include <algorithm>

#include "director/impl.h"
#include "pass/stopwatch.h"

namespace llmd::sched {
namespace {

double Seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

void ObserveTokens(const RequestSeries& series, const Usage& usage) {
  if (usage.prompt_tokens >= 0) series.input->Observe(static_cast<double>(usage.prompt_tokens));
  if (usage.completion_tokens >= 0)
    series.output->Observe(static_cast<double>(usage.completion_tokens));
  if (usage.cached_tokens >= 0) series.cached->Observe(static_cast<double>(usage.cached_tokens));
}

json::Value UsageJson(const Usage& usage) {
  return json::Object{{"prompt_tokens", usage.prompt_tokens},
                      {"completion_tokens", usage.completion_tokens},
                      {"total_tokens", std::max<int64_t>(usage.prompt_tokens, 0) +
                                           std::max<int64_t>(usage.completion_tokens, 0)}};
}

// Adds the time of its scope to the answer's.
class WorkTimer {
 public:
  WorkTimer(const Clock& clock, Duration& total) : total_(total), watch_(clock) {}
  ~WorkTimer() { total_ += watch_.Lap(); }
  TimePoint started() const { return watch_.last(); }
  WorkTimer(const WorkTimer&) = delete;
  WorkTimer& operator=(const WorkTimer&) = delete;

 private:
  Duration& total_;
  Stopwatch watch_;
};

}  // namespace

void RequestState::ObserveEnd() const {
  series->running->Add(-1);
  const double took = Seconds(clock->Now() - context.received);
  series->duration->Observe(took);
  if (!body_skipped) series->response_size->Observe(static_cast<double>(response_bytes));
  if (status != 0) responding->Observe(Seconds(response_work));
  ObserveTokens(*series, usage);
  if (usage.completion_tokens > 0)
    series->ntpot->Observe(took / static_cast<double>(usage.completion_tokens));
  if (first_chunk && sse && usage.completion_tokens > 1) {
    series->tpot->Observe(Seconds(clock->Now() - first_chunk_at) /
                          static_cast<double>(usage.completion_tokens - 1));
  }
}

void RequestState::Finish(bool aborted) {
  ResponseInfo info = Info();
  info.usage = usage;
  info.aborted = aborted;
  ForHooks([&](ResponseHook& hook) { hook.OnEnd(context, info); });
  context.charges.End();
  if (!aborted) ForHooks([&](ResponseHook& hook) { hook.Report(context, info, report); });
  ObserveEnd();
  if (usage.any() && Logs(LogLevel::kVerbose))
    Log().Log(LogLevel::kVerbose, "Response generated", {{"usage", UsageJson(usage)}});
  EndSpans(status, aborted ? "the answer did not end" : "");
}

// In all of these the request is held: the caller's pointer may go in a hook, and before the turn
// that is taken of it ends.
void DirectorImpl::OnServed(const std::shared_ptr<RequestState>& given, std::string_view endpoint) {
  const std::shared_ptr<RequestState> state = given;
  if (!state) return;
  if (const Turn turn(*state); turn) state->Served(endpoint);
}

std::vector<ReportedAttribute> DirectorImpl::TakeReport(
    const std::shared_ptr<RequestState>& given) {
  const std::shared_ptr<RequestState> state = given;
  if (!state) return {};
  const Turn turn(*state);
  return std::exchange(state->report, {});
}

ResponseInfo RequestState::Info() const {
  return {.status = status,
          .headers = nullptr,
          .endpoint = endpoint.get(),
          .fallback = fallback.get(),
          .served = served ? &*served : nullptr,
          .usage = {}};
}

void RequestState::Served(std::string_view by) {
  served = by;
  const auto is = [&](const Other& other) { return AddressOf(*other.info, port) == by; };
  const auto other = std::find_if(others.begin(), others.end(), is);
  if (other == others.end() || AddressOf(*endpoint, port) == by) return;
  fallback = other->info;
  context.charges.Move(other->life);
}

void RequestState::ReadUsage(std::string_view chunk) {
  if (reader) return reader->Feed(chunk, &usage);
  // The last one counts: continuous usage repeats and grows.
  scanner.Feed(chunk, [&](std::string_view object) { parser->ReadUsage(object, &usage); });
}

void RequestState::EndSpans(int http_status, const std::string& error) {
  if (!spans) return;
  if (http_status != 0) spans->AddToRoot("http.response.status_code", int64_t{http_status});
  if (usage.prompt_tokens >= 0) spans->AddToRoot("gen_ai.usage.input_tokens", usage.prompt_tokens);
  if (usage.completion_tokens >= 0)
    spans->AddToRoot("gen_ai.usage.output_tokens", usage.completion_tokens);
  while (spans->open() > 1) spans->End();
  if (!error.empty() && spans->open() == 1) spans->Fail(error);
  tracer->Submit(spans->Finish());
  context.spans = nullptr;
  spans.reset();
}

HeaderList DirectorImpl::OnResponseHeaders(const std::shared_ptr<RequestState>& given, int status,
                                           const HeaderList& headers) {
  const std::shared_ptr<RequestState> state = given;
  HeaderList out;
  if (!state) return out;
  const Turn turn(*state);
  if (!turn) return out;
  state->Take(Step::kAnswer);
  const WorkTimer timer(clock_, state->response_work);
  state->status = status;
  state->sse =
      FindHeader(headers, "content-type").find("text/event-stream") != std::string_view::npos ||
      state->context.streaming;
  const std::string_view encoding = FindHeader(headers, "content-encoding");
  state->encoded = !encoding.empty() && encoding != "identity";
  out.insert(out.end(), state->queue_headers.begin(), state->queue_headers.end());
  if (!state->decision_header.empty()) out.emplace_back("x-llm-d-decision", state->decision_header);
  ResponseInfo info = state->Info();
  info.headers = &headers;
  state->ForHooks([&](ResponseHook& hook) { hook.OnHeaders(state->context, info, out); });
  if (status >= 400) metrics_.Error(state->context, status);
  if (state->Logs(LogLevel::kDebug)) {
    json::Object shown;
    if (FindHeader(headers, ":status").empty())
      shown.emplace_back(":status", std::to_string(status));
    for (const auto& [name, value] : headers)
      shown.emplace_back(name, name == "set-cookie" ? "<hidden>" : value);
    json::Value response = json::Object{{"RequestId", state->context.request_id},
                                        {"Headers", std::move(shown)},
                                        {"IsStreaming", state->sse},
                                        {"EndOfStream", false}};
    state->Log().Log(LogLevel::kDebug, "LLM response assembled",
                     {{"response", std::move(response)}});
  }
  return out;
}

void DirectorImpl::OnResponseBodySkipped(const std::shared_ptr<RequestState>& given) {
  const std::shared_ptr<RequestState> state = given;
  if (!state) return;
  const Turn turn(*state);
  if (!turn) return;
  state->body_skipped = true;
  const ResponseInfo info = state->Info();
  state->ForHooks([&](ResponseHook& hook) { hook.OnFirstChunk(state->context, info); });
  state->context.charges.FirstChunk();
}

bool DirectorImpl::OnResponseBody(const std::shared_ptr<RequestState>& given,
                                  std::string_view chunk, bool end, std::string* replaced) {
  const std::shared_ptr<RequestState> state = given;
  if (!state) return false;
  bool changed = false;
  {
    const Turn turn(*state);
    if (!turn) return false;
    state->Take(Step::kAnswer);
    const WorkTimer timer(clock_, state->response_work);
    const TimePoint now = timer.started();
    if (!chunk.empty()) {
      if (!std::exchange(state->first_chunk, true)) {
        state->first_chunk_at = now;
        (state->sse ? state->series->ttft_streaming : state->series->ttft)
            ->Observe(Seconds(now - state->context.received));
        const ResponseInfo info = state->Info();
        state->ForHooks([&](ResponseHook& hook) { hook.OnFirstChunk(state->context, info); });
        state->context.charges.FirstChunk();
      } else if (state->sse) {
        state->series->itl->Observe(Seconds(now - state->last_chunk_at));
      }
      state->last_chunk_at = now;
    }
    state->response_bytes += chunk.size();
    if (state->parser && !state->encoded) {
      failures_.Run(*state->parser, state->context.request_id, [&] { state->ReadUsage(chunk); });
    }
    if (state->restorer && !state->encoded) {
      *replaced = state->restorer->Feed(chunk, end);
      changed = true;
    }
  }
  if (end) state->End(false);
  return changed;
}

}  // namespace llmd::sched
