#include "llmd/engine/connector/pd.h"

#include <algorithm>

#include "hash128.h"

namespace llmd::engine {
namespace {

constexpr size_t kMaxWarned = 1024;

std::string FingerprintOf(const kv::Compatibility& c) {
  Hash128 hash;
  for (const std::string& text : {c.model, c.kv_dtype, c.layout, c.hash_algorithm}) hash.Text(text);
  for (const int32_t n : {c.layers, c.kv_heads, c.head_dim, c.block_size}) hash.Number(n);
  return hash.Hex();
}

std::string_view ReasonOf(PdConnector::Refusal why) {
  switch (why) {
    case PdConnector::Refusal::kNone:
      return "";
    case PdConnector::Refusal::kSeveral:
      return "the request has several prompts or choices";
    case PdConnector::Refusal::kUnproved:
      return "the lender does not say what they were computed from";
    case PdConnector::Refusal::kPromptDiffers:
      return "they were computed from another prompt";
    case PdConnector::Refusal::kModelDiffers:
      return "they were computed by another model or have another layout";
  }
  return "";
}

}  // namespace

PdConnector::PdConnector(std::string engine_id, std::string host, KvPool& pool, Events events,
                         Logger logger)
    : engine_id_(std::move(engine_id)),
      host_(std::move(host)),
      pool_(pool),
      events_(std::move(events)),
      logger_(std::move(logger)) {}

Status PdConnector::Start(const KvTransferOptions& options, kv::Compatibility compatibility,
                          kv::Region& region, MetricsRegistry& metrics, const Clock& clock) {
  if (options.connector != "NixlConnector") {
    return Unimplemented("kv_connector '" + options.connector +
                         "' is not known; known: NixlConnector");
  }
  kv::AgentOptions agent_options;
  agent_options.engine_id = engine_id_;
  agent_options.host = host_;
  agent_options.port = options.side_channel_port;
  agent_options.transport = options.transport;
  agent_options.require = options.require;
  agent_options.lease = options.lease;
  fingerprint_ = FingerprintOf(compatibility);
  agent_options.compatibility = std::move(compatibility);
  LLMD_ASSIGN_OR_RETURN(agent_, kv::Agent::Start(region, std::move(agent_options), events_.released,
                                                 logger_, metrics, clock));
  return OkStatus();
}

int PdConnector::ExternalTokens(const Sequence& sequence, int local_tokens) const {
  if (!sequence.transfer || sequence.wants_prompt_logprobs()) return 0;
  const int bs = pool_.block_size();
  const int blocks = std::min(static_cast<int>(sequence.transfer->remote_block_ids.size()),
                              sequence.prompt_len / bs);
  return std::max(0, blocks * bs - local_tokens);
}

void PdConnector::StartLoad(Sequence& sequence, int local_tokens, int external_tokens) {
  sequence.remote_pending = false;
  if (external_tokens == 0) {
    Discard(*sequence.transfer);
    return;
  }
  const TransferParams& from = *sequence.transfer;
  const int first = local_tokens / pool_.block_size();
  const int last = first + external_tokens / pool_.block_size();
  kv::PullRequest pull{
      from.remote_engine_id, from.remote_host, from.remote_port, from.remote_request_id, {}, {}};
  pull.remote_blocks.assign(from.remote_block_ids.begin() + first,
                            from.remote_block_ids.begin() + last);
  pull.local_blocks.assign(sequence.blocks.begin() + first, sequence.blocks.begin() + last);
  agent_->Pull(std::move(pull), [pulled = events_.pulled, number = sequence.number](
                                    kv::PullResult result) { pulled(number, std::move(result)); });
}

void PdConnector::Discard(const TransferParams& params) {
  kv::PullRequest notify{params.remote_engine_id,
                         params.remote_host,
                         params.remote_port,
                         params.remote_request_id,
                         {},
                         {}};
  agent_->Pull(std::move(notify),
               [logger = logger_, id = params.remote_request_id](const kv::PullResult& result) {
                 if (result.status.ok()) return;
                 logger.Log(LogLevel::kDebug, "lender not told that its blocks are not needed",
                            {{"remote_request_id", id}, {"error", result.status.ToString()}});
               });
}

PdConnector::Refusal PdConnector::Check(const TransferParams& params,
                                        std::span<const TokenId> prompt) const {
  if (params.prompt_hash.empty() || params.fingerprint.empty() || fingerprint_.empty())
    return Refusal::kUnproved;
  if (params.fingerprint != fingerprint_) return Refusal::kModelDiffers;
  return params.prompt_hash == PromptHash(prompt) ? Refusal::kNone : Refusal::kPromptDiffers;
}

void PdConnector::Refuse(Refusal why, const TransferParams& params, const std::string& request_id) {
  refused_[static_cast<size_t>(why)].fetch_add(1, std::memory_order_relaxed);
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    first = warned_.size() < kMaxWarned &&
            warned_.emplace(why, params.remote_engine_id.substr(0, 128)).second;
  }
  const bool wanted = why == Refusal::kSeveral;
  logger_.Log(first && !wanted ? LogLevel::kWarn : LogLevel::kDebug,
              "remote KV is not taken, computing it here",
              {{"request_id", request_id},
               {"remote_engine_id", params.remote_engine_id},
               {"reason", ReasonOf(why)}});
  Discard(params);
}

