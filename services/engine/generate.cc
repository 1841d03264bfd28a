// The handlers with a body: one request to a reply, streamed or whole, ended early when its client
// leaves.
#include <atomic>

#include "engine/loop_event.h"
#include "engine/server.h"
#include "llmd/openai/error.h"

namespace llmd::services {
namespace {

namespace serving = engine::serving;

http::Response ErrorResponse(const openai::ApiError& error) {
  return http::JsonResponse(error.status, openai::ErrorBody(error));
}

const openai::ApiError kNotJson{
    400, "Bad Request", "Unsupported Media Type: Only 'application/json' is allowed", std::nullopt};

// What the worker thread is given and leaves behind; shared, for the handler may be gone first.
struct Job {
  std::string body;
  serving::RequestMeta meta;
  std::unique_ptr<serving::Reply> reply;
  std::string converted;
  openai::MaybeError error;
};

class Counted {
 public:
  Counted(std::atomic<int>& counter, bool on) : counter_(on ? &counter : nullptr) {
    if (counter_ != nullptr) counter_->fetch_add(1);
  }
  ~Counted() {
    if (counter_ != nullptr) counter_->fetch_sub(1);
  }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<int>* counter_;
};

http::ResponseHead StreamHead() {
  http::ResponseHead head;
  head.headers.Set("Content-Type", "text/event-stream; charset=utf-8");
  head.headers.Set("Cache-Control", "no-cache");
  return head;
}

// Sends frames as they come, one write for all that is ready.
http::Task<void> SendStream(http::Exchange& exchange, serving::Reply& reply,
                            std::shared_ptr<LoopEvent> event) {
  http::ResponseHead head = StreamHead();
  Status sent = co_await exchange.Start(std::move(head));
  std::string frames;
  bool finished = false;
  while (sent.ok() && !finished && !exchange.client_gone()) {
    frames.clear();
    finished = reply.Advance(frames);
    if (!frames.empty()) sent = co_await exchange.Write(frames);
    if (sent.ok() && !finished && !exchange.client_gone()) co_await event->Wait();
  }
  if (finished && sent.ok()) {
    (void)co_await exchange.Finish();
  } else {
    reply.Abort();
  }
}

http::Task<void> SendWhole(http::Exchange& exchange, serving::Reply& reply,
                           std::shared_ptr<LoopEvent> event) {
  std::string body;
  // The client may have left before the reply began: that wake-up is spent, so look before waiting.
  while (!reply.Advance(body)) {
    if (exchange.client_gone()) {
      reply.Abort();
      co_return;
    }
    co_await event->Wait();
  }
  http::Response response =
      reply.error() ? ErrorResponse(*reply.error()) : http::JsonResponse(200, std::move(body));
  (void)co_await exchange.Send(std::move(response));
}

// Reads a JSON body; the refusal has been sent when this gives nothing.
http::Task<std::shared_ptr<Job>> ReadJob(http::Exchange& exchange) {
  StatusOr<std::string> body = co_await exchange.ReadAll();
  if (!body.ok()) co_return nullptr;
  if (!IsJson(exchange.request())) {
    http::Response refused = ErrorResponse(kNotJson);
    (void)co_await exchange.Send(std::move(refused));
    co_return nullptr;
  }
  auto job = std::make_shared<Job>();
  job->body = std::move(*body);
  co_return job;
}

}  // namespace

http::Task<void> EngineServer::Generate(EngineServer& server, Begin begin,
                                        http::Exchange& exchange) {
  const Counted counted(server.load_, server.settings_.enable_server_load_tracking);
  serving::RequestMeta meta = server.Meta(exchange.request());
  Observed& observed = static_cast<ObservedExchange&>(exchange).observed;  // see Guard
  std::shared_ptr<Job> job = co_await ReadJob(exchange);
  if (job == nullptr) co_return;
  job->meta = std::move(meta);
  auto event = std::make_shared<LoopEvent>(exchange.loop());
  std::function<void()> wake = [event] { event->Set(); };
  exchange.OnClientGone(wake);
  const serving::ServingContext& context = server.context_;
  std::function<void()> work = [job, begin, &context] {
    job->error = begin(context, job->body, job->meta, &job->reply);
  };
  const Status ran = co_await RunOnWorker(server.workers_, event, std::move(work));
  if (!ran.ok()) job->error = openai::FromStatus(ran);
  if (job->error) {
    http::Response response = ErrorResponse(*job->error);
    (void)co_await exchange.Send(std::move(response));
  } else {
    const std::unique_ptr<serving::Reply> reply = std::move(job->reply);
    reply->OnReady(wake);
    if (reply->stream()) {
      co_await SendStream(exchange, *reply, event);
    } else {
      co_await SendWhole(exchange, *reply, event);
    }
    const openai::Usage usage = reply->usage();
    observed.model = context.options.model_names.front();
    observed.prompt_tokens = usage.prompt_tokens;
    observed.completion_tokens = usage.completion_tokens;
  }
  exchange.OnClientGone(nullptr);
}

http::Task<void> EngineServer::ConvertBody(EngineServer& server, Convert convert,
                                           http::Exchange& exchange) {
  std::shared_ptr<Job> job = co_await ReadJob(exchange);
  if (job == nullptr) co_return;
  auto event = std::make_shared<LoopEvent>(exchange.loop());
  const serving::ServingContext& context = server.context_;
  std::function<void()> work = [job, convert, &context] {
    job->error = convert(context, job->body, &job->converted);
  };
  const Status ran = co_await RunOnWorker(server.workers_, event, std::move(work));
  if (!ran.ok()) job->error = openai::FromStatus(ran);
  http::Response response =
      job->error ? ErrorResponse(*job->error) : http::JsonResponse(200, std::move(job->converted));
  (void)co_await exchange.Send(std::move(response));
}

}  // namespace llmd::services
