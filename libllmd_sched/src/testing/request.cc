#include "llmd/sched/testing/request.h"

namespace llmd::sched::testing {

Fact PrefixMatch(std::map<std::string, double, std::less<>> matched_blocks, double total,
                 double block_size) {
  Fact out;
  out.total = total;
  out.block_size = block_size;
  out.per_endpoint = std::move(matched_blocks);
  return out;
}

Fact Tokens(std::vector<uint32_t> ids) {
  Fact out;
  out.tokens = std::move(ids);
  out.exact = true;
  return out;
}

Fact InFlight(std::map<std::string, double, std::less<>> requests,
              std::map<std::string, double, std::less<>> tokens) {
  Fact out;
  out.per_endpoint = std::move(requests);
  out.second = std::move(tokens);
  return out;
}

Fact PredictedLatency(std::map<std::string, double, std::less<>> ttft_ms,
                      std::map<std::string, double, std::less<>> tpot_ms) {
  return InFlight(std::move(ttft_ms), std::move(tpot_ms));
}

FakeRequest FakeRequest::Completions(std::string prompt, std::string model) {
  FakeRequest out;
  out.spec_.path = "/v1/completions";
  out.Member("model", std::move(model)).Member("prompt", std::move(prompt));
  return out;
}

FakeRequest FakeRequest::Chat(std::vector<std::pair<std::string, std::string>> messages,
                              std::string model) {
  json::Array list;
  for (auto& [role, content] : messages)
    list.push_back(json::Object{{"role", std::move(role)}, {"content", std::move(content)}});
  FakeRequest out;
  out.spec_.path = "/v1/chat/completions";
  out.Member("model", std::move(model)).Member("messages", std::move(list));
  return out;
}

FakeRequest FakeRequest::Raw(std::string path, std::string body) {
  FakeRequest out;
  out.spec_.path = std::move(path);
  out.raw_ = std::move(body);
  return out;
}

FakeRequest& FakeRequest::Header(std::string name, std::string value) {
  spec_.headers.emplace_back(std::move(name), std::move(value));
  return *this;
}
FakeRequest& FakeRequest::Member(std::string_view key, json::Value value) {
  body_.Set(key, std::move(value));
  return *this;
}
FakeRequest& FakeRequest::Priority(int priority) {
  spec_.priority = priority;
  return *this;
}
FakeRequest& FakeRequest::RequestId(std::string id) {
  spec_.request_id = std::move(id);
  return *this;
}
FakeRequest& FakeRequest::With(std::string data_type, Fact fact) {
  facts_.insert_or_assign(std::move(data_type), std::move(fact));
  return *this;
}

RequestSpec FakeRequest::Spec() const {
  RequestSpec out = spec_;
  out.body = raw_.empty() ? body_.Dump() : raw_;
  return out;
}

}  // namespace llmd::sched::testing
