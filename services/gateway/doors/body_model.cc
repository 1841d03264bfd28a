#include "gateway/doors/body_model.h"

#include <charconv>

#include "director/response_scan.h"

namespace llmd::doors {
namespace {

bool IsKey(const json::ScannedMember& member, std::string_view body, std::string_view key) {
  const std::string_view raw = member.KeyText(body);
  if (raw.find('\\') == std::string_view::npos) return raw == key;
  const StatusOr<std::string> text = json::Unquote(member.key.In(body));
  return text.ok() && *text == key;
}

// What a string between its quotes means, in `scratch` when it is escaped.
std::string_view TextOf(std::string_view quoted, std::string& scratch) {
  const std::string_view inner = quoted.substr(1, quoted.size() - 2);
  if (inner.find('\\') == std::string_view::npos) return inner;
  scratch.resize(inner.size() + json::kUnescapeSlack);
  scratch.resize(json::UnescapeTo(inner, scratch.data()));
  return scratch;
}

}  // namespace

BodyModel FindBodyModel(std::string_view body, std::span<const json::ScannedMember> members,
                        std::string& scratch) {
  BodyModel out;
  const json::ScannedMember* last = nullptr;
  for (const json::ScannedMember& member : members) {
    if (!IsKey(member, body, "model")) continue;
    ++out.copies;
    last = &member;
  }
  if (last == nullptr) return out;
  out.value = last->value;
  out.text = last->value.In(body).starts_with('"');
  out.name = out.text ? TextOf(last->value.In(body), scratch) : std::string_view();
  if (out.copies == 1) return out;
  std::string other;
  for (const json::ScannedMember& member : members) {
    if (&member == last || !IsKey(member, body, "model")) continue;
    const std::string_view value = member.value.In(body);
    out.agree = out.agree && out.text && value.starts_with('"') && TextOf(value, other) == out.name;
  }
  return out;
}

int64_t BodyNumber(std::string_view body, std::span<const json::ScannedMember> members,
                   std::string_view key, int64_t fallback) {
  for (auto it = members.rbegin(); it != members.rend(); ++it) {
    if (!IsKey(*it, body, key)) continue;
    const std::string_view text = it->value.In(body);
    int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    return whole && number >= 0 ? number : fallback;
  }
  return fallback;
}

SplicedBody SpliceModel(std::string_view body, const BodyModel& model, std::string_view name,
                        std::string& quoted) {
  quoted.clear();
  json::AppendQuoted(quoted, name);
  return {body.substr(0, model.value.begin), quoted, body.substr(model.value.end)};
}

struct AnswerModel::Impl {
  sched::ModelRestorer restorer;
};

AnswerModel::AnswerModel(std::string_view sent, std::string_view asked)
    : impl_(std::make_unique<Impl>(Impl{sched::ModelRestorer(sent, asked)})) {}
AnswerModel::~AnswerModel() = default;
AnswerModel::AnswerModel(AnswerModel&&) noexcept = default;
AnswerModel& AnswerModel::operator=(AnswerModel&&) noexcept = default;

std::string AnswerModel::Feed(std::string_view chunk, bool end) {
  return impl_->restorer.Feed(chunk, end);
}

}  // namespace llmd::doors
