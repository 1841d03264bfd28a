// Filters of sequences and mappings. What is an iterator in Python is one here.
#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>
#include <utility>

#include "text/template/strings.h"

namespace llmd::text::tmpl {
namespace {

bool Truth(const Arguments& a, size_t i, std::string_view name) {
  const Value* v = a.Get(i, name);
  return v != nullptr && v->Truthy();
}
Value Iterator(std::vector<Value> items) {
  return Value::MakeList(std::move(items), ListKind::kIterator);
}
Value Attribute(Interpreter& in, const Value& item, const Value* path) {
  return path == nullptr || path->is_none() ? item : AttributePath(in, item, *path);
}
std::string NotOrdered(const Value& a, const Value& b) {
  return "'<' not supported between '" + std::string(a.TypeName()) + "' and '" +
         std::string(b.TypeName()) + "'";
}

Value Join(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* given = a.Get(0, "d");
  const std::string separator = given != nullptr ? ToText(*given) : "";
  std::string text;
  bool first = true;
  for (const Value& item : in.Iterate(v)) {
    if (!first) text += separator;
    first = false;
    text += ToText(Attribute(in, item, a.Get(1, "attribute")));
    if (!in.Charge(separator.size() / 64 + 1)) return Value();
  }
  return in.Str(std::move(text));
}
Value Items(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is_undefined()) return Iterator({});
  if (!v.is_mapping()) return in.Fail("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const auto& [key, value] : v.dict().items)
    pairs.push_back(Value::MakeList({key, value}, ListKind::kTuple));
  return in.Charge(pairs.size()) ? Iterator(std::move(pairs)) : Value();
}
Value ListFilter(Interpreter& in, const Value& v, const Arguments&) {
  return Value::MakeList(in.Iterate(v));
}

// The items of what select, reject and map walk: nothing is walked when the value is false.
std::vector<Value> ItemsToChoose(Interpreter& in, const Value& v) {
  return v.Truthy() ? in.Iterate(v) : std::vector<Value>();
}

// select, reject and their attr forms: `at` is the index of the test's name.
Value Choose(Interpreter& in, const Value& v, const Arguments& a, bool by_attribute, bool keep) {
  const size_t at = by_attribute ? 1 : 0;
  std::vector<Value> kept;
  const std::vector<Value> items = ItemsToChoose(in, v);
  if (items.empty()) return Iterator({});
  if (by_attribute && a.positional.empty())
    return in.Fail("selectattr and rejectattr need an attribute's name");
  Arguments rest;
  rest.named = a.named;
  if (a.positional.size() > at + 1)
    rest.positional.assign(a.positional.begin() + static_cast<ptrdiff_t>(at) + 1,
                           a.positional.end());
  for (const Value& item : items) {
    const Value subject = by_attribute ? AttributePath(in, item, a.positional[0]) : item;
    const bool passes = a.positional.size() > at
                            ? in.ApplyTest(ToText(a.positional[at]), subject, rest)
                            : subject.Truthy();
    if (!in.Charge(1)) return Value();
    if (passes == keep) kept.push_back(item);
  }
  return Iterator(std::move(kept));
}
Value Select(Interpreter& in, const Value& v, const Arguments& a) {
  return Choose(in, v, a, false, true);
}
Value Reject(Interpreter& in, const Value& v, const Arguments& a) {
  return Choose(in, v, a, false, false);
}
Value SelectAttr(Interpreter& in, const Value& v, const Arguments& a) {
  return Choose(in, v, a, true, true);
}
Value RejectAttr(Interpreter& in, const Value& v, const Arguments& a) {
  return Choose(in, v, a, true, false);
}

Value Map(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* attribute = a.Get(SIZE_MAX, "attribute");
  const Value* fallback = a.Get(SIZE_MAX, "default");
  const std::vector<Value> items = ItemsToChoose(in, v);
  if (items.empty()) return Iterator({});
  if (attribute == nullptr && a.positional.empty())
    return in.Fail("map needs a filter's name or attribute=");
  Arguments rest;
  if (a.positional.size() > 1) rest.positional.assign(a.positional.begin() + 1, a.positional.end());
  if (attribute == nullptr) rest.named = a.named;
  std::vector<Value> out;
  for (const Value& item : items) {
    Value mapped = attribute != nullptr ? AttributePath(in, item, *attribute)
                                        : in.ApplyFilter(ToText(a.positional[0]), item, rest);
    if (!in.Charge(1)) return Value();
    if (mapped.is_undefined() && fallback != nullptr && !fallback->is_none()) mapped = *fallback;
    out.push_back(std::move(mapped));
  }
  return Iterator(std::move(out));
}

Value Folded(const Value& v, bool case_sensitive) {
  return v.is_string() && !case_sensitive ? Value::Str(Lower(v.str())) : v;
}

// The key of each item: a list, as jinja's, so that equal values without an order do no harm. "a,b"
// as attribute makes a list of both.
std::vector<Value> KeysOf(Interpreter& in, const std::vector<Value>& items, const Value* attribute,
                          bool case_sensitive) {
  std::vector<Value> keys;
  const bool named = attribute != nullptr && attribute->is_string();
  for (const Value& item : items) {
    std::vector<Value> parts;
    std::string_view rest = named ? std::string_view(attribute->str()) : std::string_view();
    for (size_t comma = 0; named && comma != rest.npos;) {
      comma = rest.find(',');
      const Value path = Value::Str(std::string(rest.substr(0, comma)));
      parts.push_back(Folded(AttributePath(in, item, path), case_sensitive));
      rest.remove_prefix(comma == rest.npos ? rest.size() : comma + 1);
    }
    if (!named) parts.push_back(Folded(Attribute(in, item, attribute), case_sensitive));
    keys.push_back(Value::MakeList(std::move(parts)));
  }
  return keys;
}

// Stable; fails on what has no order.
bool SortBy(Interpreter& in, std::vector<Value>& items, const std::vector<Value>& keys,
            bool reverse) {
  if (in.failed() || !in.Charge(items.size() * 4)) return false;
  for (size_t i = 1; i < keys.size(); ++i) {
    if (Compare(keys[0], keys[i])) continue;
    in.Fail(NotOrdered(keys[i], keys[0]));
    return false;
  }
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int c = Compare(keys[a], keys[b]).value_or(0);
    return c != 0 ? (reverse ? c > 0 : c < 0) : a < b;
  });
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (const size_t i : order) sorted.push_back(items[i]);
  items = std::move(sorted);
  return true;
}
Value Sort(Interpreter& in, const Value& v, const Arguments& a) {
  std::vector<Value> items = in.Iterate(v);
  const auto keys = KeysOf(in, items, a.Get(2, "attribute"), Truth(a, 1, "case_sensitive"));
  return SortBy(in, items, keys, Truth(a, 0, "reverse")) ? Value::MakeList(std::move(items))
                                                         : Value();
}
Value DictSort(Interpreter& in, const Value& v, const Arguments& a) {
  if (!v.is_mapping()) return in.Fail("dictsort needs a mapping");
  const Value* given = a.Get(1, "by");
  const std::string by = given != nullptr ? ToText(*given) : "key";
  if (by != "key" && by != "value")
    return in.Fail("You can only sort by either \"key\" or \"value\"");
  const bool exact = Truth(a, 0, "case_sensitive");
  std::vector<Value> items, keys;
  for (const auto& [key, value] : v.dict().items) {
    items.push_back(Value::MakeList({key, value}, ListKind::kTuple));
    keys.push_back(Folded(by == "value" ? value : key, exact));
  }
  return SortBy(in, items, keys, Truth(a, 2, "reverse")) ? Value::MakeList(std::move(items))
                                                         : Value();
}
Value GroupBy(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* attribute = a.Get(0, "attribute");
  const Value* fallback = a.Get(1, "default");
  const bool exact = Truth(a, 2, "case_sensitive");
  if (attribute == nullptr) return in.Fail("groupby needs an attribute");
  const auto key_of = [&](const Value& item) {
    Value key = AttributePath(in, item, *attribute);
    return key.is_undefined() && fallback != nullptr ? *fallback : key;
  };
  std::vector<Value> items = in.Iterate(v), keys;
  for (const Value& item : items) keys.push_back(Folded(key_of(item), exact));
  if (!SortBy(in, items, keys, false)) return Value();
  std::vector<Value> groups;
  for (size_t i = 0; i < items.size();) {
    const Value key = Folded(key_of(items[i]), exact), shown = key_of(items[i]);
    std::vector<Value> members;
    while (i < items.size() && Equal(Folded(key_of(items[i]), exact), key))
      members.push_back(items[i++]);
    if (in.failed() || members.empty()) return Value();
    groups.push_back(
        Value::MakeList({shown, Value::MakeList(std::move(members))}, ListKind::kGroup));
  }
  return Value::MakeList(std::move(groups));
}
Value Unique(Interpreter& in, const Value& v, const Arguments& a) {
  const std::vector<Value> items = in.Iterate(v);
  std::vector<Value> out, seen;
  for (const Value& item : items) {
    Value key = Folded(Attribute(in, item, a.Get(1, "attribute")), Truth(a, 0, "case_sensitive"));
    if (!in.CheckHashable(key) || !in.Charge(seen.size() / 8 + 1)) return Value();
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return Equal(s, key); }))
      continue;
    seen.push_back(std::move(key));
    out.push_back(item);
  }
  return Iterator(std::move(out));
}
Value Extreme(Interpreter& in, const Value& v, const Arguments& a, int sign) {
  const Value* attribute = a.Get(1, "attribute");
  const bool exact = Truth(a, 0, "case_sensitive");
  const std::vector<Value> items = in.Iterate(v);
  const auto key = [&](const Value& item) { return Folded(Attribute(in, item, attribute), exact); };
  const Value* best = nullptr;
  for (const Value& item : items) {
    const auto order = best != nullptr ? Compare(key(item), key(*best)) : sign;
    if (!order) return in.Fail(NotOrdered(item, *best));
    if (*order == sign || best == nullptr) best = &item;
  }
  return best != nullptr ? *best : Value::MakeUndefined("No aggregated item, sequence was empty.");
}
Value Min(Interpreter& in, const Value& v, const Arguments& a) {
  return Extreme(in, v, a, -1);
}
Value Max(Interpreter& in, const Value& v, const Arguments& a) {
  return Extreme(in, v, a, 1);
}

