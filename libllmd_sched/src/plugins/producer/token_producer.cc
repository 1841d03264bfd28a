// TokenizedPrompt, by estimate or rendered by an engine (docs/reference/producers.md).
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>

#include "llmd/sched/data/fetch.h"
#include "llmd/sched/producer.h"
#include "llmd/sched/wait_limit.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/parser/body_reader.h"
#include "plugins/producer/token_estimate.h"

namespace llmd::sched {
namespace {

bool HasPrompt(const RequestContext& request) {
  return request.has_body && request.api != Api::kNone;
}

class EstimatingProducer final : public Producer {
 public:
  EstimatingProducer(MediaEstimate media, DataKey key) : media_(media), key_(key) {}
  Status Produce(RequestContext& request, const Snapshot&) override {
    if (!HasPrompt(request)) return OkStatus();
    Attribute& out = request.Put(key_);
    Status status = EstimateTokens(request, media_, out);
    if (!status.ok()) out.Clear();
    return status;
  }

 private:
  const MediaEstimate media_;
  const DataKey key_;
};

struct RenderSettings {
  std::string url, model;
  Duration timeout = std::chrono::seconds(5), media_timeout = std::chrono::seconds(30);
};

// {"token_ids": […], "features": {…}}, one a prompt.
Status ReadRendered(std::string_view text, Attribute& out) {
  std::vector<json::Span> items = {{0, text.size()}};
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin != std::string_view::npos && text[begin] == '[') {
    text.remove_prefix(begin);
    LLMD_ASSIGN_OR_RETURN(items, json::ScanArray(text));
  }
  for (const json::Span& span : items) {
    const std::string_view item = span.In(text);
    LLMD_ASSIGN_OR_RETURN(const auto members, json::ScanObject(item));
    const json::ScannedMember* ids = json::FindMember(members, item, "token_ids");
    if (ids == nullptr || !ids->value.In(item).starts_with('['))
      return Unavailable("the rendered prompt holds no token_ids");
    ReadTokenIds(ids->value.In(item), out.tokens);
    if (const json::ScannedMember* features = json::FindMember(members, item, "features"))
      ReadFeatures(features->value.In(item), out.bounds.size(), out.media);
    out.bounds.push_back(out.tokens.size());
  }
  out.exact = true;
  return OkStatus();
}

// Prompts that an engine was asked for. Whoever takes one first ends it: the engine's answer, or
// the passing of time. Thread-safe.
class Renderings {
 public:
  static constexpr size_t kMaxWaiting = 1024;
  struct One {
    RequestContext* request = nullptr;
    std::function<void(Status)> done;
    TimePoint until{};
    bool answered = false;  // the answer is being read
  };

  // Its key; 0 = too many wait.
  uint64_t Add(One one) {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= kMaxWaiting) return 0;
    waiting_.emplace(++last_, std::move(one));
    return last_;
  }
  // It was answered: its request, which is the caller's until End; null = its time was over.
  RequestContext* Begin(uint64_t key) {
    const std::lock_guard lock(mutex_);
    const auto it = waiting_.find(key);
    if (it == waiting_.end()) return nullptr;
    it->second.answered = true;
    return it->second.request;
  }
  // What to call.
  std::function<void(Status)> End(uint64_t key) {
    std::function<void(Status)> done;
    {
      const std::lock_guard lock(mutex_);
      const auto it = waiting_.find(key);
      done = std::move(it->second.done);
      waiting_.erase(it);
    }
    read_.notify_all();
    return done;
  }
  // Those whose time is over; waits for those of them that are being read.
  std::vector<One> Over(TimePoint now) {
    std::vector<One> out;
    std::unique_lock lock(mutex_);
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      const bool over = it->second.until <= now && !it->second.answered;
      if (over) out.push_back(std::move(it->second));
      it = over ? waiting_.erase(it) : std::next(it);
    }
    read_.wait(lock, [&] {
      return std::none_of(waiting_.begin(), waiting_.end(), [&](const auto& w) {
        return w.second.until <= now && w.second.answered;
      });
    });
    return out;
  }
  TimePoint NextOver() const {
    TimePoint next = TimePoint::max();
    const std::lock_guard lock(mutex_);
    for (const auto& [key, one] : waiting_) next = std::min(next, one.until);
    return next;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable read_;
  std::map<uint64_t, One> waiting_;  // in order of arrival; guarded by mutex_
  uint64_t last_ = 0;                // guarded by mutex_
};

