#include "llmd/pd/usage_rewriter.h"

#include <algorithm>
#include <optional>

#include "llmd/json.h"

namespace llmd::pd {
namespace {

constexpr std::string_view kUsage = "\"usage\"";

// The member's value inside text[object], in text's own offsets.
std::optional<json::Span> MemberOf(std::string_view text, json::Span object, std::string_view key) {
  const std::string_view inner = object.In(text);
  if (!inner.starts_with('{')) return std::nullopt;
  const auto members = json::ScanObject(inner);
  if (!members.ok()) return std::nullopt;
  const json::ScannedMember* member = json::FindMember(*members, inner, key);
  if (member == nullptr) return std::nullopt;
  return json::Span{object.begin + member->value.begin, object.begin + member->value.end};
}

std::optional<json::Span> FindCachedTokens(std::string_view text, json::Span object) {
  auto usage = MemberOf(text, object, "usage");
  if (!usage) {
    // Events of the responses API carry the whole response.
    const auto response = MemberOf(text, object, "response");
    if (response) usage = MemberOf(text, *response, "usage");
  }
  if (!usage) return std::nullopt;
  for (std::string_view details : {"prompt_tokens_details", "input_tokens_details"}) {
    const auto at = MemberOf(text, *usage, details);
    if (at) return MemberOf(text, *at, "cached_tokens");
  }
  return std::nullopt;
}

json::Span Trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return {begin, text.find_last_not_of(kBlanks) + 1};
}

std::string RewriteWithin(std::string_view text, json::Span object, uint64_t cached_tokens) {
  std::string out(text);
  if (const auto at = FindCachedTokens(text, object))
    out.replace(at->begin, at->size(), std::to_string(cached_tokens));
  return out;
}

}  // namespace

std::string RewriteCachedTokens(std::string_view body, uint64_t cached_tokens) {
  return RewriteWithin(body, Trimmed(body), cached_tokens);
}

UsageRewriter::UsageRewriter(Kind kind, uint64_t cached_tokens, size_t max_held_bytes)
    : kind_(kind), cached_tokens_(cached_tokens), max_held_bytes_(max_held_bytes) {}

std::string_view UsageRewriter::Feed(std::string_view piece) {
  return kind_ == Kind::kJson ? FeedJson(piece) : FeedSse(piece);
}

std::string UsageRewriter::End() {
  out_.clear();
  if (kind_ == Kind::kJson) {
    out_ = RewriteCachedTokens(held_, cached_tokens_);
  } else {
    EmitLine();
  }
  held_.clear();
  return std::move(out_);
}

std::string_view UsageRewriter::FeedJson(std::string_view piece) {
  if (passing_) return piece;
  held_ += piece;
  if (held_.size() <= max_held_bytes_) return {};
  passing_ = true;
  out_ = std::move(held_);
  held_.clear();
  return out_;
}

std::string_view UsageRewriter::FeedSse(std::string_view piece) {
  out_.clear();
  while (!piece.empty()) {
    const size_t end = piece.find_first_of("\r\n");
    const std::string_view part =
        piece.substr(0, end == std::string_view::npos ? piece.size() : end + 1);
    piece.remove_prefix(part.size());
    const bool complete = end != std::string_view::npos;
    if (passing_) {
      out_ += part;
      passing_ = !complete;
      continue;
    }
    held_ += part;
    if (complete) {
      EmitLine();
    } else if (held_.size() > max_held_bytes_) {
      out_ += held_;
      held_.clear();
      passing_ = true;
    }
  }
  return out_;
}

void UsageRewriter::EmitLine() {
  constexpr std::string_view kData = "data:";
  const std::string_view line = held_;
  if (line.starts_with(kData) && line.find(kUsage) != std::string_view::npos) {
    json::Span object = Trimmed(line.substr(kData.size()));
    object.begin += kData.size();
    object.end += kData.size();
    out_ += RewriteWithin(line, object, cached_tokens_);
  } else {
    out_ += line;
  }
  held_.clear();
}

}  // namespace llmd::pd
