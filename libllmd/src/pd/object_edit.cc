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
  for (const Added& entry : added_) {
    if (entry.key == key) return entry.Raw();
  }
  const Member* member = const_cast<ObjectEdit*>(this)->Last(key);
  if (member == nullptr) return {};
  return member->replaced ? std::string_view(member->raw) : member->at.value.In(text_);
}

void ObjectEdit::Set(std::string_view key, std::string raw) {
  for (Added& entry : added_) {
    if (entry.key == key) return entry.Set(raw);
  }
  Member* keep = Last(key);
  if (keep == nullptr) {
    Added entry{std::string(key), ",", 0};
    json::AppendQuoted(entry.text, key);
    entry.text += ':';
    entry.raw = entry.text.size();
    entry.text += raw;
    added_.push_back(std::move(entry));
    return;
  }
  for (Member& member : members_) member.removed |= member.key == key && &member != keep;
  keep->replaced = true;
  keep->raw = std::move(raw);
}

void ObjectEdit::Remove(std::string_view key) {
  for (Member& member : members_) member.removed |= member.key == key;
  std::erase_if(added_, [&](const Added& entry) { return entry.key == key; });
}

std::string ObjectEdit::Build() const {
  std::string out;
  size_t size = 0;
  const std::vector<std::string_view> pieces = Pieces();
  for (std::string_view piece : pieces) size += piece.size();
  out.reserve(size);
  for (std::string_view piece : pieces) out += piece;
  return out;
}

std::vector<std::string_view> ObjectEdit::Pieces() const {
  std::vector<std::string_view> out;
  // Pieces that follow each other in the text are one.
  const auto add = [&out](std::string_view piece) {
    if (!out.empty() && out.back().data() + out.back().size() == piece.data()) {
      out.back() = {out.back().data(), out.back().size() + piece.size()};
    } else if (!piece.empty()) {
      out.push_back(piece);
    }
  };
  const size_t start = members_.empty() ? text_.find('{') + 1 : members_.front().at.key.begin;
  add(text_.substr(0, start));
  size_t separator = start;
  bool any = false;
  for (const Member& member : members_) {
    if (!member.removed) {
      // The blanks and the comma before a member are its own, but for the first that stays.
      if (any) add(text_.substr(separator, member.at.key.begin - separator));
      add(text_.substr(member.at.key.begin, member.at.value.begin - member.at.key.begin));
      add(member.replaced ? std::string_view(member.raw) : member.at.value.In(text_));
      any = true;
    }
    separator = member.at.value.end;
  }
  for (const Added& entry : added_) {
    add(std::string_view(entry.text).substr(any ? 0 : 1));
    any = true;
  }
  add(text_.substr(separator));
  return out;
}

}  // namespace llmd::pd
