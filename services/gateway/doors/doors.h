// Every door of the gateway in one place: who may come in, with what, for which model, how often,
// and as what it goes on. Plain values in, an Admission out; no socket, no coroutine.
//
//   ClientShare share = doors.bounds().Open(peer, refusal);  // a connection; Take and GiveBack
//   Lane lane(doors, i);                                     // one a loop
//   lane.AdmitHead(request, admission);                      // the head is whole
//   lane.AdmitBody(request, body, members, admission);       // the body is whole, if kForward
//   doors.Settle(admission, usage, now);                     // the answer has ended, however
//
// Between the last two the scheduler is told the admission's pool and priority, and sees the
// headers as edited.
// Besides, the data plane tells the catalogue who is there (SetMembers), and a few times a second
// asks it whom to read (NextDue) and hands in the pages (Learn, Fail).
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/doors/admission.h"
#include "gateway/doors/client_bounds.h"
#include "gateway/doors/client_trust.h"
#include "gateway/doors/cors.h"
#include "gateway/doors/door_metrics.h"
#include "gateway/doors/followed_file.h"
#include "gateway/doors/key_store.h"
#include "gateway/doors/model_catalogue.h"
#include "gateway/doors/model_routes.h"
#include "gateway/doors/path_rules.h"
#include "gateway/doors/rate_limiter.h"
#include "llmd/clock.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/snapshot.h"
#include "llmd/status.h"

namespace llmd::doors {

struct DoorOptions {
  std::string keys_file;        // "" = no keys
  bool key_priorities = true;   // keys may have a `priority`: the scheduler is in this process
  std::string engine_key_file;  // "" = engines get no key of ours
  std::vector<std::string> trusted_cidrs, trusted_proxies;
  AddressHeader address_header = AddressHeader::kXForwardedFor;
  CorsOptions cors;
  PathOptions paths;
  bool refuse_unknown_models = true;
  Duration model_interval = std::chrono::seconds(10);
  RouteFiles routes;
  BoundLimits each_client, all_clients;
  uint64_t seed = 1;  // of splits that are not sticky
};

struct DoorRequest {
  std::string_view method, target;  // origin form: path and query
  HeaderSpan headers;
  IpAddress peer;
  TimePoint now{};

  std::string_view path() const { return target.substr(0, target.find('?')); }
};

// What a request has cost when it is over.
struct DoorUsage {
  bool answered = false;  // an engine's answer began; else nothing is charged
  int64_t tokens = -1;    // input and output; -1 = not known: the estimate stands
};

// Thread-safe.
class Doors {
 public:
  // Reads all files and follows them. INVALID_ARGUMENT names the flag or the place in a file.
  // `metrics` and `clock` outlive it.
  static StatusOr<std::unique_ptr<Doors>> Create(DoorOptions options, const Logger& logger,
                                                 MetricsRegistry& metrics, const Clock& clock);
  ~Doors();

  // Once for each admission that was let in; a second call does nothing. Gives back what the
  // estimate was too high.
  void Settle(Admission& admission, const DoorUsage& usage, TimePoint now);
  // Reads all files again (SIGHUP). Those that are bad keep what was; the last error.
  Status Reload();

  // GET /v1/models: what engines list and what routes add, as far as the key may use it.
  std::string ModelsBody(const Admission& admission) const;
  // GET /v1/models/{id}: false and a filled refusal when there is none.
  bool ModelBody(std::string_view path, Admission& admission, std::string& out) const;

  ModelCatalogue& catalogue() { return catalogue_; }
  ClientBounds& bounds() { return bounds_; }
  const Cors& cors() const { return cors_; }
  bool keys_on() const { return !options_.keys_file.empty(); }
  // "Bearer …" for requests of the gateway's own (probes, /v1/models); null without one.
  std::shared_ptr<const std::string> engine_key() const { return engine_key_.Load(); }

 private:
  friend class Lane;
  Doors(DoorOptions options, MetricsRegistry& metrics, const Clock& clock);
  Status Open(const Logger& logger);
  Status Follow(const char* flag, const char* kind, const std::string& path,
                std::function<Status()> load, const Logger& logger);
  void Show(MetricsRegistry& metrics);
  Status LoadRoutesNow();
  Status LoadEngineKey();

  const DoorOptions options_;
  const Clock& clock_;
  DoorMetrics metrics_;
  RateLimiter limiter_;
  KeyStore keys_;
  ModelCatalogue catalogue_;
  ClientBounds bounds_;
  ClientTrust trust_;
  Cors cors_;
  PathRules paths_;
  std::mutex routes_mutex_;  // several files make one table
  Snapshot<ModelRoutes> routes_{std::make_shared<const ModelRoutes>()};
  Snapshot<std::string> engine_key_;
  std::vector<std::shared_ptr<const void>> gauges_;
  std::vector<std::unique_ptr<FollowedFile>> files_;  // last: their threads use the rest
};

// One loop's view of the doors, without locks. Thread-compatible; the doors outlive it.
class Lane {
 public:
  Lane(Doors& doors, int index);

  // Decides what the head alone decides: path, CORS, key, requests a minute, headers.
  void AdmitHead(const DoorRequest& request, Admission& admission);
  // For admissions of kForward: the model, its route and pool, tokens a minute. `members` are those
  // of the body's object where somebody has scanned it (none: it is no object); null: it is scanned
  // here.
  void AdmitBody(const DoorRequest& request, std::string_view body,
                 const std::vector<json::ScannedMember>* members, Admission& admission);
  // Both.
  void Admit(const DoorRequest& request, std::string_view body,
             const std::vector<json::ScannedMember>* members, Admission& admission);

 private:
  bool AdmitPath(const DoorRequest& request, Admission& a);
  bool AdmitOrigin(const DoorRequest& request, std::string_view methods, Admission& a);
  bool AdmitKey(const DoorRequest& request, Admission& a);
  bool AdmitRate(const DoorRequest& request, Admission& a);
  bool AnswersHere(Route route);
  std::span<const json::ScannedMember> Scan(std::string_view body, Route route);
  bool AdmitModel(const DoorRequest& request, Admission& a);
  bool ChooseRoute(const DoorRequest& request, Admission& a);
  bool AdmitTokens(const DoorRequest& request, std::string_view body,
                   std::span<const json::ScannedMember> members, Admission& a);
  void EditHeaders(const DoorRequest& request, Admission& a);
  void Refuse(Admission& a, int status, std::string_view code, std::string_view text,
              std::string_view field = {});
  uint64_t Random();

  Doors& doors_;
  Snapshot<KeyTable>::Reader keys_;
  Snapshot<ModelRoutes>::Reader routes_;
  Snapshot<CatalogueView>::Reader catalogue_;
  Snapshot<std::string>::Reader engine_key_;
  std::vector<json::ScannedMember> scanned_;
  uint64_t random_;
};

}  // namespace llmd::doors