// What cannot be rendered is estimated: a poor prompt is better than none.
class RenderingProducer final : public SlowProducer, public WaitLimited {
 public:
  RenderingProducer(RenderSettings settings, std::shared_ptr<Fetch> fetch, DataKey key,
                    PluginArgs& args)
      : s_(std::move(settings)),
        fetch_(std::move(fetch)),
        key_(key),
        clock_(*args.env.clock),
        logger_(args.env.logger) {
    const auto counter = [&](const char* reason) {
      return &args.env.metrics->AddCounter(
          "llm_d_epp_prompts_not_rendered_total",
          "Prompts whose tokens were estimated since no engine rendered them",
          {{"plugin_name", args.name}, {"reason", reason}});
    };
    no_renderer_ = counter("api");
    cannot_wait_ = counter("cannot_wait");
    busy_ = counter("busy");
    failed_ = counter("failed");
  }

  Status Produce(RequestContext& request, const Snapshot&) override {
    if (!HasPrompt(request)) return OkStatus();
    if (!IsTokens(request)) cannot_wait_->Add();
    return Estimate(request);
  }

  TimePoint DueAt(TimePoint) const override { return renderings_->NextOver(); }
  // Its own time limits come first.
  Duration WaitLimit() const override {
    constexpr Duration kLater = std::chrono::seconds(1);
    return std::min(std::max(s_.timeout, s_.media_timeout), Duration::max() - kLater) + kLater;
  }
  void Tick(TimePoint now) override {
    const bool stops = now == TimePoint::max();
    for (const Renderings::One& one : renderings_->Over(now)) {
      one.done(stops ? Unavailable("the director stops")
                     : Rendered(DeadlineExceeded("no answer in time"), *one.request));
    }
  }
  void ProduceLater(RequestContext& request, const std::shared_ptr<const Snapshot>&,
                    std::function<void(Status)> done) override {
    if (!HasPrompt(request)) return done(OkStatus());
    if (IsTokens(request)) return done(Estimate(request));
    const bool chat = request.api == Api::kChat;
    if (!chat && request.api != Api::kCompletions) {
      no_renderer_->Add();
      return done(Estimate(request));
    }
    const Duration timeout = HasMedia(request) ? s_.media_timeout : s_.timeout;
    std::string body = BodyOf(request);  // nothing may throw once it waits
    const TimePoint now = clock_.Now();
    const uint64_t key = renderings_->Add(
        {.request = &request,
         .done = done,
         .until = timeout < TimePoint::max() - now ? now + timeout : TimePoint::max()});
    if (key == 0) {
      busy_->Add();
      return done(Estimate(request));
    }
    const std::string url =
        s_.url + (chat ? "/v1/chat/completions/render" : "/v1/completions/render");
    done = nullptr;
    // While it waits this producer is there.
    fetch_->Post(url, std::move(body), timeout,
                 [this, key, all = renderings_](const StatusOr<std::string>& answer) {
                   RequestContext* const asked = all->Begin(key);
                   if (asked == nullptr) return;
                   Status status = Rendered(answer, *asked);
                   all->End(key)(std::move(status));
                 });
  }

 private:
  static bool IsTokens(const RequestContext& request) {
    if (request.has_prompt_tokens || request.api == Api::kGenerate) return true;
    const std::string_view prompt = RawMember(request, "prompt");
    const size_t first = prompt.find_first_not_of(" \t\r\n[");
    return prompt.starts_with('[') && first != std::string_view::npos && prompt[first] >= '0' &&
           prompt[first] <= '9';
  }
  static bool HasMedia(const RequestContext& request) {
    for (const char* key : {"\"image_url\"", "\"video_url\"", "\"input_audio\"", "\"audio_url\""}) {
      if (request.prompt_json.find(key) != std::string_view::npos) return true;
    }
    return false;
  }
  Status Estimate(RequestContext& request) const {
    Attribute& out = request.Put(key_);
    Status status = EstimateTokens(request, MediaEstimate(), out);
    if (!status.ok()) out.Clear();
    return status;
  }
  Status Rendered(const StatusOr<std::string>& answer, RequestContext& request) {
    Attribute& out = request.Put(key_);
    const Status status = answer.ok() ? ReadRendered(*answer, out) : answer.status();
    if (status.ok()) {
      if (failing_.exchange(false, std::memory_order_relaxed))
        logger_.Info("prompts are rendered again", {{"url", s_.url}});
      return status;
    }
    out.Clear();
    failed_->Add();
    // One line an outage.
    if (!failing_.exchange(true, std::memory_order_relaxed))
      logger_.Warn("prompts are not rendered: their tokens are estimated",
                   {{"url", s_.url}, {"error", status.message()}});
    return Estimate(request);
  }
  // The client's JSON with the tokenizer's model.
  std::string BodyOf(const RequestContext& request) const {
    std::string quoted;
    json::AppendQuoted(quoted, s_.model);
    if (request.prompt_text.data() != nullptr) {
      std::string prompt;
      json::AppendQuoted(prompt, request.prompt_text);
      return "{\"model\":" + quoted + ",\"prompt\":" + prompt + "}";
    }
    std::string out(request.body.substr(request.json_begin));
    if (!request.frames.empty()) out.resize(static_cast<size_t>(request.frames[0].value));
    // The last of two keys counts.
    const size_t end = out.rfind('}');
    out.insert(end, (request.members.empty() ? "\"model\":" : ",\"model\":") + quoted);
    return out;
  }

