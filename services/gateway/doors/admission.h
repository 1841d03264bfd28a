// What the doors decided about one request. Made once and used again: it keeps its memory, and in
// steady state nothing is allocated.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gateway/doors/body_model.h"
#include "gateway/doors/header_span.h"
#include "gateway/doors/ip_address.h"
#include "gateway/doors/key_store.h"
#include "gateway/doors/model_catalogue.h"
#include "gateway/doors/model_routes.h"
#include "gateway/doors/path_rules.h"
#include "gateway/doors/refusal.h"

namespace llmd::doors {

enum class Verdict {
  kForward,  // to an engine
  kOwn,      // a path that the gateway answers itself: see `route`
  kAnswer,   // an empty answer of `status` with response_edits(): OPTIONS
  kRefuse,   // `refusal`, with response_edits()
};

// Views of the request hold as long as the request; all others as long as the admission is not
// cleared. Thread-compatible.
class Admission {
 public:
  Verdict verdict = Verdict::kForward;
  Route route = Route::kUnknown;
  int status = 0;  // of kAnswer
  Refusal refusal;

  IpAddress client;                   // behind trusted proxies the one they name
  bool peer_is_proxy = false;         // its X-Forwarded-* headers may be believed
  bool trusted = false;               // its headers may steer the request
  std::shared_ptr<const ApiKey> key;  // null without keys
  std::optional<int32_t> priority;    // of the key

  std::string_view model;         // that the client names; "" = none, or the body was not read
  std::string_view target_model;  // to be sent for: `model`, or what a route makes of it
  std::string_view pool;          // that is to answer; "" = the scheduler's choice
  std::string_view route_name;    // of the route that was taken, or ""
  BodyModel body_model;
  // What is known of the target; null when it is not known (yet).
  const CatalogueView::Entry* known = nullptr;
  // Of the engines that have told a list, names are added to `out`: of those that serve the target,
  // or of all others. The pool is the admission's, where it has one.
  void AppendEngines(bool serving, std::vector<std::string>& out) const;
  // Some engine has told a list in which the target, which is known, is not.
  bool served_in_part() const { return known != nullptr && in_part_; }

  bool rewritten() const { return target_model != model; }
  // To apply to the client's headers, in order, before anything else reads them.
  std::span<const HeaderEdit> request_edits() const { return {request_.data(), request_size_}; }
  // To apply to the answer, whoever gives it.
  std::span<const HeaderEdit> response_edits() const { return {response_.data(), response_size_}; }
  // The error object of a refusal.
  void AppendBody(std::string& out) const { AppendErrorBody(refusal, IsAnthropic(route), out); }
  void Clear();

 private:
  friend class Doors;
  friend class Lane;
  // One edit of a name is enough; the names that can be edited are fewer than there is room for.
  void EditRequest(const HeaderEdit& edit);
  void EditResponse(const HeaderEdit& edit);
  // Memory for short texts of headers; "" when it is used up.
  std::span<char> Room(size_t bytes);
  // The six headers' worth of one budget.
  void TellBudget(const BudgetState& state, bool tokens);

  std::array<HeaderEdit, 40> request_;
  std::array<HeaderEdit, 24> response_;
  size_t request_size_ = 0, response_size_ = 0, text_size_ = 0;
  std::array<char, 256> text_;
  std::string model_text_, message_scratch_;
  int64_t charged_tokens_ = 0;
  bool settled_ = true, in_part_ = false;
  // What the views point into.
  std::shared_ptr<const ModelRoutes> routes_;
  std::shared_ptr<const CatalogueView> catalogue_;
  std::shared_ptr<const std::string> engine_key_;
};

}  // namespace llmd::doors
