#include "llmd/pd/object_edit.h"

namespace llmd::pd {

StatusOr<ObjectEdit> ObjectEdit::Parse(std::string_view text) {
  LLMD_ASSIGN_OR_RETURN(const std::vector<json::ScannedMember> scanned, json::ScanObject(text));
  ObjectEdit edit;
  edit.text_ = text;
  edit.members_.reserve(scanned.size());
  for (const json::ScannedMember& member : scanned) {
    LLMD_ASSIGN_OR_RETURN(std::string key, json::Unquote(member.key.In(text)));
    edit.members_.push_back({member, std::move(key), false, false, {}});
  }
  return edit;
}

ObjectEdit::Member* ObjectEdit::Last(std::string_view key) {
  for (auto at = members_.rbegin(); at != members_.rend(); ++at) {
    if (at->key == key && !at->removed) return &*at;
  }
  return nullptr;
}

std::string_view ObjectEdit::Get(std::string_view key) const {
  for (const auto& [name, raw] : added_) {
    if (name == key) return raw;
  }
  const Member* member = const_cast<ObjectEdit*>(this)->Last(key);
  if (member == nullptr) return {};
  return member->replaced ? std::string_view(member->raw) : member->at.value.In(text_);
}

void ObjectEdit::Set(std::string_view key, std::string raw) {
  for (auto& [name, value] : added_) {
    if (name == key) {
      value = std::move(raw);
      return;
    }
  }
  Member* keep = Last(key);
  if (keep == nullptr) {
    added_.emplace_back(key, std::move(raw));
    return;
  }
  for (Member& member : members_) member.removed |= member.key == key && &member != keep;
  keep->replaced = true;
  keep->raw = std::move(raw);
}

void ObjectEdit::Remove(std::string_view key) {
  for (Member& member : members_) member.removed |= member.key == key;
  std::erase_if(added_, [&](const auto& entry) { return entry.first == key; });
}

std::string ObjectEdit::Build() const {
  std::string out;
  size_t extra = 0;
  for (const auto& [key, raw] : added_) extra += key.size() + raw.size() + 8;
  out.reserve(text_.size() + extra + 64);
  const size_t open = text_.find('{') + 1;
  out += text_.substr(0, members_.empty() ? open : members_.front().at.key.begin);
  size_t separator = members_.empty() ? open : members_.front().at.key.begin;
  bool any = false;
  for (const Member& member : members_) {
    if (!member.removed) {
      // The blanks and the comma before a member are its own, but for the first that stays.
      if (any) out += text_.substr(separator, member.at.key.begin - separator);
      out += text_.substr(member.at.key.begin, member.at.value.begin - member.at.key.begin);
      out += member.replaced ? std::string_view(member.raw) : member.at.value.In(text_);
      any = true;
    }
    separator = member.at.value.end;
  }
  for (const auto& [key, raw] : added_) {
    if (any) out += ',';
    json::AppendQuoted(out, key);
    out += ':';
    out += raw;
    any = true;
  }
  return out += text_.substr(separator);
}

}  // namespace llmd::pd
