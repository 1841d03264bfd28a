#include "llmd/sched/request_context.h"

#include <algorithm>
#include <numeric>

#include "llmd/sched/profile_handler.h"

namespace llmd::sched {
namespace {

constexpr size_t kKeepElements = 64 << 10;

template <typename T>
void Release(std::vector<T>& v) {
  v.clear();
  if (v.capacity() > kKeepElements) v.shrink_to_fit();
}

// Characters of a quoted JSON string: escapes and UTF-8 sequences count once. Bytes of anything
// else.
size_t CountChars(std::string_view json) {
  if (!json.starts_with('"')) return json.size();
  size_t count = 0;
  for (size_t i = 1; i + 1 < json.size(); ++i) {
    if (json[i] == '\\') i += json[i + 1] == 'u' ? 5 : 1;
    count += (static_cast<unsigned char>(json[i]) & 0xc0) != 0x80;
  }
  return count;
}

bool IsSecret(std::string_view name) {
  return name == "authorization" || name == "cookie" || name == "proxy-authorization" ||
         name == "x-api-key";
}

}  // namespace

std::string_view FindHeader(const HeaderList& headers, std::string_view name) {
  for (auto it = headers.rbegin(); it != headers.rend(); ++it) {
    if (it->first == name) return it->second;
  }
  return {};
}

std::string_view NameOf(Modality modality) {
  return modality == Modality::kImage ? "image" : modality == Modality::kVideo ? "video" : "audio";
}

void Attribute::Clear() {
  present = exact = false;
  total = block_size = 0;
  per_endpoint.clear();
  second.clear();
  Release(tokens);
  bounds.clear();
  Release(hashes);
  offloaded.clear();
  padding.clear();
  media.clear();
  text.clear();
  latency.clear();
}

Attribute& RequestContext::Put(DataKey key) {
  if (key >= static_cast<int>(attributes.size())) attributes.resize(key + 1);
  attributes[key].present = true;
  return attributes[key];
}

void RequestContext::Reset(size_t attribute_count) {
  if (attributes.size() < attribute_count) attributes.resize(attribute_count);
  for (Attribute& a : attributes) a.Clear();
  for (std::string* s :
       {&request_id, &path, &model, &target_model, &cache_salt, &fairness_id, &objective}) {
    s->clear();
  }
  headers = nullptr;
  body = {};
  has_body = true;
  api = Api::kNone;
  streaming = false;
  max_tokens = -1;
  prompt_json = {};
  members.clear();
  json_begin = 0;
  frames.clear();
  names_model = true;
  skip_response = has_prompt_tokens = false;
  Release(prompt_tokens);
  prompt_text = {};
  media.clear();
  eligible.clear();
  priority = 0;
  peer = -1;
  slo_ttft_ms = slo_tpot_ms = -1;
  charges.Reset();
  visits.clear();
  response_headers.clear();
  log = nullptr;
  spans = nullptr;
}

void RequestContext::AllEligible(size_t endpoints) {
  eligible.resize(endpoints);
  std::iota(eligible.begin(), eligible.end(), 0);
}

void RequestContext::ReleaseBulk() {
  for (Attribute& a : attributes) {
    Release(a.tokens);
    Release(a.hashes);
  }
  Release(prompt_tokens);
  members.clear();
  body = prompt_json = prompt_text = {};
  headers = nullptr;
}

std::string RequestContext::Describe(bool with_headers) const {
  std::string out = "TargetModel: " + target_model +
                    ", Critical: " + (priority > 0 ? "true" : "false") +
                    ", PromptLength: " + std::to_string(CountChars(prompt_json));
  if (!with_headers || headers == nullptr) return out;
  std::vector<const std::pair<std::string, std::string>*> sorted;
  for (const auto& header : *headers) sorted.push_back(&header);
  std::sort(sorted.begin(), sorted.end(),
            [](auto* a, auto* b) { return a->first != b->first ? a->first < b->first : a < b; });
  out += ", Headers: map[";
  for (const auto* header : sorted) {
    if (header != sorted.front()) out += ' ';
    out += header->first + ":" + (IsSecret(header->first) ? "<hidden>" : header->second);
  }
  return out + "]";
}

uint64_t NextRandom(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

void ScheduleOutcome::Clear() {
  primary_profile = prefill_profile = encode_profile = -1;
  primary.clear();
  prefill.clear();
  encode.clear();
  decision_type = "decode-only";
  error = {};
  error_status = primary_port = 0;
}

}  // namespace llmd::sched
