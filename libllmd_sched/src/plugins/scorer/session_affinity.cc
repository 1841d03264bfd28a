// Session affinity as a scorer (1 or 0) and as a filter (the pinned endpoint only, if it is a
// candidate).
#include <algorithm>
#include <iterator>
#include <list>
#include <mutex>
#include <unordered_map>

#include "llmd/sched/filter.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/session.h"

namespace llmd::sched {
namespace {

constexpr size_t kMaxSessions = 1 << 17;
constexpr std::string_view kTokenHeader = "x-session-token";

struct Settings {
  bool by_session_id = false;
  std::vector<SessionSource> sources;
  Duration ttl{}, sweep{};
  const Clock* clock = nullptr;
  // With session_id: the session, from the decision to the answer, of a request whose answer may
  // bind it again. `exact` = by whomever it is answered, else by a fallback only.
  DataKey kept = kNoKey;
};

// Sessions and the endpoint each is bound to. Thread-safe; bounded: the longest unused makes room.
class Bindings {
 public:
  explicit Bindings(const Settings& s) : s_(s) {}
  // Writes the endpoint's name; "" = not bound.
  void Find(std::string_view session, std::string& endpoint) {
    endpoint.clear();
    std::lock_guard lock(mutex_);
    const auto it = bound_.find(session);
    if (it == bound_.end() || s_.clock->Now() - it->second->used > s_.ttl) return;
    Use(it->second);
    endpoint = it->second->endpoint;
  }
  void Bind(std::string_view session, const std::string& endpoint) {
    std::lock_guard lock(mutex_);
    const TimePoint now = s_.clock->Now();
    if (now - swept_ >= s_.sweep) Sweep(now);
    if (const auto it = bound_.find(session); it != bound_.end()) {
      it->second->endpoint = endpoint;
      return Use(it->second);
    }
    if (bound_.size() >= kMaxSessions) DropOldest();
    by_use_.push_back({std::string(session), endpoint, now});
    bound_.emplace(by_use_.back().session, std::prev(by_use_.end()));
  }

 private:
  struct Binding {
    std::string session, endpoint;
    TimePoint used{};
  };
  using Place = std::list<Binding>::iterator;
  void Use(Place binding) {
    binding->used = s_.clock->Now();
    by_use_.splice(by_use_.end(), by_use_, binding);
  }
  void Sweep(TimePoint now) {
    swept_ = now;
    while (!by_use_.empty() && now - by_use_.front().used > s_.ttl) DropOldest();
  }
  void DropOldest() {
    bound_.erase(by_use_.front().session);
    by_use_.pop_front();
  }
  const Settings& s_;
  std::mutex mutex_;
  std::list<Binding> by_use_;                          // longest unused first; guarded by mutex_
  std::unordered_map<std::string_view, Place> bound_;  // by their names there; guarded by mutex_
  TimePoint swept_{};                                  // guarded by mutex_
};

class SessionAffinity : public PreRequestHook, public ResponseHook {
 public:
  explicit SessionAffinity(Settings settings) : s_(std::move(settings)), bindings_(s_) {}

  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    if (outcome.primary.empty()) return;
    if (!s_.by_session_id) return;
    const std::string_view session = SessionOf(request);
    if (session.empty()) return;
    // Bound again only when the endpoint it had is gone, or did not serve this request.
    const int pinned = Pinned(request, snapshot);
    if (pinned < 0) bindings_.Bind(session, snapshot.set->names[outcome.primary[0]]);
    const bool barred = pinned >= 0 && !Eligible(request, static_cast<uint32_t>(pinned));
    if (!barred && outcome.primary.size() < 2) return;
    Attribute& kept = request.Put(s_.kept);
    kept.text = session;
    kept.exact = barred;
  }
  // An error says nothing about where the session's cache is.
  void OnHeaders(RequestContext& request, const ResponseInfo& response,
                 HeaderList& set_headers) override {
    const EndpointInfo* const by = response.answering();
    if (by == nullptr || response.status >= 500) return;
    if (!s_.by_session_id) {
      set_headers.emplace_back(kTokenHeader, Base64(by->FullName()));
      return;
    }
    const Attribute* const kept = request.Get(s_.kept);
    if (kept != nullptr && (kept->exact || response.fallback != nullptr))
      bindings_.Bind(kept->text, by->FullName());
  }

