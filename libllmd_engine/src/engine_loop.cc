// The engine thread's half of EngineImpl.
#include <algorithm>

#include "engine_impl.h"

namespace llmd::engine {
namespace {

bool IsFatal(const Status& status) {
  return status.code() == StatusCode::kInternal || status.code() == StatusCode::kDataLoss;
}

}  // namespace

void EngineImpl::Run() {
  bool busy = false;
  while (Drain(/*wait=*/!busy)) busy = Step();
  EndAll(FinishReason::kAbort, OkStatus());
  Publish();
  Deliver();
  // Whoever still waits for an answer to a command gets one.
  std::lock_guard lock(mutex_);
  for (Command& command : commands_) {
    if (command.reset != nullptr) command.reset->set_value(Unavailable("the engine is stopping"));
  }
  commands_.clear();
}

// False when the engine stops.
bool EngineImpl::Drain(bool wait) {
  {
    std::unique_lock lock(mutex_);
    if (wait) wake_.wait(lock, [this] { return stopping_ || !commands_.empty(); });
    drained_.swap(commands_);
    if (stopping_) {
      // Submits that nobody saw yet end like the others; the rest is answered in Run.
      for (Command& command : drained_) {
        if (command.kind == Command::Kind::kSubmit) {
          Sequence& s = *command.sequence;
          by_number_.emplace(s.number, &s);
          sequences_.emplace(s.request.id, std::move(command.sequence));
        } else if (command.reset != nullptr) {
          commands_.push_back(std::move(command));
        }
      }
      drained_.clear();
      return false;
    }
  }
  for (Command& command : drained_) Handle(command);
  drained_.clear();
  return true;
}

void EngineImpl::Handle(Command& command) {
  switch (command.kind) {
    case Command::Kind::kSubmit: {
      Sequence* s = command.sequence.get();
      by_number_.emplace(s->number, s);
      sequences_.emplace(s->request.id, std::move(command.sequence));
      if (failed_) {
        EndEarly(*s, FinishReason::kError, Unavailable("the engine has failed"));
      } else {
        scheduler_->Add(s);
      }
      return;
    }
    case Command::Kind::kAbort:
      if (auto it = sequences_.find(command.id); it != sequences_.end()) {
        EndEarly(*it->second, FinishReason::kAbort, OkStatus());
      }
      return;
    case Command::Kind::kPulled:
      return OnPulled(command.number, command.result);
    case Command::Kind::kReleased:
      return connector_->Release(command.id);
    case Command::Kind::kReset:
      command.reset->set_value(
          pool_.Reset() ? OkStatus()
                        : FailedPrecondition(std::to_string(pool_.num_usable() - pool_.num_free()) +
                                             " blocks are in use"));
      return;
  }
}

void EngineImpl::OnPulled(uint64_t number, const kv::PullResult& result) {
  if (auto zombie = zombies_.find(number); zombie != zombies_.end()) {
    scheduler_->FreeBlocks(zombie->second.get());
    zombies_.erase(zombie);
    return;
  }
  auto it = by_number_.find(number);
  if (it == by_number_.end() || it->second->state != SequenceState::kWaitingForRemote) return;
  Sequence& s = *it->second;
  s.load_ended = clock_->Now();
  s.load_started = s.load_ended - result.elapsed;
  const int wanted = connector_->ExternalTokens(s, s.load_local_tokens);
  int good = wanted;
  if (result.status.ok()) {
    logger_.Log(LogLevel::kDefault, "remote KV arrived",
                {{"request_id", s.request.id},
                 {"remote_engine_id", s.transfer->remote_engine_id},
                 {"lane", result.lane},
                 {"blocks", result.blocks_read},
                 {"bytes", result.bytes},
                 {"seconds", std::chrono::duration<double>(result.elapsed).count()}});
  } else {
    const int first_bad =
        result.failed.empty() ? 0 : *std::min_element(result.failed.begin(), result.failed.end());
    good = std::min(first_bad * options_.block_size, wanted);
    ++totals_.kv_load_failures;
    logger_.Warn("remote KV did not arrive, computing it here",
                 {{"request_id", s.request.id},
                  {"remote_engine_id", s.transfer->remote_engine_id},
                  {"missing_tokens", wanted - good},
                  {"error", result.status.ToString()}});
  }
  scheduler_->LoadFinished(&s, good);
}

// False when there is nothing to do until the next command.
bool EngineImpl::Step() {
  const StepPlan& plan = scheduler_->Schedule();
  if (!plan.items.empty()) {
    ++totals_.steps;
    totals_.max_rows_in_step =
        std::max(totals_.max_rows_in_step, static_cast<int>(plan.items.size()));
    const TimePoint now = clock_->Now();
    for (const ScheduledSequence& item : plan.items) {
      if (!item.sequence->dequeued) item.sequence->scheduled = now;
      NoLongerQueued(*item.sequence);
    }
    const StepBatch batch = buffers_.Build(plan, options_.block_size);
    const Status status = model_->Forward(batch, buffers_.logits());
    if (status.ok()) {
      Update(plan);
    } else {
      FailStep(plan, status);
    }
  }
  const bool busy = !plan.items.empty() || !plan.preempted.empty();
  Publish();
  Deliver();
  return busy;
}

void EngineImpl::FailStep(const StepPlan& plan, const Status& status) {
  const bool fatal = IsFatal(status);
  logger_.Error("the model failed in a step", {{"error", status.ToString()},
                                               {"requests", static_cast<int>(plan.items.size())},
                                               {"fatal", fatal}});
  scheduler_->DiscardStep(plan);
  for (const ScheduledSequence& item : plan.items)
    EndEarly(*item.sequence, FinishReason::kError, status);
  if (!fatal) return;
  failed_ = true;
  EndAll(FinishReason::kError, status);
}

void EngineImpl::Update(const StepPlan& plan) {
  size_t row = 0;
  for (const ScheduledSequence& item : plan.items) UpdateSequence(item, row);
}

void EngineImpl::UpdateSequence(const ScheduledSequence& item, size_t& row) {
  Sequence& s = *item.sequence;
  const int end = item.start + item.num_tokens;
  for (int position = item.start; position < end; ++position) {
    if (!WantsPromptLogprob(s, position)) continue;
    PositionLogprobs& out = s.prompt_logprobs.emplace_back();
    sampler_.Logprobs(buffers_.logits_row(row++), s.tokens[position + 1],
                      *s.request.sampling.prompt_logprobs, out);
  }
  if (item.samples) AppendToken(s, buffers_.logits_row(row++));
}

void EngineImpl::AppendToken(Sequence& s, std::span<float> logits) {
  const SamplingParams& params = s.request.sampling;
  PositionLogprobs logprobs;
  const auto sampled_so_far = std::span<const TokenId>(s.tokens).subspan(s.prompt_len);
  const TokenId token =
      sampler_.Sample(params, s.logits, sampled_so_far, s.sampling_seed, s.tokens.size(), logits,
                      params.logprobs ? &logprobs : nullptr);
  s.tokens.push_back(token);
  s.logits.OnToken(token);
  ++totals_.generation_tokens;
  Output& output = AddOutput(s);
  output.tokens.push_back(token);
  if (params.logprobs) output.logprobs.push_back(std::move(logprobs));
  const FinishReason reason = StopReason(s, output.stop_token);
  if (reason != FinishReason::kNone) Finish(s, reason, output);
}

FinishReason EngineImpl::StopReason(const Sequence& s, std::optional<TokenId>& stop_token) const {
  const SamplingParams& params = s.request.sampling;
  const TokenId last = s.tokens.back();
  const std::vector<int32_t>& eos = model_->config().eos_ids;
  if (s.num_output() >= params.min_tokens) {
    if (!params.ignore_eos && !eos.empty() && last == eos[0]) return FinishReason::kStop;
    const bool listed = std::find(params.stop_token_ids.begin(), params.stop_token_ids.end(),
                                  last) != params.stop_token_ids.end();
    const bool further_eos =
        !params.ignore_eos && std::find(eos.begin(), eos.end(), last) != eos.end();
    if (listed || further_eos) {
      stop_token = last;
      return FinishReason::kStop;
    }
  }
  const bool full = s.num_tokens() >= options_.max_model_len || s.num_output() >= params.max_tokens;
  return full ? FinishReason::kLength : FinishReason::kNone;
}

Output& EngineImpl::AddOutput(Sequence& s) {
  Output& output = deliveries_.emplace_back(Delivery{&s, nullptr, {}}).output;
  if (!s.output_sent) {
    s.output_sent = true;
    output.cached_tokens = s.cached_tokens;
    output.remote_tokens = s.remote_tokens;
    output.queued = s.queued;
    output.scheduled = s.scheduled;
    output.load_started = s.load_started;
    output.load_ended = s.load_ended;
    output.prompt_logprobs = std::move(s.prompt_logprobs);
  }
  return output;
}

// `output` is the last of deliveries_.
void EngineImpl::Finish(Sequence& s, FinishReason reason, Output& output) {
  output.finish = reason;
  const bool lends = connector_ != nullptr && s.transfer && s.transfer->do_remote_decode &&
                     (reason == FinishReason::kStop || reason == FinishReason::kLength);
  if (lends) output.kv_transfer_params = connector_->Lend(s);
  if (s.remote_pending) connector_->Discard(*s.transfer);
  s.remote_pending = false;
  NoLongerQueued(s);
  const bool loading = s.state == SequenceState::kWaitingForRemote;
  scheduler_->Remove(&s);
  if (!loading) scheduler_->FreeBlocks(&s);
  by_number_.erase(s.number);
  auto node = sequences_.extract(s.request.id);
  if (loading) {
    // Its blocks are being written: they stay its own until the pull ends. Its client hears now.
    auto messenger = std::make_unique<Sequence>();
    messenger->request.id = s.request.id;
    messenger->request.on_output = std::move(s.request.on_output);
    deliveries_.back().sequence = messenger.get();
    deliveries_.back().finished = std::move(messenger);
    zombies_.emplace(s.number, std::move(node.mapped()));
  } else {
    deliveries_.back().finished = std::move(node.mapped());
  }
}

void EngineImpl::EndEarly(Sequence& s, FinishReason reason, const Status& error) {
  Output& output = AddOutput(s);
  output.error = error;
  Finish(s, reason, output);
}

void EngineImpl::EndAll(FinishReason reason, const Status& error) {
  std::vector<Sequence*> all;
  for (const auto& [id, sequence] : sequences_) all.push_back(sequence.get());
  std::sort(all.begin(), all.end(), [](auto* a, auto* b) { return a->number < b->number; });
  for (Sequence* s : all) EndEarly(*s, reason, error);
}

void EngineImpl::NoLongerQueued(Sequence& s) {
  if (s.dequeued) return;
  s.dequeued = true;
  --queued_;
}

void EngineImpl::Publish() {
  EngineStats& t = totals_;
  const SchedulerCounters& c = scheduler_->counters();
  t.running = scheduler_->num_running();
  t.waiting = scheduler_->num_waiting();
  t.waiting_for_remote = scheduler_->num_waiting_for_remote();
  t.total_blocks = pool_.num_usable();
  t.free_blocks = pool_.num_free();
  t.pinned_blocks = connector_ != nullptr ? connector_->pinned_blocks() : 0;
  t.prefix_queries = c.prefix_queries;
  t.prefix_hits = c.prefix_hits;
  t.prompt_tokens = c.prompt_tokens;
  t.preemptions = c.preemptions;
  t.prompt_tokens_local_compute = c.prompt_tokens_local_compute;
  t.prompt_tokens_local_cache = c.prompt_tokens_local_cache;
  t.prompt_tokens_remote = c.prompt_tokens_remote;
  stats_.Store(t);
}

// After Publish: whoever has heard the last output of a request finds its blocks free.
void EngineImpl::Deliver() {
  if (deliveries_.empty()) return;
  {
    std::lock_guard lock(mutex_);
    for (const Delivery& d : deliveries_) {
      if (d.finished != nullptr) in_flight_.erase(d.sequence->request.id);
    }
  }
  for (Delivery& d : deliveries_) d.sequence->request.on_output(std::move(d.output));
  deliveries_.clear();
}

}  // namespace llmd::engine