  const RenderSettings s_;
  const std::shared_ptr<Fetch> fetch_;
  const DataKey key_;
  const Clock& clock_;
  const Logger logger_;
  // The calls of fetch_ share them: they may come when the producer is gone.
  const std::shared_ptr<Renderings> renderings_ = std::make_shared<Renderings>();
  // By why a prompt was not rendered.
  Counter *no_renderer_, *cannot_wait_, *busy_, *failed_;
  std::atomic<bool> failing_{false};  // the last call
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  MediaEstimate media;
  Params estimate(params.node("estimate")), vllm(params.node("vllm"));
  media.Read(estimate);
  RenderSettings render;
  render.model = params.String("modelName", "");
  render.url = vllm.String("url", "http://localhost:8000");
  render.timeout = vllm.Time("timeout", render.timeout);
  render.media_timeout = vllm.Time("mmTimeout", render.media_timeout);
  for (Params* child : {&estimate, &vllm}) {
    if (Status status = child->Finish(); !status.ok()) params.Fail(status);
  }
  const DataKey key = args.env.Produce("TokenizedPrompt");
  const bool renders = params.Has("vllm") || !render.model.empty();
  if (!renders) return Done(params, std::make_unique<EstimatingProducer>(media, key));
  if (params.Has("estimate")) params.Fail("estimate", "expected either estimate or vllm");
  if (render.model.empty())
    params.Fail(params.Has("modelName") ? "modelName" : "vllm", "vllm needs a modelName");
  if (!render.url.starts_with("http://") && !render.url.starts_with("https://"))
    vllm.Fail("url", "expected http[s]://host:port");
  while (render.url.ends_with('/')) render.url.pop_back();
  if (Status status = vllm.Collected(); !status.ok()) params.Fail(status);
  std::shared_ptr<Fetch> fetch = args.env.fetch;
  if (fetch == nullptr) {
    args.env.Warn("prompts are not rendered here but estimated: nothing can call an engine");
    fetch = std::make_shared<NoFetch>();
  }
  return Done(params,
              std::make_unique<RenderingProducer>(std::move(render), std::move(fetch), key, args));
}

}  // namespace

Status RegisterTokenProducer(PluginRegistry& registry) {
  for (const char* type : {"token-producer", "tokenizer"}) {
    LLMD_RETURN_IF_ERROR(AddPlugin(
        registry,
        {.type = type,
         .kind = "producer",
         .stability = type[5] == '-' ? Stability::kBeta : Stability::kDeprecated,
         .help = "The prompt's tokens: estimated, 4 bytes of text are one and media by their size; "
                 "or rendered by an engine.",
         .params =
             {{"estimate.image.mode", "dynamic",
               "dynamic = pixels over a factor, static = a constant"},
              {"estimate.image.defaultResolution", "{width: 640, height: 360}",
               "of pictures that are not in the request"},
              {"estimate.image.dynamic.factor", "1024", "pixels a token"},
              {"estimate.image.static.staticToken", "1", "tokens a picture"},
              {"estimate.video.tokensPerFrame.mode", "dynamic", "as image.mode, for one frame"},
              {"estimate.video.tokensPerFrame.dynamic.factor", "1024", "pixels a token"},
              {"estimate.video.tokensPerFrame.static.numTokensPerFrame", "1", "tokens a frame"},
              {"estimate.video.frames.mode", "sampled",
               "sampled = duration · sampleFPS, strided = duration · source rate / frameStride"},
              {"estimate.video.frames.minFrames", "0", "0 = none"},
              {"estimate.video.frames.maxFrames", "0", "0 = no bound"},
              {"estimate.video.frames.sampled.sampleFPS", "2", "frames a second"},
              {"estimate.video.frames.sampled.temporalPatchSize", "1", "frames counted as one"},
              {"estimate.video.frames.strided.defaultSourceFPS", "24",
               "without header x-llm-d-video-fps"},
              {"estimate.video.frames.strided.frameStride", "1", "every n-th frame counts"},
              {"estimate.video.defaultResolution", "{width: 640, height: 360}",
               "without header x-llm-d-video-resolution"},
              {"estimate.video.defaultDuration", "10",
               "seconds, without header x-llm-d-video-duration-seconds"},
              {"estimate.video.maxVideoTokens", "0", "0 = no bound"},
              {"vllm.url", "http://localhost:8000",
               "engine that renders chat and completion prompts (/render); needs modelName"},
              {"vllm.timeout", "5s", "of a call for text"},
              {"vllm.mmTimeout", "30s", "of a call with media"},
              {"modelName", "", "whose tokenizer; selects vllm"}},
         .make = Make}));
  }
  return OkStatus();
}

}  // namespace llmd::sched
