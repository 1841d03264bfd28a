#include "llmd/engine/serving/generation.h"

#include "llmd/engine/serving/metrics.h"
#include "llmd/uuid.h"
#include "request_spans.h"

namespace llmd::engine::serving {
namespace {

std::string IdList(const openai::TokenIds& ids, size_t most) {
  std::string out = "[";
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i == most) return out + ", ...]";
    if (i > 0) out += ", ";
    out += std::to_string(ids[i]);
  }
  return out + "]";
}

// At most `most` bytes, not ending inside a character.
std::string_view Shortened(std::string_view text, size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most);
}

std::string Float(float v) {
  return json::Value(static_cast<double>(v)).Dump();
}

}  // namespace

std::string DescribeSampling(const SamplingParams& p, const openai::CommonRequest& request) {
  std::string out = "SamplingParams(n=" + std::to_string(request.n);
  const auto add = [&](std::string_view name, const std::string& value) {
    out.append(", ").append(name).append("=").append(value);
  };
  const auto optional = [](const auto& v) { return v ? std::to_string(*v) : std::string("None"); };
  add("presence_penalty", Float(p.presence_penalty));
  add("frequency_penalty", Float(p.frequency_penalty));
  add("repetition_penalty", Float(p.repetition_penalty));
  add("temperature", Float(p.temperature));
  add("top_p", Float(p.top_p));
  add("top_k", std::to_string(p.top_k));
  add("min_p", Float(p.min_p));
  add("seed", optional(p.seed));
  add("stop", json::Value(json::Array(request.stop.begin(), request.stop.end())).Dump());
  add("stop_token_ids", IdList(p.stop_token_ids, 16));
  add("include_stop_str_in_output", request.include_stop_str_in_output ? "True" : "False");
  add("ignore_eos", p.ignore_eos ? "True" : "False");
  add("max_tokens", std::to_string(p.max_tokens));
  add("min_tokens", std::to_string(p.min_tokens));
  add("logprobs", optional(p.logprobs));
  add("prompt_logprobs", optional(p.prompt_logprobs));
  add("skip_special_tokens", request.skip_special_tokens ? "True" : "False");
  return out + ")";
}

Generation::Generation(const ServingContext& context, const RequestMeta& meta,
                       const openai::CommonRequest& request, std::vector<PreparedPrompt> prompts)
    : context_(context),
      request_(request),
      prompts_(std::move(prompts)),
      n_(request.n),
      mailbox_(std::make_shared<Mailbox>(prompts_.size() * n_, meta.arrival, context.clock,
                                         context.metrics)) {}

Generation::~Generation() {
  mailbox_->SetWake(nullptr);
  Abort();
}

openai::MaybeError Generation::Start(const ServingContext& context, const RequestMeta& meta,
                                     const std::string& id, const openai::CommonRequest& request,
                                     std::vector<PreparedPrompt> prompts,
                                     std::unique_ptr<Generation>* out) {
  SamplingParams sampling;
  if (auto e = MakeSampling(context, request, &sampling)) {
    if (request.kv_transfer_params.is_object())
      context.engine.DiscardTransfer(request.kv_transfer_params);
    return e;
  }
  std::unique_ptr<Generation> generation(
      new Generation(context, meta, request, std::move(prompts)));
  if (context.tracer != nullptr && meta.trace.sampled)
    generation->spans_ = std::make_unique<RequestSpans>(context, meta, id);
  if (Status status = generation->SubmitAll(meta, id, sampling); !status.ok()) {
    return openai::FromStatus(status);
  }
  *out = std::move(generation);
  return std::nullopt;
}

Status Generation::SubmitAll(const RequestMeta& meta, const std::string& id,
                             const SamplingParams& sampling) {
  const size_t count = prompts_.size() * n_;
  children_.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    children_.push_back({id + "-" + std::to_string(i),
                         Choice(static_cast<int>(i), request_, context_.tokenizer),
                         {},
                         0,
                         {},
                         0,
                         true});
    children_.back().times.arrival = meta.arrival;
    Request request = MakeChild(meta, i, sampling);
    if (context_.options.log_requests) LogReceived(request, prompts_[i / n_]);
    context_.metrics.RequestShape(n_, request.sampling.max_tokens);
    Status status = context_.engine.Submit(std::move(request));
    // Ids of clients need not be unique, and one that asks again need not wait for its first try.
    while (status.code() == StatusCode::kAlreadyExists) {
      children_.back().id = id + "-" + std::to_string(i) + "-" + NewUuid();
      status = context_.engine.Submit(MakeChild(meta, i, sampling));
    }
    if (!status.ok()) {
      children_.pop_back();
      Abort();
      return status;
    }
    ++open_;
    if (context_.options.log_requests) {
      context_.logger.Info("Added request " + children_.back().id + ".",
                           {{"request_id", children_.back().id}});
    }
  }
  return OkStatus();
}

