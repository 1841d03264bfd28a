#include <algorithm>

#include "gateway/doors/doors.h"
#include "llmd/format.h"
#include "llmd/json_scan.h"

namespace llmd::doors {
namespace {

constexpr std::string_view kFairness = "x-llm-d-inference-fairness-id",
                           kOldFairness = "x-gateway-inference-fairness-id",
                           kObjective = "x-llm-d-inference-objective",
                           kOldObjective = "x-gateway-inference-objective",
                           kRewrite = "x-llm-d-model-name-rewrite",
                           kOldRewrite = "x-gateway-model-name-rewrite", kPool = "x-llm-d-pool";

// A rough count of a prompt's tokens, and what an answer is taken to have when the request does not
// say how long it may be.
constexpr size_t kBytesPerToken = 4;
constexpr int64_t kUnsaidTokens = 256;

struct Failed {
  int status;
  std::string_view code, message;
};
constexpr Failed TextOf(AuthFailure failure) {
  switch (failure) {
    case AuthFailure::kMissing:
      return {401, "missing_api_key",
              "no API key: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"};
    case AuthFailure::kMalformed:
      return {401, "invalid_api_key",
              "the request shows its API key in no way that can be read: expected one "
              "'Authorization: Bearer KEY' or 'x-api-key: KEY'"};
    case AuthFailure::kExpired:
      return {401, "expired_api_key", "the API key has expired"};
    case AuthFailure::kUnknown:
    case AuthFailure::kDisabled:
    case AuthFailure::kModel:
      break;
  }
  return {401, "invalid_api_key", "the API key is not valid"};
}

bool HasSteering(HeaderSpan headers, std::string_view name, std::string_view old_name) {
  return headers.Get(name) || headers.Get(old_name);
}

// The value of a header or of its old spelling, as the scheduler reads them.
std::string_view EitherOf(HeaderSpan headers, std::string_view name, std::string_view old_name) {
  const std::string_view value = headers.Get(name).value_or("");
  return value.empty() ? headers.Get(old_name).value_or("") : value;
}

}  // namespace

Lane::Lane(Doors& doors, int index)
    : doors_(doors),
      keys_(doors.keys_.table()),
      routes_(doors.routes_),
      catalogue_(doors.catalogue_.view()),
      engine_key_(doors.engine_key_),
      random_(doors.options_.seed * 0x9e3779b97f4a7c15 + static_cast<uint64_t>(index) + 1) {}

uint64_t Lane::Random() {
  uint64_t z = random_ += 0x9e3779b97f4a7c15;  // splitmix64
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

void Lane::Refuse(Admission& a, int status, std::string_view code, std::string_view text,
                  std::string_view field) {
  a.verdict = Verdict::kRefuse;
  a.refusal.Set(status, code, text, field);
}

void Lane::AdmitHead(const DoorRequest& request, Admission& a) {
  a.Clear();
  a.peer_is_proxy = doors_.trust_.IsProxy(request.peer);
  a.client = doors_.trust_.ClientOf(request.peer, request.headers);
  a.trusted = doors_.trust_.TrustsAddress(a.client);
  if (!AdmitPath(request, a) || !AdmitKey(request, a) || a.verdict != Verdict::kForward) return;
  EditHeaders(request, a);
  (void)AdmitRate(request, a);
}

void Lane::Admit(const DoorRequest& request, std::string_view body,
                 const std::vector<json::ScannedMember>* members, Admission& a) {
  AdmitHead(request, a);
  if (a.verdict == Verdict::kForward) AdmitBody(request, body, members, a);
}

// CORS comes before refusals, so that pages can read them.
bool Lane::AdmitPath(const DoorRequest& request, Admission& a) {
  const PathDecision path = doors_.paths_.Decide(request.method, request.path());
  a.route = path.route;
  if (!AdmitOrigin(request, path.allowed, a)) return false;
  if (path.status == 0) {
    if (request.method == "OPTIONS") {
      a.verdict = Verdict::kAnswer;
      a.status = 204;
      const bool preflight = Cors::IsPreflight(request.method, request.headers);
      if (!doors_.cors_.on() || !preflight) a.EditResponse({"allow", path.allowed});
    } else if (AnswersHere(path.route)) {
      a.verdict = Verdict::kOwn;
    }
    return a.verdict != Verdict::kAnswer;
  }
  doors_.metrics_.refused_paths.Add();
  if (path.status == 400) {
    Refuse(a, 400, "invalid_path", path.fault);
  } else if (path.status == 404) {
    Refuse(a, 404, "unknown_path", "there is nothing at ");
    AppendClientText(a.refusal.message, request.path());
  } else {
    Refuse(a, 405, "method_not_allowed", "the path allows ");
    a.refusal.message.append(path.allowed);
    a.EditResponse({"allow", path.allowed});
  }
  return false;
}

// Models are told by an engine until one has told them to the catalogue.
bool Lane::AnswersHere(Route route) {
  if (!IsOwn(route)) return false;
  return (route != Route::kModels && route != Route::kModel) ||
         !catalogue_.Load()->models.empty() || !routes_.Load()->routes().empty();
}

bool Lane::AdmitOrigin(const DoorRequest& request, std::string_view methods, Admission& a) {
  const Cors& cors = doors_.cors_;
  const std::string_view origin = request.headers.Get("origin").value_or("");
  // Engines' own leave (vLLM gives it to all) is not theirs to give.
  if (!origin.empty()) a.EditResponse({"access-control-allow-credentials", {}, true});
  if (!origin.empty() && !(cors.on() && cors.Allows(origin)))
    a.EditResponse({"access-control-allow-origin", {}, true});
  if (!cors.on()) return true;
  const bool allowed = !origin.empty() && cors.Allows(origin);
  const bool preflight = Cors::IsPreflight(request.method, request.headers);
  HeaderEdit edits[Cors::kMaxEdits];
  size_t count = 0;
  if (preflight && allowed)
    count = cors.PreflightEdits(origin, methods, edits);
  else
    count = cors.AnswerEdits(allowed ? origin : "", edits);
  for (size_t i = 0; i < count; ++i) a.EditResponse(edits[i]);
  if (!preflight || allowed) return true;
  doors_.metrics_.refused_origins.Add();
  Refuse(a, 403, "origin_not_allowed", "pages of this origin may not call the gateway");
  return false;
}

bool Lane::AdmitKey(const DoorRequest& request, Admission& a) {
  const bool open =
      a.verdict == Verdict::kOwn && a.route != Route::kModels && a.route != Route::kModel;
  if (!doors_.keys_on() || open) return true;
  KeyCheck check =
      CheckKey(*keys_.Load(), request.headers, doors_.clock_.UnixNanos() / 1'000'000'000);
  if (!check.key) {
    doors_.metrics_.Failed(check.failure);
    const Failed failed = TextOf(check.failure);
    Refuse(a, failed.status, failed.code, failed.message);
    a.EditResponse({"www-authenticate", "Bearer"});
    return false;
  }
  a.key = std::move(check.key);
  a.trusted |= a.key->record.trusted;
  a.priority = a.key->record.priority;
  return true;
}

// What only the gateway or those it trusts may say is taken out; what the key says is put in.
void Lane::EditHeaders(const DoorRequest& request, Admission& a) {
  const bool restricted = doors_.keys_on() || doors_.trust_.names_addresses();
  for (size_t i = 0; !a.trusted && i < request.headers.size(); ++i) {
    const std::string_view name = request.headers[i].name;
    const SteeringHeader kind = SteeringHeaderOf(name);
    if (kind == SteeringHeader::kDestination || (kind == SteeringHeader::kPriority && restricted))
      a.EditRequest({name, {}, true});
  }
  if (doors_.keys_on()) {
    a.EditRequest({"authorization", {}, true});
    a.EditRequest({"x-api-key", {}, true});
  }
  if (const auto& engine_key = engine_key_.Load()) {
    a.engine_key_ = engine_key;
    a.EditRequest({"authorization", *engine_key});
  }
  if (!a.key) return;
  const KeyRecord& key = a.key->record;
  if (!a.trusted || !HasSteering(request.headers, kFairness, kOldFairness))
    a.EditRequest({kFairness, key.fairness_id.empty() ? key.tenant : key.fairness_id});
  if (!key.objective.empty() &&
      (!a.trusted || !HasSteering(request.headers, kObjective, kOldObjective))) {
    a.EditRequest({kObjective, key.objective});
  }
}

bool Lane::AdmitRate(const DoorRequest& request, Admission& a) {
  if (!a.key) return true;
  const BudgetState state = a.key->budget->requests.Take(1, request.now);
  if (!state.allowed)
    Refuse(a, 429, "rate_limit_exceeded", "the key has used up its requests of a minute");
  a.TellBudget(state, false);
  (state.allowed ? a.key->counters->requests : a.key->counters->limited_requests)->Add();
  return state.allowed;
}

std::span<const json::ScannedMember> Lane::Scan(std::string_view body, Route route) {
  if (!IsInference(route) && body.front() != '{') return {};
  return json::ScanObjectInto(body, {}, scanned_).ok() ? std::span(scanned_)
                                                       : std::span<json::ScannedMember>();
}

void Lane::AdmitBody(const DoorRequest& request, std::string_view body,
                     const std::vector<json::ScannedMember>* given, Admission& a) {
  if (body.empty() || a.verdict != Verdict::kForward) return;
  std::span<const json::ScannedMember> members;
  // A key's tokens are estimated by other members.
  if (given != nullptr || a.key || !FindFirstModel(body, a.body_model)) {
    members = given != nullptr ? *given : Scan(body, a.route);
    a.body_model = FindBodyModel(body, members, a.model_text_);
  }
  a.model = a.target_model = a.body_model.name;
  if (!AdmitModel(request, a) || !ChooseRoute(request, a)) return;
  (void)AdmitTokens(request, body, members, a);
}

bool Lane::AdmitModel(const DoorRequest& request, Admission& a) {
  const std::shared_ptr<const ModelRoutes>& routes = routes_.Load();
  const bool matters = a.key != nullptr || routes->name_matters();
  if (!a.body_model.agree && matters) {
    doors_.metrics_.disagreeing_models.Add();
    Refuse(a, 400, "ambiguous_model", "the body names several models", "model");
    return false;
  }
  if (!a.key || a.key->record.models.empty()) return true;
  if (a.model.empty()) {
    Refuse(a, 400, "missing_model", "the body names no model, which this key needs", "model");
    return false;
  }
  // A trusted key may ask for another model by header, not for one that is not its own.
  const std::string_view asked =
      a.trusted ? EitherOf(request.headers, kRewrite, kOldRewrite) : std::string_view();
  for (const std::string_view model : {a.model, asked}) {
    if (model.empty() || a.key->record.MayUse(model)) continue;
    doors_.metrics_.Failed(AuthFailure::kModel);
    Refuse(a, 403, "model_not_allowed", "the key may not use the model ", "model");
    AppendClientText(a.refusal.message, model);
    return false;
  }
  return true;
}

bool Lane::ChooseRoute(const DoorRequest& request, Admission& a) {
  if (a.model.empty()) return true;
  const std::shared_ptr<const ModelRoutes>& routes = routes_.Load();
  const bool asks = a.trusted || !(doors_.keys_on() || doors_.trust_.names_addresses());
  const std::string_view asked =
      asks ? EitherOf(request.headers, kRewrite, kOldRewrite) : std::string_view();
  const std::string_view asked_pool =
      asks ? request.headers.Get(kPool).value_or("") : std::string_view();
  RouteChoice choice{nullptr, asked.empty() ? a.model : asked, asked_pool, nullptr};
  if (routes->name_matters() && asked.empty() && asked_pool.empty()) {
    const RouteClient client{request.headers, a.key ? std::string_view(a.key->record.id) : "",
                             a.key ? std::string_view(a.key->record.tenant) : "",
                             request.headers.Get("host").value_or("")};
    choice = routes->Choose(a.model, client, Random());
    a.routes_ = routes;
  }
  a.target_model = choice.model;
  a.pool = choice.pool;
  if (choice.route != nullptr) a.route_name = choice.route->name;
  if (choice.chosen != nullptr) choice.chosen->Add();
  if (a.rewritten() && a.body_model.copies > 1) {
    doors_.metrics_.disagreeing_models.Add();
    Refuse(a, 400, "ambiguous_model", "a body that names its model twice is not rewritten",
           "model");
    return false;
  }
  if (a.rewritten()) a.EditRequest({kRewrite, a.target_model});
  if (!a.pool.empty()) a.EditRequest({kPool, a.pool});
  const std::shared_ptr<const CatalogueView>& view = catalogue_.Load();
  a.known = view->Find(a.target_model, a.pool);
  if (a.known != nullptr) {
    a.catalogue_ = view;
    a.in_part_ = a.known->engines.size() < view->listed.size();
  }
  if (a.known != nullptr || !doors_.options_.refuse_unknown_models || !view->Complete(a.pool) ||
      routes->rewritten_behind(a.model)) {
    return true;
  }
  doors_.metrics_.unknown_models.Add();
  Refuse(a, 404, "model_not_found", "there is no model ", "model");
  AppendClientText(a.refusal.message, a.model);
  return false;
}

bool Lane::AdmitTokens(const DoorRequest& request, std::string_view body,
                       std::span<const json::ScannedMember> members, Admission& a) {
  if (!a.key) return true;
  a.settled_ = false;
  MinuteBudget& budget = a.key->budget->tokens;
  if (budget.limit() <= 0) return true;
  int64_t answer = kUnsaidTokens;
  for (const std::string_view name : {"max_tokens", "max_completion_tokens", "max_output_tokens"}) {
    const int64_t said = BodyNumber(body, members, name, -1);
    if (said >= 0) answer = std::min(said, kMaxPerMinute);
  }
  if (a.route == Route::kEmbeddings || a.route == Route::kCountTokens) answer = 0;
  const auto prompt = static_cast<int64_t>(body.size() / kBytesPerToken);
  // What a minute allows is charged at most: an estimate alone must not shut a key out for good.
  const int64_t estimate = std::min(prompt + answer, budget.limit());
  const BudgetState state = budget.Take(estimate, request.now);
  if (!state.allowed) {
    a.settled_ = true;
    Refuse(a, 429, "rate_limit_exceeded", "the key has used up its tokens of a minute");
    a.key->counters->limited_tokens->Add();
  } else {
    a.charged_tokens_ = estimate;
  }
  a.TellBudget(state, true);
  return state.allowed;
}

}  // namespace llmd::doors
