// The model that a JSON body names: found in place, replaced by splice, so that nothing else of the
// body changes; and put back in the answer.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "llmd/json.h"

namespace llmd::doors {

// Of the members "model" at the top level of a body, however the key is escaped.
struct BodyModel {
  size_t copies = 0;      // 0: the body names none
  bool agree = true;      // all copies mean the same text
  bool text = true;       // the last one is a string
  std::string_view name;  // of the last one, which counts: as Python's and Go's readers take it
  json::Span value;       // of the last one, with its quotes
};
// `members` as scanned from `body`. `scratch` holds the name when it is escaped; otherwise `name`
// is a view of the body.
BodyModel FindBodyModel(std::string_view body, std::span<const json::ScannedMember> members,
                        std::string& scratch);
// The same of a body that begins with its model and surely names no other, without a scan of the
// rest (which may be no JSON). False where it takes one.
bool FindFirstModel(std::string_view body, BodyModel& out);
// An integer member of the top level, or `fallback` when there is none of at least 0.
int64_t BodyNumber(std::string_view body, std::span<const json::ScannedMember> members,
                   std::string_view key, int64_t fallback);

// A body with another model, as parts to be sent one after the other.
struct SplicedBody {
  std::string_view before, model, after;
  size_t size() const { return before.size() + model.size() + after.size(); }
};
// `quoted` holds the new name as JSON for as long as the parts are used. `model` names one copy.
SplicedBody SpliceModel(std::string_view body, const BodyModel& model, std::string_view name,
                        std::string& quoted);

// Puts the client's name back where an answer names its model, in one JSON document or in the
// events of a stream, whatever the borders of its chunks: the scheduler's restorer, for answers
// that no Director sees. Thread-compatible.
class AnswerModel {
 public:
  AnswerModel(std::string_view sent, std::string_view asked);
  ~AnswerModel();
  AnswerModel(AnswerModel&&) noexcept;
  AnswerModel& operator=(AnswerModel&&) noexcept;
  // The bytes to pass on; holds back at most one name until the next call, nothing at the end.
  std::string Feed(std::string_view chunk, bool end);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::doors