Request Generation::MakeChild(const RequestMeta& meta, size_t index,
                              const SamplingParams& sampling) const {
  const PreparedPrompt& prompt = prompts_[index / n_];
  Request request;
  request.id = children_[index].id;
  request.prompt = prompt.ids;
  request.sampling = sampling;
  request.sampling.max_tokens = prompt.max_tokens;
  if (sampling.seed) request.sampling.seed = *sampling.seed + static_cast<int64_t>(index % n_);
  request.priority = meta.priority.value_or(request_.priority);
  request.cache_salt = request_.cache_salt;
  request.transferable = prompts_.size() * n_ == 1;
  if (index == 0) request.kv_transfer_params = request_.kv_transfer_params;
  request.on_output = [mailbox = mailbox_, index](Output&& output) {
    mailbox->Put(index, std::move(output));
  };
  return request;
}

void Generation::LogReceived(const Request& request, const PreparedPrompt& prompt) const {
  const size_t most = context_.options.max_log_chars;
  std::string line = "Received request " + request.id + ": prompt: ";
  if (prompt.text.empty()) {
    line += "None";
  } else {
    line.append("'").append(Shortened(prompt.text, most)).append("'");
  }
  line += ", params: " + DescribeSampling(request.sampling, request_);
  line += ", prompt_token_ids: " + IdList(prompt.ids, most);
  line += ", lora_request: None, prompt_adapter_request: None.";
  context_.logger.Info(line, {{"request_id", request.id}});
}

Delta Generation::Read(Mailbox::Letter&& letter) {
  Child& child = children_[letter.child];
  child.times = letter.times;
  Output& output = letter.output;
  if (output.cached_tokens > 0) child.cached_tokens = output.cached_tokens;
  if (output.remote_tokens > 0) {
    child.cached_tokens += output.remote_tokens;
    child.remote_tokens = output.remote_tokens;
  }
  if (!output.prompt_logprobs.empty()) child.prompt_logprobs = std::move(output.prompt_logprobs);
  if (output.kv_transfer_params && letter.child == 0) {
    kv_transfer_params_ = std::move(*output.kv_transfer_params);
  }
  if (output.finish == FinishReason::kError) error_ = openai::FromStatus(output.error);
  Delta delta = child.choice.Consume(std::move(output));
  if (child.choice.stopped_by_text()) context_.engine.Abort(child.id);
  if (!delta.finish_reason.empty()) Close(child, letter.child, delta.finish_reason);
  return delta;
}

std::vector<Delta> Generation::Poll() {
  std::vector<Delta> deltas;
  for (Mailbox::Letter& letter : mailbox_->Take()) {
    // The engine's answer to our own abort comes after the choice has ended.
    if (!children_[letter.child].open) continue;
    deltas.push_back(Read(std::move(letter)));
    if (!error_) continue;
    Abort();
    return {};
  }
  return deltas;
}

void Generation::Close(Child& child, size_t index, std::string_view reason) {
  child.open = false;
  --open_;
  const PreparedPrompt& prompt = prompts_[index / n_];
  context_.metrics.Finished(
      {reason, static_cast<int>(prompt.ids.size()), child.choice.completion_tokens(),
       child.cached_tokens, prompt.max_tokens},
      child.times, context_.clock.Now());
  if (spans_ == nullptr) return;
  spans_->Add(child.times, child.remote_tokens);
  if (open_ == 0) spans_->End(usage(), error_ ? "error" : reason);
}

void Generation::Abort() {
  for (size_t i = 0; i < children_.size(); ++i) {
    Child& child = children_[i];
    if (!child.open) continue;
    context_.engine.Abort(child.id);
    Close(child, i, "abort");
  }
}

openai::Usage Generation::usage() const {
  openai::Usage usage;
  int cached = 0;
  for (const PreparedPrompt& prompt : prompts_) usage.prompt_tokens += int(prompt.ids.size());
  for (size_t i = 0; i < children_.size(); ++i) {
    usage.completion_tokens += children_[i].choice.completion_tokens();
    // Choices share their prompt; its first one says what was cached.
    if (i % n_ == 0) cached += children_[i].cached_tokens;
  }
  if (context_.options.enable_prompt_tokens_details) usage.cached_tokens = cached;
  return usage;
}

}  // namespace llmd::engine::serving