void PdConnector::AddRefusals(EngineStats& stats) const {
  const auto of = [this](Refusal why) {
    return refused_[static_cast<size_t>(why)].load(std::memory_order_relaxed);
  };
  stats.kv_refused_several = of(Refusal::kSeveral);
  stats.kv_refused_unproved = of(Refusal::kUnproved);
  stats.kv_refused_prompt = of(Refusal::kPromptDiffers);
  stats.kv_refused_model = of(Refusal::kModelDiffers);
}

std::optional<json::Value> PdConnector::Lend(Sequence& sequence) {
  const size_t full = sequence.num_computed / pool_.block_size();
  TransferParams reply;
  reply.remote_engine_id = engine_id_;
  reply.remote_host = host_;
  reply.remote_port = agent_->port();
  reply.remote_num_tokens = sequence.num_computed;
  reply.prompt_hash =
      PromptHash(std::span<const TokenId>(sequence.tokens).first(sequence.prompt_len));
  reply.fingerprint = fingerprint_;
  // A client may use its request id again while the lease lives.
  reply.remote_request_id = sequence.request.id + "-" + std::to_string(++next_lease_);
  if (full > 0) {
    std::vector<int32_t> blocks(sequence.blocks.begin(), sequence.blocks.begin() + full);
    if (Status s = agent_->Lend(reply.remote_request_id, blocks); !s.ok()) {
      logger_.Warn("blocks not lent",
                   {{"request_id", sequence.request.id}, {"error", s.ToString()}});
      return std::nullopt;
    }
    reply.remote_block_ids = blocks;
    sequence.blocks.erase(sequence.blocks.begin(), sequence.blocks.begin() + full);
    pinned_blocks_ += static_cast<int>(full);
    logger_.Log(LogLevel::kDefault, "blocks lent",
                {{"request_id", sequence.request.id},
                 {"lease", reply.remote_request_id},
                 {"blocks", static_cast<int>(full)}});
    leases_.emplace(reply.remote_request_id, std::move(blocks));
  }
  return TransferReply(reply, sequence.cached_tokens);
}

void PdConnector::Release(const std::string& lease_id) {
  auto it = leases_.find(lease_id);
  if (it == leases_.end()) return;
  pool_.Free(it->second);
  pinned_blocks_ -= static_cast<int>(it->second.size());
  leases_.erase(it);
}

void PdConnector::Stop() {
  if (agent_ != nullptr) agent_->Stop();
}

}  // namespace llmd::engine
