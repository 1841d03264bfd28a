#include "common/body_model.h"

#include <vector>

#include "llmd/json.h"
#include "llmd/json_scan.h"

namespace llmd::services {

void ReadModel(std::string_view body, std::string& model) {
  static thread_local std::vector<json::ScannedMember> members;
  model.clear();
  if (!json::ScanObjectInto(body, {}, members).ok()) return;
  const json::ScannedMember* const found = json::FindMember(members, body, "model");
  if (found == nullptr) return;
  const std::string_view quoted = found->value.In(body);
  if (!quoted.starts_with('"')) return;
  const std::string_view inner = quoted.substr(1, quoted.size() - 2);
  model.resize(inner.size() + json::kUnescapeSlack);
  model.resize(json::UnescapeTo(inner, model.data()));
}

}  // namespace llmd::services