Value First(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is_iterator() && !v.list().empty()) {
    auto& items = v.list_object().items;
    Value first = items.front();
    items.erase(items.begin());
    return first;
  }
  const auto items = in.Iterate(v);
  return items.empty() ? Value::MakeUndefined("No first item, sequence was empty.") : items.front();
}
Value Last(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is_iterator() || v.is_undefined())
    return in.Fail("'" + std::string(v.TypeName()) + "' object is not reversible");
  const auto items = in.Iterate(v);
  return items.empty() ? Value::MakeUndefined("No last item, sequence was empty.") : items.back();
}
Value Reverse(Interpreter& in, const Value& v, const Arguments&) {
  const bool had_iterator = v.is_iterator();
  std::vector<Value> items = in.Iterate(v);
  std::reverse(items.begin(), items.end());
  if (!v.is_string())
    return had_iterator || v.is_undefined() ? Value::MakeList(std::move(items))
                                            : Iterator(std::move(items));
  std::string text;
  for (const Value& c : items) text += c.str();
  return Value::Str(std::move(text));
}
Value Sum(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* start = a.Get(1, "start");
  Value total = start != nullptr ? *start : Value::Int(0);
  if (total.is_string()) return in.Fail("sum() can't sum strings");
  for (const Value& item : in.Iterate(v))
    total = in.Arithmetic("+", total, Attribute(in, item, a.Get(0, "attribute")));
  return total;
}

