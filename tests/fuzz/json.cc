#include "llmd/json.h"

#include "fuzz/fuzz.h"

namespace json = llmd::json;

FUZZ_TARGET(json) {
  const auto value = json::Parse(input);
  const auto members = json::ScanObject(input);
  (void)json::ScanArray(input);
  if (value.ok()) {
    FUZZ_EXPECT(members.ok() == value->is_object());
    const std::string text = value->Dump();
    const auto again = json::Parse(text);
    FUZZ_EXPECT(again.ok());
    FUZZ_EXPECT(again->Dump() == text);
    if (value->is_string()) {
      const size_t begin = input.find('"'), end = input.rfind('"');
      const auto plain = json::Unquote(input.substr(begin, end - begin + 1));
      FUZZ_EXPECT(plain.ok() && *plain == value->AsString());
    }
  }
  if (!members.ok()) return;
  // The scanners take any depth and Parse a thousand; they look at the grammar of numbers only.
  const bool too_large = value.status().message().find("number out of range") != std::string::npos;
  if (input.size() < 1000) FUZZ_EXPECT(value.ok() || too_large);
  for (const json::ScannedMember& m : *members) {
    const auto key = json::Unquote(m.key.In(input));
    FUZZ_EXPECT(key.ok());
    if (value.ok()) FUZZ_EXPECT(value->Find(*key) != nullptr);
    FUZZ_EXPECT(json::FindMember(*members, input, *key) != nullptr);
  }
}
