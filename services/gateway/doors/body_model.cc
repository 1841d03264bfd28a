#include "gateway/doors/body_model.h"

#include <algorithm>
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

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}
// A text of which a name is made without another look at it.
bool IsPlain(std::string_view name) {
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return c >= 0x20 && c < 0x7f && c != '\\'; });
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

bool FindFirstModel(std::string_view body, BodyModel& out) {
  constexpr std::string_view kKey = "\"model\"", kBlanks = " \t\r\n";
  const auto skip = [&](size_t at) {
    return std::min(body.find_first_not_of(kBlanks, at), body.size());
  };
  const auto take = [&](size_t& at, std::string_view text) {
    at = skip(at);
    if (body.substr(at, text.size()) != text) return false;
    at += text.size();
    return true;
  };
  size_t at = 0;
  if (!take(at, "{") || !take(at, kKey) || !take(at, ":")) return false;
  const size_t begin = skip(at);
  if (!take(at, "\"")) return false;
  const size_t end = body.find('"', at);
  if (end == std::string_view::npos) return false;
  const std::string_view name = body.substr(at, end - at), rest = body.substr(end);
  // Only \u can spell the key otherwise.
  if (!IsPlain(name) || Contains(rest, kKey) || Contains(rest, "\\u")) return false;
  out = {1, true, true, name, {begin, end + 1}};
  return true;
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
