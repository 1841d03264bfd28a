#include "gateway/doors/admission.h"

#include <algorithm>
#include <charconv>

#include "llmd/format.h"

namespace llmd::doors {
namespace {

constexpr size_t kNumberRoom = 24;

}  // namespace

void Admission::Clear() {
  verdict = Verdict::kForward;
  route = Route::kUnknown;
  status = 0;
  refusal.Clear();
  client = {};
  peer_is_proxy = trusted = false;
  key.reset();
  priority.reset();
  model = target_model = pool = route_name = {};
  body_model = {};
  known = nullptr;
  request_size_ = response_size_ = text_size_ = 0;
  charged_tokens_ = 0;
  settled_ = true;
  in_part_ = false;
  routes_.reset();
  catalogue_.reset();
  engine_key_.reset();
}

void Admission::EditRequest(const HeaderEdit& edit) {
  for (size_t i = 0; i < request_size_; ++i) {
    if (!EqualsIgnoreCase(request_[i].name, edit.name)) continue;
    request_[i] = edit;
    return;
  }
  if (request_size_ < request_.size()) request_[request_size_++] = edit;
}

void Admission::EditResponse(const HeaderEdit& edit) {
  if (response_size_ < response_.size()) response_[response_size_++] = edit;
}

void Admission::AppendEngines(bool serving, std::vector<std::string>& out) const {
  if (known == nullptr) return;
  for (const auto& engine : catalogue_->listed) {
    if (!pool.empty() && engine.first != pool) continue;
    if (std::binary_search(known->engines.begin(), known->engines.end(), engine) == serving)
      out.push_back(engine.second);
  }
}

std::span<char> Admission::Room(size_t bytes) {
  if (text_size_ + bytes > text_.size()) return {};
  const std::span<char> out(text_.data() + text_size_, bytes);
  text_size_ += bytes;
  return out;
}

void Admission::TellBudget(const BudgetState& state, bool tokens) {
  if (state.limit <= 0) return;
  const auto number = [&](int64_t value) -> std::string_view {
    const std::span<char> room = Room(kNumberRoom);
    if (room.empty()) return {};
    const auto end = std::to_chars(room.data(), room.data() + room.size(), value).ptr;
    return {room.data(), static_cast<size_t>(end - room.data())};
  };
  EditResponse(
      {tokens ? "x-ratelimit-limit-tokens" : "x-ratelimit-limit-requests", number(state.limit)});
  EditResponse({tokens ? "x-ratelimit-remaining-tokens" : "x-ratelimit-remaining-requests",
                number(state.remaining)});
  const std::span<char> room = Room(kNumberRoom);
  if (room.empty()) return;
  const auto size = static_cast<size_t>(WriteDuration(room.data(), state.reset) - room.data());
  EditResponse({tokens ? "x-ratelimit-reset-tokens" : "x-ratelimit-reset-requests",
                std::string_view(room.data(), size)});
  if (state.allowed) return;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(
                           state.retry_after + std::chrono::seconds(1) - Duration(1))
                           .count();
  refusal.retry_after_s = static_cast<int>(std::max<int64_t>(1, seconds));
  EditResponse({"retry-after", number(refusal.retry_after_s)});
}

}  // namespace llmd::doors
