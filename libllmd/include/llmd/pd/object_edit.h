// Edits the members of a JSON object as text: values are replaced, removed or added, and every
// other byte (key order, blanks, number spelling, escapes) stays as it was.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/json.h"
#include "llmd/status.h"

namespace llmd::pd {

// Borrows the text; it must outlive the edit. Thread-compatible.
class ObjectEdit {
 public:
  // INVALID_ARGUMENT with the offset when `text` is not one JSON object.
  static StatusOr<ObjectEdit> Parse(std::string_view text);

  // The raw value of the last member with that key (the one that counts), or an empty view.
  std::string_view Get(std::string_view key) const;
  bool Has(std::string_view key) const { return !Get(key).empty(); }
  // Replaces the member's value by `raw` (JSON text), or appends the member. Earlier doubles of the
  // key are removed, so that no reader can see another value.
  void Set(std::string_view key, std::string raw);
  // Removes every member with that key.
  void Remove(std::string_view key);
  // The text with the edits applied; the very same bytes when there were none.
  std::string Build() const;
  // The same in pieces that are not copied: views into the text and into this, until it is edited
  // or moved. One piece when there were no edits.
  std::vector<std::string_view> Pieces() const;

 private:
  struct Member {
    json::ScannedMember at;
    std::string key;  // escapes undone
    bool removed = false;
    bool replaced = false;
    std::string raw;
  };
  struct Added {
    std::string key;
    std::string text;  // ,"key":raw
    size_t raw = 0;    // where the value begins
    std::string_view Raw() const { return std::string_view(text).substr(raw); }
    void Set(std::string_view value) { text.replace(raw, std::string::npos, value); }
  };
  ObjectEdit() = default;
  Member* Last(std::string_view key);

  std::string_view text_;
  std::vector<Member> members_;
  std::vector<Added> added_;
};

}  // namespace llmd::pd
