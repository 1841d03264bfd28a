// Methods of list and dict; those of str are in methods_str.cc.
#include <algorithm>
#include <map>

#include "text/template/strings.h"

namespace llmd::text::tmpl {
namespace {

// Containers are copied into a list, so that no list can come to hold itself.
Value Snapshot(Interpreter& in, const Value& v, int depth) {
  if (depth > 100 || !in.Charge(1))
    return in.failed() ? Value() : in.Fail("append: nested too deeply");
  if (v.is_list()) {
    std::vector<Value> items;
    for (const Value& item : v.list()) items.push_back(Snapshot(in, item, depth + 1));
    return Value::MakeList(std::move(items), v.list_kind());
  }
  if (!v.is_dict() || v.dict().is_namespace) return v;
  auto dict = std::make_shared<Dict>();
  for (const auto& [key, value] : v.dict().items)
    dict->items.emplace_back(key, Snapshot(in, value, depth + 1));
  return Value(std::move(dict));
}
Value ListAppend(Interpreter& in, const Value& l, const Arguments& a) {
  if (a.positional.size() != 1) return in.Fail("append takes one value, on a list");
  Value item = Snapshot(in, a.positional[0], 0);
  l.list_object().items.push_back(std::move(item));
  return Value(None{});
}
Value ListPop(Interpreter& in, const Value& l, const Arguments& a) {
  const Value* given = a.Get(0, "index");
  auto& items = l.list_object().items;
  const auto size = static_cast<int64_t>(items.size());
  int64_t at = given != nullptr && given->is_integral() ? given->index() : -1;
  if (at < 0) at += size;
  if (at < 0 || at >= size) return in.Fail("pop index out of range");
  Value item = items[static_cast<size_t>(at)];
  items.erase(items.begin() + at);
  return item;
}
Value ListIndex(Interpreter& in, const Value& l, const Arguments& a) {
  if (a.positional.empty()) return in.Fail("index needs a value");
  const auto bounds = ReadBounds(a.Get(1, "start"), a.Get(2, "stop"), l.list().size());
  if (!bounds) return in.Fail("slice indices must be integers");
  for (int64_t i = bounds->start; i < bounds->end; ++i) {
    if (Equal(l.list()[static_cast<size_t>(i)], a.positional[0])) return Value::Int(i);
  }
  return in.Fail("index: the value is not in the list");
}
Value ListCount(Interpreter& in, const Value& l, const Arguments& a) {
  if (a.positional.size() != 1) return in.Fail("count takes one value");
  return Value::Int(std::count_if(l.list().begin(), l.list().end(),
                                  [&](const Value& v) { return Equal(v, a.positional[0]); }));
}
Value ListCopy(Interpreter& in, const Value& l, const Arguments&) {
  return Value::MakeList(in.Iterate(l));
}

Value DictGet(Interpreter& in, const Value& d, const Arguments& a) {
  if (a.positional.empty() || a.positional.size() > 2)
    return in.Fail("get takes a key and what to give without it");
  if (!in.CheckHashable(a.positional[0])) return Value();
  if (const Value* found = d.dict().Find(a.positional[0])) return *found;
  return a.positional.size() == 2 ? a.positional[1] : Value(None{});
}
Value DictItems(Interpreter& in, const Value& d, const Arguments&) {
  std::vector<Value> pairs;
  for (const auto& [key, value] : d.dict().items)
    pairs.push_back(Value::MakeList({key, value}, ListKind::kTuple));
  return in.Charge(pairs.size()) ? Value::MakeList(std::move(pairs), ListKind::kItems) : Value();
}
Value DictKeys(Interpreter& in, const Value& d, const Arguments&) {
  return Value::MakeList(in.Iterate(d), ListKind::kKeys);
}
Value DictValues(Interpreter& in, const Value& d, const Arguments&) {
  std::vector<Value> values;
  for (const auto& [key, value] : d.dict().items) values.push_back(value);
  return in.Charge(values.size()) ? Value::MakeList(std::move(values), ListKind::kValues) : Value();
}
Value DictCopy(Interpreter& in, const Value& d, const Arguments&) {
  auto dict = std::make_shared<Dict>();
  dict->items = d.dict().items;
  return in.Charge(dict->items.size()) ? Value(std::move(dict)) : Value();
}

Operation Look(const std::map<std::string_view, Operation>& table, std::string_view name) {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace

Operation FindMethod(const Value& self, std::string_view name) {
  static const std::map<std::string_view, Operation> of_list = {{"append", ListAppend},
                                                                {"copy", ListCopy},
                                                                {"count", ListCount},
                                                                {"index", ListIndex},
                                                                {"pop", ListPop}};
  static const std::map<std::string_view, Operation> of_tuple = {{"count", ListCount},
                                                                 {"index", ListIndex}};
  static const std::map<std::string_view, Operation> of_dict = {{"copy", DictCopy},
                                                                {"get", DictGet},
                                                                {"items", DictItems},
                                                                {"keys", DictKeys},
                                                                {"values", DictValues}};
  if (self.is_string()) return FindStringMethod(name);
  if (self.is_plain_list()) return Look(of_list, name);
  if (self.is_indexed()) return Look(of_tuple, name);
  if (self.is_mapping()) return Look(of_dict, name);
  return nullptr;
}

}  // namespace llmd::text::tmpl