Value Batch(Interpreter& in, const Value& v, const Arguments& a) {
  const Value *count = a.Get(0, "linecount"), *fill = a.Get(1, "fill_with");
  if (count == nullptr || !count->is_integral()) return in.Fail("batch needs a number");
  const auto size = static_cast<size_t>(std::max<int64_t>(count->index(), 1));
  std::vector<Value> batches, line;
  for (Value& item : in.Iterate(v)) {
    line.push_back(std::move(item));
    if (line.size() == size) batches.push_back(Value::MakeList(std::exchange(line, {})));
  }
  if (line.empty()) return Iterator(std::move(batches));
  if (fill != nullptr && !fill->is_none()) {
    if (!in.Charge(size)) return Value();
    line.resize(size, *fill);
  }
  batches.push_back(Value::MakeList(std::move(line)));
  return Iterator(std::move(batches));
}
Value SliceFilter(Interpreter& in, const Value& v, const Arguments& a) {
  const Value *count = a.Get(0, "slices"), *fill = a.Get(1, "fill_with");
  if (count == nullptr || !count->is_integral() || count->index() < 1)
    return in.Fail("slice needs a number above zero");
  const std::vector<Value> items = in.Iterate(v);
  const auto slices = static_cast<size_t>(count->index());
  if (!in.Charge(slices)) return Value();
  const size_t each = items.size() / slices, extra = items.size() % slices;
  std::vector<Value> out;
  auto at = items.begin();
  for (size_t i = 0; i < slices; ++i) {
    const auto end = at + static_cast<ptrdiff_t>(each + (i < extra ? 1 : 0));
    std::vector<Value> part(at, end);
    if (fill != nullptr && !fill->is_none() && i >= extra) part.push_back(*fill);
    out.push_back(Value::MakeList(std::move(part)));
    at = end;
  }
  return Iterator(std::move(out));
}

}  // namespace

// As jinja's make_attrgetter.
Value AttributePath(Interpreter& in, Value item, const Value& path) {
  if (path.is_integral()) return in.GetItem(item, path);
  std::string_view rest = path.is_string() ? std::string_view(path.str()) : std::string_view();
  while (!in.failed()) {
    const size_t dot = rest.find('.');
    const std::string part(rest.substr(0, dot));
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = parsed.ec == std::errc() && parsed.ptr == part.data() + part.size();
    item = in.GetItem(item, number ? Value::Int(index) : Value::Str(part));
    if (dot == rest.npos) break;
    rest.remove_prefix(dot + 1);
  }
  return item;
}

Operation FindSequenceFilter(std::string_view name) {
  static const std::map<std::string_view, Operation> filters = {{"batch", Batch},
                                                                {"dictsort", DictSort},
                                                                {"first", First},
                                                                {"groupby", GroupBy},
                                                                {"items", Items},
                                                                {"join", Join},
                                                                {"last", Last},
                                                                {"list", ListFilter},
                                                                {"map", Map},
                                                                {"max", Max},
                                                                {"min", Min},
                                                                {"reject", Reject},
                                                                {"rejectattr", RejectAttr},
                                                                {"reverse", Reverse},
                                                                {"select", Select},
                                                                {"selectattr", SelectAttr},
                                                                {"slice", SliceFilter},
                                                                {"sort", Sort},
                                                                {"sum", Sum},
                                                                {"unique", Unique}};
  const auto found = filters.find(name);
  return found == filters.end() ? nullptr : found->second;
}

}  // namespace llmd::text::tmpl
