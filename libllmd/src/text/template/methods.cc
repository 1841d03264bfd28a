// Methods of str, list and dict.
#include <algorithm>
#include <map>

#include "text/template/strings.h"

namespace llmd::text::tmpl {
namespace {

// Every element of a tuple, or the one string.
bool AnyAffix(const Value& self, const Arguments& a, bool front) {
  const Value* given = a.Get(0, "prefix");
  if (given == nullptr) return false;
  const auto fits = [&](const Value& v) {
    return v.is_string() &&
           (front ? self.str().starts_with(v.str()) : self.str().ends_with(v.str()));
  };
  return given->is_list() ? std::any_of(given->list().begin(), given->list().end(), fits)
                          : fits(*given);
}
int64_t MostOf(const Arguments& a) {
  const Value* most = a.Get(1, "maxsplit");
  return most != nullptr && most->is_integral() ? most->integer() : -1;
}
const std::string* TextAt(const Arguments& a, size_t i, std::string_view name) {
  const Value* v = a.Get(i, name);
  return v != nullptr && v->is_string() ? &v->str() : nullptr;
}

Value StrSplit(Interpreter& in, const Value& s, const Arguments& a) {
  return Split(in, s.str(), a.Get(0, "sep"), MostOf(a), false);
}
Value StrRsplit(Interpreter& in, const Value& s, const Arguments& a) {
  return Split(in, s.str(), a.Get(0, "sep"), MostOf(a), true);
}
Value StrStrip(Interpreter& in, const Value& s, const Arguments& a) {
  return in.Str(Strip(s.str(), a.Get(0, "chars"), "lr"));
}
Value StrLstrip(Interpreter& in, const Value& s, const Arguments& a) {
  return in.Str(Strip(s.str(), a.Get(0, "chars"), "l"));
}
Value StrRstrip(Interpreter& in, const Value& s, const Arguments& a) {
  return in.Str(Strip(s.str(), a.Get(0, "chars"), "r"));
}
Value StrStartsWith(Interpreter&, const Value& s, const Arguments& a) {
  return Value(AnyAffix(s, a, true));
}
Value StrEndsWith(Interpreter&, const Value& s, const Arguments& a) {
  return Value(AnyAffix(s, a, false));
}
Value StrLower(Interpreter& in, const Value& s, const Arguments&) {
  return in.Str(Lower(s.str()));
}
Value StrUpper(Interpreter& in, const Value& s, const Arguments&) {
  return in.Str(Upper(s.str()));
}
Value StrCapitalize(Interpreter& in, const Value& s, const Arguments&) {
  return in.Str(Capitalize(s.str()));
}
Value StrTitle(Interpreter& in, const Value& s, const Arguments&) {
  return in.Str(Title(s.str()));
}
Value StrFormat(Interpreter& in, const Value& s, const Arguments& a) {
  return FormatBraces(in, s.str(), a);
}
Value StrReplace(Interpreter& in, const Value& s, const Arguments& a) {
  const std::string* from = TextAt(a, 0, "old");
  const std::string* to = TextAt(a, 1, "new");
  const Value* count = a.Get(2, "count");
  if (from == nullptr || to == nullptr) return in.Fail("replace needs two strings");
  return Replace(in, s.str(), *from, *to,
                 count != nullptr && count->is_integral() ? count->integer() : -1);
}
Value StrJoin(Interpreter& in, const Value& s, const Arguments& a) {
  Arguments separator;
  separator.positional.push_back(s);
  const Value* items = a.Get(0, "iterable");
  return items != nullptr ? in.ApplyFilter("join", *items, separator)
                          : in.Fail("join needs a list");
}
Value StrFind(Interpreter& in, const Value& s, const Arguments& a) {
  const std::string* what = TextAt(a, 0, "sub");
  if (what == nullptr) return in.Fail("find needs a string");
  const size_t at = s.str().find(*what);
  return Value::Int(at == std::string::npos
                        ? -1
                        : static_cast<int64_t>(Length(std::string_view(s.str()).substr(0, at))));
}
Value StrCount(Interpreter& in, const Value& s, const Arguments& a) {
  const std::string* what = TextAt(a, 0, "sub");
  if (what == nullptr || what->empty()) return in.Fail("count needs a non-empty string");
  int64_t count = 0;
  for (size_t at = s.str().find(*what); at != std::string::npos;
       at = s.str().find(*what, at + what->size()))
    ++count;
  return Value::Int(count);
}
Value StrSplitLines(Interpreter& in, const Value& s, const Arguments&) {
  std::vector<Value> lines;
  const std::string& text = s.str();
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find_first_of("\r\n", start), text.size());
    lines.push_back(Value::Str(text.substr(start, end - start)));
    if (!in.Charge(1)) return Value();
    start = end + (text.compare(end, 2, "\r\n") == 0 ? 2 : 1);
  }
  return Value::MakeList(std::move(lines));
}
Value StrIsDigit(Interpreter&, const Value& s, const Arguments&) {
  return Value(!s.str().empty() && s.str().find_first_not_of("0123456789") == std::string::npos);
}
Value StrRemovePrefix(Interpreter& in, const Value& s, const Arguments& a) {
  const std::string* what = TextAt(a, 0, "prefix");
  return what != nullptr && s.str().starts_with(*what) ? in.Str(s.str().substr(what->size())) : s;
}
Value StrRemoveSuffix(Interpreter& in, const Value& s, const Arguments& a) {
  const std::string* what = TextAt(a, 0, "suffix");
  return what != nullptr && s.str().ends_with(*what)
             ? in.Str(s.str().substr(0, s.str().size() - what->size()))
             : s;
}

