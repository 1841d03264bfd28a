#include "transfer/records.h"

#include <algorithm>

#include "transfer/wire.h"

namespace llmd::kv::wire {
namespace {
constexpr size_t kFieldHeadBytes = 8;
constexpr size_t kMaxFields = 64;
}  // namespace

StatusOr<RecordReader> RecordReader::Parse(std::string_view record, std::string_view payload) {
  RecordReader reader;
  reader.record_ = record;
  while (!payload.empty()) {
    if (payload.size() < kFieldHeadBytes)
      return DataLoss(reader.record_ + ": cut in a field's head");
    const auto id = GetLe<uint16_t>(payload.data());
    const auto length = GetLe<uint32_t>(payload.data() + 4);
    payload.remove_prefix(kFieldHeadBytes);
    if (length > payload.size())
      return DataLoss(reader.record_ + ": field " + std::to_string(id) + " is cut");
    const bool doubled = std::any_of(reader.fields_.begin(), reader.fields_.end(),
                                     [&](const Field& f) { return f.id == id; });
    if (doubled)
      return DataLoss(reader.record_ + ": field " + std::to_string(id) + " stands twice");
    if (reader.fields_.size() == kMaxFields)
      return DataLoss(reader.record_ + ": more than 64 fields");
    reader.fields_.push_back({id, payload.substr(0, length)});
    payload.remove_prefix(length);
  }
  return reader;
}

Status RecordReader::Text(uint16_t field, std::string_view name, std::string* out) const {
  LLMD_ASSIGN_OR_RETURN(std::string_view bytes, Find(field, name));
  if (bytes.size() > kMaxTextBytes) return WrongSize(name, bytes.size());
  *out = bytes;
  return OkStatus();
}

StatusOr<std::string_view> RecordReader::Find(uint16_t field, std::string_view name) const {
  for (const Field& f : fields_) {
    if (f.id == field) return f.bytes;
  }
  return DataLoss(record_ + ": field " + std::string(name) + " is missing");
}

Status RecordReader::WrongSize(std::string_view name, size_t size) const {
  return DataLoss(record_ + ": field " + std::string(name) + " has " + std::to_string(size) +
                  " bytes");
}

}  // namespace llmd::kv::wire
