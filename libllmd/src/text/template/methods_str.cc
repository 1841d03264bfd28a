// Methods of str.
#include <algorithm>
#include <map>

#include "text/case_map.h"
#include "text/template/strings.h"
#include "text/unicode.h"

namespace llmd::text::tmpl {
namespace {

using Text = std::u32string;

const Value* TextAt(const Arguments& a, size_t i, std::string_view name) {
  const Value* v = a.Get(i, name);
  return v != nullptr && v->is_string() ? v : nullptr;
}

// The text within the bounds given behind the first argument; nothing (and failed) for bad ones.
// `start` tells where it begins; a start beyond the end is no place even for an empty text.
std::optional<Text> Within(Interpreter& in, const Value& s, const Arguments& a, int64_t& start) {
  const Text all = ToCodePoints(s.str());
  if (!in.Charge(all.size() / 64 + 1)) return std::nullopt;
  const auto bounds = ReadBounds(a.Get(1, "start"), a.Get(2, "end"), all.size());
  if (!bounds) {
    in.Fail("slice indices must be integers or none");
    return std::nullopt;
  }
  start = bounds->start;
  if (bounds->start > bounds->end) {
    start = -1;
    return Text();
  }
  return all.substr(static_cast<size_t>(bounds->start),
                    static_cast<size_t>(bounds->end - bounds->start));
}

template <bool kFront>
Value StrAffix(Interpreter& in, const Value& s, const Arguments& a) {
  int64_t start = 0;
  const auto part = Within(in, s, a, start);
  if (!part) return Value();
  const auto fits = [&](const Value& v) {
    const Text affix = v.is_string() ? ToCodePoints(v.str()) : Text();
    return start >= 0 && (kFront ? part->starts_with(affix) : part->ends_with(affix));
  };
  const Value* given = a.Get(0, "prefix");
  const bool texts =
      given != nullptr &&
      (given->is_string() ||
       (given->is_tuple() && std::all_of(given->list().begin(), given->list().end(),
                                         [](const Value& v) { return v.is_string(); })));
  if (!texts) return in.Fail("startswith and endswith take a text or a tuple of texts");
  if (given->is_string()) return Value(fits(*given));
  return Value(std::any_of(given->list().begin(), given->list().end(), fits));
}

// find, rfind, index, rindex.
template <bool kLast, bool kMust>
Value StrFind(Interpreter& in, const Value& s, const Arguments& a) {
  const Value* what = TextAt(a, 0, "sub");
  if (what == nullptr) return in.Fail("find needs a string");
  int64_t start = 0;
  const auto part = Within(in, s, a, start);
  if (!part) return Value();
  const Text sub = ToCodePoints(what->str());
  const size_t at = start < 0 ? Text::npos : kLast ? part->rfind(sub) : part->find(sub);
  if (at == Text::npos) return kMust ? in.Fail("substring not found") : Value::Int(-1);
  return Value::Int(start + static_cast<int64_t>(at));
}

Value StrCount(Interpreter& in, const Value& s, const Arguments& a) {
  const Value* what = TextAt(a, 0, "sub");
  if (what == nullptr) return in.Fail("count needs a string");
  int64_t start = 0;
  const auto part = Within(in, s, a, start);
  if (!part) return Value();
  const Text sub = ToCodePoints(what->str());
  if (start < 0) return Value::Int(0);
  if (sub.empty()) return Value::Size(part->size() + 1);
  int64_t count = 0;
  for (size_t at = part->find(sub); at != Text::npos; at = part->find(sub, at + sub.size()))
    ++count;
  return Value::Int(count);
}

template <bool kFromRight>
Value StrSplit(Interpreter& in, const Value& s, const Arguments& a) {
  const Value* most = a.Get(1, "maxsplit");
  if (most != nullptr && !most->is_integral()) return in.Fail("split: maxsplit is no integer");
  return Split(in, s.str(), a.Get(0, "sep"), most != nullptr ? most->index() : -1, kFromRight);
}

Value Stripped(Interpreter& in, const Value& s, const Arguments& a, std::string_view sides) {
  const Value* chars = a.Get(0, "chars");
  if (chars != nullptr && !chars->is_none() && !chars->is_string())
    return in.Fail("strip arg must be none or str");
  return in.Str(Strip(s.str(), chars, sides));
}
Value StrStrip(Interpreter& in, const Value& s, const Arguments& a) {
  return Stripped(in, s, a, "lr");
}
Value StrLstrip(Interpreter& in, const Value& s, const Arguments& a) {
  return Stripped(in, s, a, "l");
}
Value StrRstrip(Interpreter& in, const Value& s, const Arguments& a) {
  return Stripped(in, s, a, "r");
}

template <Text (*kMap)(std::u32string_view)>
Value StrMapped(Interpreter& in, const Value& s, const Arguments&) {
  return in.Str(ToUtf8(kMap(ToCodePoints(s.str()))));
}

Value StrFormat(Interpreter& in, const Value& s, const Arguments& a) {
  return FormatBraces(in, s.str(), a);
}

Value StrReplace(Interpreter& in, const Value& s, const Arguments& a) {
  const Value *from = TextAt(a, 0, ""), *to = TextAt(a, 1, ""), *count = a.Get(2, "count");
  if (from == nullptr || to == nullptr) return in.Fail("replace needs two strings");
  if (count != nullptr && !count->is_integral()) return in.Fail("replace: count is no integer");
  return Replace(in, s.str(), from->str(), to->str(), count != nullptr ? count->index() : -1);
}

Value StrJoin(Interpreter& in, const Value& s, const Arguments& a) {
  if (a.positional.size() != 1) return in.Fail("join takes one list");
  std::string text;
  bool first = true;
  for (const Value& item : in.Iterate(a.positional[0])) {
    if (!item.is_string()) return in.Fail("join: an item is no str");
    if (!first) text += s.str();
    first = false;
    text += item.str();
    if (!in.Charge((s.str().size() + item.str().size()) / 64 + 1)) return Value();
  }
  return in.failed() ? Value() : Value::Str(std::move(text));
}

Value StrSplitLines(Interpreter& in, const Value& s, const Arguments& a) {
  const Value* keep = a.Get(0, "keepends");
  std::vector<Value> lines;
  if (!in.Charge(s.str().size() / 16)) return Value();
  for (std::string& line : SplitLines(s.str(), keep != nullptr && keep->Truthy()))
    lines.push_back(Value::Str(std::move(line)));
  return in.Charge(lines.size()) ? Value::MakeList(std::move(lines)) : Value();
}

template <bool kFromRight>
Value StrPartition(Interpreter& in, const Value& s, const Arguments& a) {
  const Value* mark = TextAt(a, 0, "");
  if (mark == nullptr || mark->str().empty()) return in.Fail("partition needs a non-empty string");
  const std::string& text = s.str();
  const size_t at = kFromRight ? text.rfind(mark->str()) : text.find(mark->str());
  if (!in.Charge(text.size() / 64 + 1)) return Value();
  const Value none = Value::Str("");
  if (at == text.npos) {
    return Value::MakeList(
        kFromRight ? std::vector<Value>{none, none, s} : std::vector<Value>{s, none, none},
        ListKind::kTuple);
  }
  return Value::MakeList(
      {Value::Str(text.substr(0, at)), *mark, Value::Str(text.substr(at + mark->str().size()))},
      ListKind::kTuple);
}

// center, ljust, rjust: CPython's share of an odd number of blanks.
template <char kAlign>
Value StrJustify(Interpreter& in, const Value& s, const Arguments& a) {
  const Value *width = a.Get(0, ""), *given = a.Get(1, "");
  const bool fits = given == nullptr || (given->is_string() && Length(given->str()) == 1);
  if (width == nullptr || !width->is_integral() || !fits)
    return in.Fail("expected a width and one character");
  const std::string fill = given != nullptr ? given->str() : " ";
  const auto length = static_cast<int64_t>(Length(s.str()));
  const int64_t missing = std::max<int64_t>(width->index() - length, 0);
  if (!in.Charge(static_cast<size_t>(missing) / 16 + 1)) return Value();
  const int64_t before = kAlign == '<'   ? 0
                         : kAlign == '>' ? missing
                                         : missing / 2 + (missing & width->index() & 1);
  std::string text;
  for (int64_t i = 0; i < before; ++i) text += fill;
  text += s.str();
  for (int64_t i = before; i < missing; ++i) text += fill;
  return in.Str(std::move(text));
}

Value StrZfill(Interpreter& in, const Value& s, const Arguments& a) {
  const Value* width = a.Get(0, "");
  if (width == nullptr || !width->is_integral()) return in.Fail("zfill needs a width");
  const int64_t missing =
      std::max<int64_t>(width->index() - static_cast<int64_t>(Length(s.str())), 0);
  if (!in.Charge(static_cast<size_t>(missing) / 64 + 1)) return Value();
  std::string text = s.str();
  const bool sign = text.starts_with('-') || text.starts_with('+');
  text.insert(sign ? 1 : 0, static_cast<size_t>(missing), '0');
  return in.Str(std::move(text));
}

Value StrExpandTabs(Interpreter& in, const Value& s, const Arguments& a) {
  const Value* given = a.Get(0, "tabsize");
  const int64_t size = given != nullptr && given->is_integral() ? given->index() : 8;
  Text out;
  int64_t column = 0;
  for (const char32_t c : ToCodePoints(s.str())) {
    if (c != '\t') {
      out += c;
      column = c == '\n' || c == '\r' ? 0 : column + 1;
      continue;
    }
    const int64_t blanks = size > 0 ? size - column % size : 0;
    if (!in.Charge(static_cast<size_t>(blanks) / 16 + 1)) return Value();
    out.append(static_cast<size_t>(blanks), U' ');
    column += blanks;
  }
  return in.Str(ToUtf8(out));
}

template <bool kFront>
Value StrRemove(Interpreter& in, const Value& s, const Arguments& a) {
  const Value* what = TextAt(a, 0, "");
  if (what == nullptr) return in.Fail("removeprefix and removesuffix need a string");
  const std::string &text = s.str(), &affix = what->str();
  if (kFront ? !text.starts_with(affix) : !text.ends_with(affix)) return s;
  return in.Str(kFront ? text.substr(affix.size()) : text.substr(0, text.size() - affix.size()));
}

bool IsAlpha(char32_t c) {
  return ClassOf(c) == CharClass::kLetter;
}
bool IsDecimal(char32_t c) {
  return NumberKindOf(c) == NumberKind::kDecimal;
}
bool IsDigit(char32_t c) {
  return NumberKindOf(c) != NumberKind::kNone && NumberKindOf(c) != NumberKind::kNumeric;
}
bool IsNumeric(char32_t c) {
  return NumberKindOf(c) != NumberKind::kNone;
}
bool IsAlnum(char32_t c) {
  return IsAlpha(c) || IsNumeric(c);
}

// True when there is a character and each one `is`.
template <bool (*kIs)(char32_t)>
Value StrAll(Interpreter&, const Value& s, const Arguments&) {
  const Text text = ToCodePoints(s.str());
  return Value(!text.empty() && std::all_of(text.begin(), text.end(), kIs));
}
Value StrIsAscii(Interpreter&, const Value& s, const Arguments&) {
  return Value(std::all_of(s.str().begin(), s.str().end(),
                           [](char c) { return static_cast<uint8_t>(c) < 0x80; }));
}
Value StrIsPrintable(Interpreter&, const Value& s, const Arguments&) {
  const Text text = ToCodePoints(s.str());
  return Value(std::all_of(text.begin(), text.end(), IsPrintable));
}
template <Case kWanted>
Value StrIsCase(Interpreter&, const Value& s, const Arguments&) {
  bool some = false;
  for (const char32_t c : ToCodePoints(s.str())) {
    const Case found = CaseOf(c);
    if (found != Case::kNone && found != kWanted) return Value(false);
    some = some || found == kWanted;
  }
  return Value(some);
}
Value StrIsTitle(Interpreter&, const Value& s, const Arguments&) {
  bool some = false, in_word = false;
  for (const char32_t c : ToCodePoints(s.str())) {
    const Case found = CaseOf(c);
    if (found == Case::kLower ? !in_word : found != Case::kNone && in_word) return Value(false);
    in_word = found != Case::kNone;
    some = some || in_word;
  }
  return Value(some);
}

}  // namespace

Operation FindStringMethod(std::string_view name) {
  static const std::map<std::string_view, Operation> methods = {
      {"capitalize", StrMapped<text::Capitalize>},
      {"casefold", StrMapped<text::CaseFold>},
      {"center", StrJustify<'^'>},
      {"count", StrCount},
      {"endswith", StrAffix<false>},
      {"expandtabs", StrExpandTabs},
      {"find", StrFind<false, false>},
      {"format", StrFormat},
      {"index", StrFind<false, true>},
      {"isalnum", StrAll<IsAlnum>},
      {"isalpha", StrAll<IsAlpha>},
      {"isascii", StrIsAscii},
      {"isdecimal", StrAll<IsDecimal>},
      {"isdigit", StrAll<IsDigit>},
      {"islower", StrIsCase<Case::kLower>},
      {"isnumeric", StrAll<IsNumeric>},
      {"isprintable", StrIsPrintable},
      {"isspace", StrAll<IsPythonSpace>},
      {"istitle", StrIsTitle},
      {"isupper", StrIsCase<Case::kUpper>},
      {"join", StrJoin},
      {"ljust", StrJustify<'<'>},
      {"lower", StrMapped<text::Lower>},
      {"lstrip", StrLstrip},
      {"partition", StrPartition<false>},
      {"removeprefix", StrRemove<true>},
      {"removesuffix", StrRemove<false>},
      {"replace", StrReplace},
      {"rfind", StrFind<true, false>},
      {"rindex", StrFind<true, true>},
      {"rjust", StrJustify<'>'>},
      {"rpartition", StrPartition<true>},
      {"rsplit", StrSplit<true>},
      {"rstrip", StrRstrip},
      {"split", StrSplit<false>},
      {"splitlines", StrSplitLines},
      {"startswith", StrAffix<true>},
      {"strip", StrStrip},
      {"swapcase", StrMapped<text::SwapCase>},
      {"title", StrMapped<text::TitleCase>},
      {"upper", StrMapped<text::Upper>},
      {"zfill", StrZfill}};
  const auto found = methods.find(name);
  return found == methods.end() ? nullptr : found->second;
}

}  // namespace llmd::text::tmpl