 protected:
  // The snapshot index of the endpoint the request's session is pinned to, or -1.
  int Pinned(const RequestContext& request, const Snapshot& snapshot) {
    static thread_local std::string name;  // keeps its memory
    if (s_.by_session_id) {
      const std::string_view session = SessionOf(request);
      if (session.empty()) return -1;
      bindings_.Find(session, name);
    } else if (!FromBase64(request.Header(kTokenHeader), name)) {
      return -1;
    }
    if (name.empty()) return -1;
    const std::vector<std::string>& names = snapshot.set->names;
    const auto at = std::find(names.begin(), names.end(), name);
    return at == names.end() ? -1 : static_cast<int>(at - names.begin());
  }

 private:
  static bool Eligible(const RequestContext& request, uint32_t endpoint) {
    return std::binary_search(request.eligible.begin(), request.eligible.end(), endpoint);
  }
  std::string_view SessionOf(const RequestContext& request) const {
    for (const SessionSource& source : s_.sources) {
      if (const std::string_view id = source.Read(request); !id.empty()) return id;
    }
    return {};
  }
  const Settings s_;
  Bindings bindings_;
};

class SessionAffinityScorer final : public SessionAffinity, public Scorer {
 public:
  using SessionAffinity::SessionAffinity;
  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    const int pinned = Pinned(request, snapshot);
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] = static_cast<int>(candidates[i]) == pinned ? 1.0 : 0.0;
  }
};

class SessionAffinityFilter final : public SessionAffinity, public Filter {
 public:
  using SessionAffinity::SessionAffinity;
  void Keep(RequestContext& request, const Snapshot& snapshot,
            std::vector<uint32_t>& candidates) override {
    const int pinned = Pinned(request, snapshot);
    for (uint32_t c : candidates) {
      if (static_cast<int>(c) != pinned) continue;
      candidates.assign(1, c);
      return;
    }
  }
};

template <typename T>
StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.clock = args.env.clock;
  s.by_session_id = params.Choice("strategy", "encoded_endpoint_header",
                                  {"encoded_endpoint_header", "session_id"}) == "session_id";
  for (const config::Node& item : params.node("sources").Items()) {
    Params source(item);
    s.sources.push_back({Lower(source.String("headerName", "")), source.String("cookieName", "")});
    if (s.sources.back().header.empty() == s.sources.back().cookie.empty()) {
      source.Fail(item.Error("expected either headerName or cookieName"));
    }
    if (Status status = source.Finish(); !status.ok()) params.Fail(status);
  }
  if (s.by_session_id) s.kept = args.env.Produce("BoundSession");
  if (s.sources.empty()) s.sources.push_back({"x-session-id", ""});
  s.ttl = std::chrono::seconds(params.Int("evictionTtlSeconds", 300, 1, 1 << 30));
  s.sweep = std::chrono::seconds(params.Int("evictionSweepSeconds", 10, 1, 1 << 30));
  return Done(params, std::make_unique<T>(std::move(s)));
}

}  // namespace

Status RegisterSessionAffinity(PluginRegistry& registry) {
  const std::vector<ParamHelp> params = {
      {"strategy", "encoded_endpoint_header",
       "x-session-token holds base64 of ns/name and is echoed on the answer; or session_id"},
      {"sources", "[{headerName: x-session-id}]",
       "headerName or cookieName entries; the first present counts"},
      {"evictionTtlSeconds", "300", "idle time after which a session is forgotten"},
      {"evictionSweepSeconds", "10", "how often forgotten sessions are dropped"}};
  LLMD_RETURN_IF_ERROR(
      AddPlugin(registry, {.type = "session-affinity-scorer",
                           .kind = "scorer",
                           .help = "1 for the endpoint the session is pinned to, else 0.",
                           .params = params,
                           .make = Make<SessionAffinityScorer>}));
  return AddPlugin(
      registry, {.type = "session-affinity-filter",
                 .kind = "filter",
                 .stability = Stability::kAlpha,
                 .help = "Keeps only the endpoint the session is pinned to, if it is a candidate.",
                 .params = params,
                 .make = Make<SessionAffinityFilter>});
}

}  // namespace llmd::sched
