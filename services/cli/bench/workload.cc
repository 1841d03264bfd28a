#include "cli/bench/workload.h"

#include <algorithm>
#include <cmath>

#include "cli/bench/text.h"
#include "llmd/format.h"
#include "llmd/json.h"

namespace llmd::bench {
namespace {

// Turns of one conversation have neighbouring numbers.
constexpr uint64_t kTurns = 4096;

uint64_t Draw(const Lengths& lengths, Random& random) {
  if (lengths.kind == Lengths::Kind::kFixed) return lengths.min;
  if (lengths.kind == Lengths::Kind::kUniform) {
    return lengths.min + random.Below(lengths.max - lengths.min + 1);
  }
  const double value = std::round(lengths.mean + lengths.deviation * random.Normal());
  return static_cast<uint64_t>(
      std::clamp(value, static_cast<double>(lengths.min), static_cast<double>(lengths.max)));
}

// What the tenants add to the run's headers, or put in their place.
http::Headers HeadersOf(const Options& options, const Tenant& tenant) {
  http::Headers out;
  if (options.api != Api::kRaw || !options.body.empty()) {
    out.Set("Content-Type", "application/json");
  }
  if (!options.api_key.empty()) out.Set("Authorization", "Bearer " + options.api_key);
  for (const auto& [name, value] : options.headers.lines()) out.Set(name, value);
  for (const auto& [name, value] : tenant.headers.lines()) out.Set(name, value);
  return out;
}

std::string HeadOf(const Options& options, const http::Url& target, const Tenant& tenant) {
  std::string base(target.target);
  while (base.ends_with('/')) base.pop_back();
  std::string out = options.method + " " + base + std::string(PathOf(options)) +
                    " HTTP/1.1\r\nHost: " + target.peer.ToString() + "\r\n";
  const http::Headers headers = HeadersOf(options, tenant);
  for (const auto& [name, value] : headers.lines()) out += name + ": " + value + "\r\n";
  return out;
}

}  // namespace

StatusOr<Workload> Workload::Create(const Options& options, const Trace* trace) {
  Workload out(options, trace);
  LLMD_RETURN_IF_ERROR(out.MakeTail());
  for (const Tenant& tenant : options.tenants) {
    out.weights_ += tenant.weight;
    out.models_.emplace_back();
    json::AppendQuoted(out.models_.back(), tenant.model.empty() ? options.model : tenant.model);
  }
  if (options.tenants.empty()) json::AppendQuoted(out.models_.emplace_back(), options.model);
  out.MakeHeads();
  return out;
}

Status Workload::MakeTail() {
  if (options_->api == Api::kRaw) {
    if (options_->extra_body.empty()) return OkStatus();
    return InvalidArgument("--extra-body: --api raw sends --body as it is");
  }
  json::Value members{json::Object{}};
  if (options_->stream) {
    members.Set("stream", true);
    if (options_->include_usage) {
      members.Set("stream_options", json::Object{{"include_usage", true}});
    }
  }
  members.Set("temperature", 0);
  if (options_->ignore_eos) members.Set("ignore_eos", true);
  if (!options_->extra_body.empty()) {
    StatusOr<json::Value> extra = json::Parse(options_->extra_body);
    if (!extra.ok()) return extra.status().WithContext("--extra-body");
    if (!extra->is_object()) return InvalidArgument("--extra-body: expected a JSON object");
    for (const auto& [name, value] : extra->AsObject()) {
      for (const char* ours : {"model", "messages", "prompt", "max_tokens", "stream"}) {
        if (name == ours) return InvalidArgument("--extra-body: '" + name + "' has a flag");
      }
      members.Set(name, value);
    }
  }
  tail_ = "," + members.Dump().substr(1);
  return OkStatus();
}

void Workload::MakeHeads() {
  const Tenant none;
  for (const http::Url& target : options_->targets) {
    for (size_t i = 0; i < models_.size(); ++i) {
      const Tenant& tenant = options_->tenants.empty() ? none : options_->tenants[i];
      std::string head = HeadOf(*options_, target, tenant);
      if (options_->api != Api::kRaw) {
        heads_.push_back(head + "Content-Length: ");
        continue;
      }
      const bool bodiless = options_->body.empty() && options_->method != "POST";
      if (!bodiless) head += "Content-Length: " + std::to_string(options_->body.size()) + "\r\n";
      fixed_.push_back(head + "\r\n" + options_->body);
    }
  }
}

uint32_t Workload::TenantOf(uint64_t index) const {
  if (models_.size() == 1) return 0;
  double at = Random(options_->seed, Random::kTenant, index).Uniform() * weights_;
  for (uint32_t i = 0; i + 1 < models_.size(); ++i) {
    at -= options_->tenants[i].weight;
    if (at < 0) return i;
  }
  return static_cast<uint32_t>(models_.size()) - 1;
}

Conversation Workload::Start(uint64_t index, uint32_t stage) const {
  Conversation out;
  out.index = index;
  out.stage = stage;
  out.tenant = TenantOf(index);
  return out;
}

std::string_view Workload::Build(Conversation& conversation, size_t target,
                                 std::string& scratch) const {
  const size_t at = target * models_.size() + conversation.tenant;
  if (!fixed_.empty()) return fixed_[at];
  // The body comes first, since its length stands before it; then the head is moved in front.
  scratch.clear();
  WriteBody(conversation, scratch);
  std::string head = heads_[at];
  AppendInteger(head, scratch.size());
  head += "\r\n\r\n";
  scratch.insert(0, head);
  return scratch;
}

void Workload::WriteBody(Conversation& conversation, std::string& out) const {
  const bool chat = options_->api == Api::kChat;
  out.append("{\"model\":").append(models_[conversation.tenant]);
  out += chat ? ",\"messages\":[" : ",\"prompt\":\"";
  out += conversation.history;
  if (chat) out += "{\"role\":\"user\",\"content\":\"";
  const size_t start = out.size();
  WriteQuestion(conversation, start, out);
  if (HasNextTurn(conversation)) conversation.question.assign(out, start);
  out += chat ? "\"}],\"max_tokens\":" : "\",\"max_tokens\":";
  AppendInteger(out, conversation.output_tokens);
  out += tail_;
}

// The question begins at `start` of the body.
void Workload::WriteQuestion(Conversation& conversation, size_t start, std::string& out) const {
  if (options_->load == Options::Load::kTrace) return WriteTraced(conversation, start, out);
  const uint64_t distinct = options_->distinct_prompts;
  const uint64_t index = distinct != 0 ? conversation.index % distinct : conversation.index;
  const uint64_t number = index * kTurns + conversation.turn;
  Random shape(options_->seed, Random::kShape, number);
  const uint64_t words = Draw(options_->prompt, shape);
  conversation.output_tokens = std::max<uint64_t>(1, Draw(options_->output, shape));
  conversation.prompt_tokens = conversation.history_tokens + words;
  if (options_->shared.groups != 0) {
    WriteShared(conversation, out);
    // Of a pool of questions all turns come round again.
    if (options_->shared.prompts_per_group != 0) {
      Random draw(options_->seed, Random::kGroup, conversation.index);
      const uint64_t group = draw.Below(options_->shared.groups);
      const uint64_t each = options_->shared.prompts_per_group;
      const uint64_t id = (group * each + draw.Below(each)) * kTurns + conversation.turn;
      Random same(options_->seed, Random::kShape, id);
      const uint64_t again = Draw(options_->prompt, same);
      conversation.prompt_tokens += again - words;
      return AppendWords(out, {options_->seed, Random::kPrompt, id}, again, false);
    }
  }
  const bool begins = out.size() == start && conversation.history.empty();
  AppendWords(out, {options_->seed, Random::kPrompt, number}, words, begins);
}

void Workload::WriteShared(Conversation& conversation, std::string& out) const {
  if (conversation.turn != 0) return;
  Random draw(options_->seed, Random::kGroup, conversation.index);
  const uint64_t group = draw.Below(options_->shared.groups);
  AppendWords(out, {options_->seed, Random::kGroup, ~group}, options_->shared.system_tokens, true);
  conversation.prompt_tokens += options_->shared.system_tokens;
}

// Equal block ids give equal text; what the blocks do not cover is new.
void Workload::WriteTraced(Conversation& conversation, size_t start, std::string& out) const {
  const Trace::Entry& entry = trace_->entries()[conversation.index];
  conversation.prompt_tokens = entry.input_tokens;
  conversation.output_tokens = std::max<uint64_t>(1, entry.output_tokens);
  uint64_t left = entry.input_tokens;
  for (const uint64_t id : trace_->Blocks(entry)) {
    const uint64_t words = std::min(left, options_->trace_block_tokens);
    AppendWords(out, {options_->seed, Random::kBlock, id}, words, out.size() == start);
    left -= words;
  }
  AppendWords(out, {options_->seed, Random::kPrompt, conversation.index * kTurns}, left,
              out.size() == start);
}

void Workload::NextTurn(Conversation& conversation, std::string_view answer,
                        uint64_t tokens) const {
  std::string& history = conversation.history;
  if (options_->api == Api::kChat) {
    history.append("{\"role\":\"user\",\"content\":\"").append(conversation.question);
    history.append("\"},{\"role\":\"assistant\",\"content\":\"").append(answer).append("\"},");
  } else {
    history.append(conversation.question).append(answer);
  }
  conversation.history_tokens = conversation.prompt_tokens + tokens;
  ++conversation.turn;
}

}  // namespace llmd::bench