// Containers are copied into a list, so that no list can come to hold itself.
Value Snapshot(Interpreter& in, const Value& v, int depth) {
  if (depth > 100 || !in.Charge(1))
    return in.failed() ? Value() : in.Fail("append: nested too deeply");
  if (v.is_list()) {
    std::vector<Value> items;
    for (const Value& item : v.list()) items.push_back(Snapshot(in, item, depth + 1));
    return Value::MakeList(std::move(items), v.list_object().tuple);
  }
  if (!v.is_dict() || v.dict().is_namespace) return v;
  auto dict = std::make_shared<Dict>();
  for (const auto& [key, value] : v.dict().items)
    dict->items.emplace_back(key, Snapshot(in, value, depth + 1));
  return Value(std::move(dict));
}
Value ListAppend(Interpreter& in, const Value& l, const Arguments& a) {
  if (a.positional.size() != 1 || l.list_object().tuple)
    return in.Fail("append takes one value, on a list");
  Value item = Snapshot(in, a.positional[0], 0);
  l.list_object().items.push_back(std::move(item));
  return Value(None{});
}
Value ListPop(Interpreter& in, const Value& l, const Arguments& a) {
  const Value* given = a.Get(0, "index");
  auto& items = l.list_object().items;
  const auto size = static_cast<int64_t>(items.size());
  int64_t at = given != nullptr && given->is_integral() ? given->integer() : -1;
  if (at < 0) at += size;
  if (at < 0 || at >= size || l.list_object().tuple) return in.Fail("pop index out of range");
  Value item = items[static_cast<size_t>(at)];
  items.erase(items.begin() + at);
  return item;
}
Value ListIndex(Interpreter& in, const Value& l, const Arguments& a) {
  for (size_t i = 0; i < l.list().size() && !a.positional.empty(); ++i) {
    if (Equal(l.list()[i], a.positional[0])) return Value::Int(static_cast<int64_t>(i));
  }
  return in.Fail("index: the value is not in the list");
}

Value DictGet(Interpreter& in, const Value& d, const Arguments& a) {
  if (a.positional.empty()) return in.Fail("get needs a key");
  if (const Value* found = d.dict().Find(a.positional[0])) return *found;
  const Value* fallback = a.Get(1, "default");
  return fallback != nullptr ? *fallback : Value(None{});
}
Value DictItems(Interpreter& in, const Value& d, const Arguments&) {
  return in.ApplyFilter("items", d, {});
}
Value DictKeys(Interpreter& in, const Value& d, const Arguments&) {
  return Value::MakeList(in.Iterate(d));
}
Value DictValues(Interpreter&, const Value& d, const Arguments&) {
  std::vector<Value> values;
  for (const auto& [key, value] : d.dict().items) values.push_back(value);
  return Value::MakeList(std::move(values));
}

Operation Look(const std::map<std::string_view, Operation>& table, std::string_view name) {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace

Operation FindMethod(const Value& self, std::string_view name) {
  static const std::map<std::string_view, Operation> of_str = {{"capitalize", StrCapitalize},
                                                               {"count", StrCount},
                                                               {"endswith", StrEndsWith},
                                                               {"find", StrFind},
                                                               {"format", StrFormat},
                                                               {"isdigit", StrIsDigit},
                                                               {"join", StrJoin},
                                                               {"lower", StrLower},
                                                               {"lstrip", StrLstrip},
                                                               {"removeprefix", StrRemovePrefix},
                                                               {"removesuffix", StrRemoveSuffix},
                                                               {"replace", StrReplace},
                                                               {"rsplit", StrRsplit},
                                                               {"rstrip", StrRstrip},
                                                               {"split", StrSplit},
                                                               {"splitlines", StrSplitLines},
                                                               {"startswith", StrStartsWith},
                                                               {"strip", StrStrip},
                                                               {"title", StrTitle},
                                                               {"upper", StrUpper}};
  static const std::map<std::string_view, Operation> of_list = {
      {"append", ListAppend}, {"index", ListIndex}, {"pop", ListPop}};
  static const std::map<std::string_view, Operation> of_dict = {
      {"get", DictGet}, {"items", DictItems}, {"keys", DictKeys}, {"values", DictValues}};
  if (self.is_string()) return Look(of_str, name);
  if (self.is_list()) return Look(of_list, name);
  if (self.is_dict() && !self.dict().is_namespace) return Look(of_dict, name);
  return nullptr;
}

}  // namespace llmd::text::tmpl
