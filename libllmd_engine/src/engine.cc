#include <algorithm>
#include <cstdlib>
#include <random>

#include "engine_impl.h"

namespace llmd::engine {
namespace {

constexpr int kPromptLogprobRows = 64;

std::string FreshId() {
  std::random_device random;
  constexpr char kHex[] = "0123456789abcdef";
  std::string id = "xxxxxxxx-xxxx-4xxx-axxx-xxxxxxxxxxxx";
  for (char& c : id) {
    if (c == 'x') c = kHex[random() % 16];
  }
  return id;
}

Status CheckOptions(const EngineOptions& o) {
  if (o.block_size < 1)
    return InvalidArgument("block_size must be at least 1, got " + std::to_string(o.block_size));
  if (o.max_num_seqs < 1)
    return InvalidArgument("max_num_seqs must be at least 1, got " +
                           std::to_string(o.max_num_seqs));
  if (o.max_num_batched_tokens < 1) {
    return InvalidArgument("max_num_batched_tokens must be at least 1, got " +
                           std::to_string(o.max_num_batched_tokens));
  }
  if (o.max_model_len < 0) return InvalidArgument("max_model_len must not be negative");
  if (o.scheduling_policy != "fcfs" && o.scheduling_policy != "priority") {
    return InvalidArgument("scheduling_policy must be fcfs or priority, got '" +
                           o.scheduling_policy + "'");
  }
  return OkStatus();
}

Status ResolvePool(const Model& model, EngineOptions& o) {
  const size_t stride = (model.kv_geometry(o.block_size).block_bytes() + 63) / 64 * 64;
  if (o.num_blocks == 0)
    o.num_blocks = static_cast<int>(std::min<size_t>(o.kv_cache_bytes / stride, 1 << 30));
  if (o.num_blocks >= 2) return OkStatus();
  return InvalidArgument("the KV cache has room for " + std::to_string(o.num_blocks) +
                         " blocks of " + std::to_string(stride) +
                         " bytes; at least 2 are needed (kv_cache_bytes)");
}

Status ResolveLengths(const Model& model, EngineOptions& o) {
  const int64_t capacity = int64_t{o.num_blocks - 1} * o.block_size;
  const int longest = model.config().max_position;
  if (o.max_model_len > longest) {
    return InvalidArgument("max_model_len " + std::to_string(o.max_model_len) +
                           " is above the model's " + std::to_string(longest));
  }
  if (o.max_model_len > capacity) {
    return InvalidArgument("max_model_len " + std::to_string(o.max_model_len) +
                           " does not fit the KV cache of " + std::to_string(capacity) +
                           " tokens; lower it or raise kv_cache_bytes");
  }
  if (o.max_model_len == 0)
    o.max_model_len = static_cast<int>(std::min<int64_t>(longest, capacity));
  o.max_num_batched_tokens = std::min(o.max_num_batched_tokens, model.max_tokens_per_step());
  if (!o.enable_chunked_prefill && o.max_num_batched_tokens < o.max_model_len) {
    return InvalidArgument("without chunked prefill max_num_batched_tokens (" +
                           std::to_string(o.max_num_batched_tokens) +
                           ") must not be below max_model_len (" + std::to_string(o.max_model_len) +
                           ")");
  }
  return OkStatus();
}

SchedulerOptions ToSchedulerOptions(const EngineOptions& o) {
  SchedulerOptions s;
  s.max_num_seqs = o.max_num_seqs;
  s.max_num_batched_tokens = o.max_num_batched_tokens;
  s.max_model_len = o.max_model_len;
  s.enable_chunked_prefill = o.enable_chunked_prefill;
  s.long_prefill_token_threshold = o.long_prefill_token_threshold;
  s.priority = o.scheduling_policy == "priority";
  s.prompt_logprob_rows = kPromptLogprobRows;
  return s;
}

kv::Compatibility CompatibilityOf(const Model& model, const EngineOptions& o) {
  const ModelConfig& c = model.config();
  const KvGeometry g = model.kv_geometry(o.block_size);
  kv::Compatibility out;
  out.model = c.name + ";" + c.architecture + ";hidden=" + std::to_string(c.hidden) +
              ";ffn=" + std::to_string(c.ffn) + ";heads=" + std::to_string(c.heads) +
              ";vocab=" + std::to_string(c.vocab) + ";rope=" + std::to_string(c.rope_theta) +
              ";fingerprint=" + c.fingerprint;
  out.kv_dtype = g.element_bytes == 2 ? "bf16" : "f32";
  out.layout = "block:layer,kv,head,token,dim";
  out.layers = g.layers;
  out.kv_heads = g.kv_heads;
  out.head_dim = g.head_dim;
  out.block_size = o.block_size;
  out.hash_algorithm = o.hash_algorithm;
  return out;
}

}  // namespace

StatusOr<std::unique_ptr<Engine>> Engine::Create(std::unique_ptr<Model> model,
                                                 EngineOptions options, Logger logger,
                                                 MetricsRegistry& metrics, const Clock& clock) {
  LLMD_RETURN_IF_ERROR(CheckOptions(options));
  LLMD_RETURN_IF_ERROR(ResolvePool(*model, options));
  LLMD_RETURN_IF_ERROR(ResolveLengths(*model, options));
  if (options.engine_id.empty()) options.engine_id = FreshId();
  const char* seed = std::getenv("PYTHONHASHSEED");
  LLMD_ASSIGN_OR_RETURN(auto hasher,
                        kv::MakeEngineHasher(options.hash_algorithm, seed != nullptr ? seed : ""));
  kv::RegionOptions region_options;
  region_options.num_blocks = options.num_blocks;
  region_options.block_bytes = model->kv_geometry(options.block_size).block_bytes();
  LLMD_ASSIGN_OR_RETURN(auto region, kv::Region::Create(region_options));
  LLMD_RETURN_IF_ERROR(model->AttachKv(region->blocks(), region->block_stride(), options.num_blocks,
                                       options.block_size));
  auto engine =
      std::make_unique<EngineImpl>(std::move(model), std::move(options), std::move(region),
                                   std::move(hasher), std::move(logger));
  LLMD_RETURN_IF_ERROR(engine->Start(metrics, clock));
  return std::unique_ptr<Engine>(std::move(engine));
}

EngineImpl::EngineImpl(std::unique_ptr<Model> model, EngineOptions options,
                       std::unique_ptr<kv::Region> region, std::unique_ptr<kv::EngineHasher> hasher,
                       Logger logger)
    : options_(std::move(options)),
      logger_(std::move(logger)),
      region_(std::move(region)),
      model_(std::move(model)),
      hasher_(std::move(hasher)),
      pool_(options_.num_blocks, options_.block_size, options_.enable_prefix_caching, this),
      buffers_(options_.max_num_batched_tokens, options_.max_num_seqs,
               options_.max_model_len / options_.block_size + 1,
               options_.max_num_seqs + kPromptLogprobRows, model_->config().vocab),
      sampler_(model_->config().vocab) {}

EngineImpl::~EngineImpl() {
  Stop();
}

Status EngineImpl::Start(MetricsRegistry& metrics, const Clock& clock) {
  clock_ = &clock;
  if (!options_.kv_transfer.connector.empty()) {
    PdConnector::Events events;
    events.pulled = [this](uint64_t number, kv::PullResult result) {
      Post({Command::Kind::kPulled, nullptr, {}, number, std::move(result), nullptr});
    };
    events.released = [this](std::string lease, bool) {
      Post({Command::Kind::kReleased, nullptr, std::move(lease), 0, {}, nullptr});
    };
    connector_ =
        std::make_unique<PdConnector>(options_.engine_id, options_.kv_transfer.side_channel_host,
                                      pool_, std::move(events), logger_.Named("kv"));
    LLMD_RETURN_IF_ERROR(connector_->Start(options_.kv_transfer, CompatibilityOf(*model_, options_),
                                           *region_, metrics, clock));
  }
  scheduler_ = std::make_unique<BatchScheduler>(ToSchedulerOptions(options_), pool_, hasher_.get(),
                                                connector_.get());
  Publish();
  thread_ = std::thread([this] { Run(); });
  return OkStatus();
}

Status EngineImpl::CheckRequest(const Request& request) const {
  if (request.id.empty()) return InvalidArgument("a request needs an id");
  if (!request.on_output) return InvalidArgument("request '" + request.id + "' has no on_output");
  if (request.prompt.empty()) return InvalidArgument("the prompt is empty");
  const int length = static_cast<int>(request.prompt.size());
  if (request.prompt.size() >= static_cast<size_t>(options_.max_model_len)) {
    return InvalidArgument("the prompt has " + std::to_string(length) +
                           " tokens and leaves no room for an answer: the "
                           "maximum model length is " +
                           std::to_string(options_.max_model_len));
  }
  const int vocab = model_->config().vocab;
  for (const TokenId id : request.prompt) {
    if (id < 0 || id >= vocab) {
      return InvalidArgument("token id " + std::to_string(id) +
                             " in the prompt is outside the vocabulary of " +
                             std::to_string(vocab));
    }
  }
  return Validate(request.sampling, vocab);
}

// Runs on the caller's thread, so that hashing a long prompt does not hold up the step of others.
StatusOr<std::unique_ptr<Sequence>> EngineImpl::MakeSequence(Request request) {
  auto s = std::make_unique<Sequence>();
  s->prompt_len = static_cast<int>(request.prompt.size());
  s->tokens.reserve(std::min<int64_t>(int64_t{s->prompt_len} + request.sampling.max_tokens,
                                      options_.max_model_len));
  s->tokens.insert(s->tokens.end(), request.prompt.begin(), request.prompt.end());
  request.prompt = {};
  s->logits.Init(request.sampling, s->tokens, model_->config().eos_ids);
  if (options_.enable_prefix_caching) {
    ExtendDigests(*hasher_, s->tokens, options_.block_size, request.cache_salt, s->digests);
  }
  s->request = std::move(request);
  s->queued = clock_->Now();
  return s;
}

Status EngineImpl::Submit(Request request) {
  LLMD_ASSIGN_OR_RETURN(TransferParams transfer, ParseTransferParams(request.kv_transfer_params));
  if (!request.transferable) transfer.do_remote_decode = false;
  bool pulls =
      transfer.do_remote_prefill && connector_ != nullptr && !transfer.remote_block_ids.empty();
  if (connector_ == nullptr && (transfer.do_remote_prefill || transfer.do_remote_decode)) {
    logger_.Warn("kv_transfer_params have no effect: the engine has no kv_connector",
                 {{"request_id", request.id}});
  }
  Status status = CheckRequest(request);
  if (status.ok() && pulls) {
    using Refusal = PdConnector::Refusal;
    const Refusal refusal =
        request.transferable ? connector_->Check(transfer, request.prompt) : Refusal::kSeveral;
    if (refusal != Refusal::kNone) connector_->Refuse(refusal, transfer, request.id);
    pulls = refusal == Refusal::kNone;
  }
  if (status.ok()) {
    auto made = MakeSequence(std::move(request));
    std::unique_ptr<Sequence> sequence = std::move(*made);
    if (connector_ != nullptr) sequence->transfer = transfer;
    sequence->remote_pending = pulls;
    status = Enqueue(sequence);
  }
  const bool again = status.code() == StatusCode::kAlreadyExists;
  if (!status.ok() && pulls && !again) connector_->Discard(transfer);
  return status;
}

Status EngineImpl::Enqueue(std::unique_ptr<Sequence>& sequence) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || failed_)
      return Unavailable(failed_ ? "the engine has failed" : "the engine is stopping");
    if (queued_ >= options_.max_waiting) {
      return ResourceExhausted(
          "the engine's queue is full: " + std::to_string(options_.max_waiting) + " requests wait");
    }
    const std::string& id = sequence->request.id;
    if (!in_flight_.insert(id).second)
      return AlreadyExists("a request with the id '" + id + "' is in flight");
    ++queued_;
    sequence->number = next_number_++;
    const auto& seed = sequence->request.sampling.seed;
    sequence->sampling_seed =
        seed ? static_cast<uint64_t>(*seed) : PhiloxBits(options_.seed, sequence->number);
    commands_.push_back({Command::Kind::kSubmit, std::move(sequence), {}, 0, {}, nullptr});
  }
  wake_.notify_one();
  return OkStatus();
}

void EngineImpl::Post(Command command) {
  {
    std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  wake_.notify_one();
}

// Only for ids in flight, so that the queue cannot be filled from outside.
void EngineImpl::Abort(std::string_view id) {
  std::string key(id);
  {
    std::lock_guard lock(mutex_);
    if (!in_flight_.contains(key)) return;
    commands_.push_back({Command::Kind::kAbort, nullptr, std::move(key), 0, {}, nullptr});
  }
  wake_.notify_one();
}

void EngineImpl::DiscardTransfer(const json::Value& kv_transfer_params) {
  if (connector_ == nullptr) return;
  auto params = ParseTransferParams(kv_transfer_params);
  if (params.ok() && params->do_remote_prefill) connector_->Discard(*params);
}

Status EngineImpl::ResetPrefixCache() {
  std::promise<Status> done;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return Unavailable("the engine is stopping");
    commands_.push_back({Command::Kind::kReset, nullptr, {}, 0, {}, &done});
  }
  wake_.notify_one();
  return done.get_future().get();
}

void EngineImpl::Stop() {
  std::call_once(stop_once_, [this] {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
    if (connector_ != nullptr) connector_->Stop();
    stopped_ = true;
  });
}

}  // namespace llmd::engine
