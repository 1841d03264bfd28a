#include "pass/body_shape.h"

#include <algorithm>
#include <array>

#include "llmd/json.h"

namespace llmd::sched {
namespace {

constexpr std::array<std::string_view, 12> kOfResponses = {"instructions",
                                                           "max_output_tokens",
                                                           "previous_response_id",
                                                           "conversation",
                                                           "tools",
                                                           "tool_choice",
                                                           "reasoning",
                                                           "store",
                                                           "stream",
                                                           "include",
                                                           "temperature",
                                                           "text"};

bool Has(const RequestContext& request, std::string_view key) {
  return json::FindMember(request.members, request.body, key) != nullptr;
}

// [{"role": …}], not strings, token ids or lists of them.
bool HoldsObjects(std::string_view list) {
  const size_t first = list.starts_with('[') ? list.find_first_not_of(" \t\r\n", 1) : list.npos;
  return first != list.npos && list[first] == '{';
}

}  // namespace

std::string_view PathOfShape(const RequestContext& request) {
  if (Has(request, "messages")) return "/v1/chat/completions";
  if (Has(request, "prompt")) return "/v1/completions";
  const json::ScannedMember* input = json::FindMember(request.members, request.body, "input");
  if (input == nullptr) return {};
  const bool responses = HoldsObjects(input->value.In(request.body)) ||
                         std::any_of(kOfResponses.begin(), kOfResponses.end(),
                                     [&](std::string_view key) { return Has(request, key); });
  return responses ? "/v1/responses" : "/v1/embeddings";
}

}  // namespace llmd::sched
