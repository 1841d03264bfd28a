#include <algorithm>
#include <atomic>
#include <iterator>
#include <map>

#include "director/impl.h"
#include "director/pool_seed.h"
#include "life/callback_scope.h"
#include "llmd/json.h"
#include "llmd/sched/decision_tries.h"
#include "llmd/sched/pools.h"
#include "llmd/uuid.h"

namespace llmd::sched {
namespace {

bool Takes(const std::string& rule, std::string_view model) {
  if (rule.ends_with('*'))
    return model.starts_with(std::string_view(rule).substr(0, rule.size() - 1));
  return rule == model;
}

// "Example.com:8080" → "example.com"; an IPv6 address keeps its brackets.
std::string HostOf(std::string_view authority) {
  const size_t colon = authority.rfind(':');
  if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos)
    authority = authority.substr(0, colon);
  std::string host(authority);
  std::transform(host.begin(), host.end(), host.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
  });
  return host;
}

// The model a JSON body names; "" when there is none. Faults of the body are the pool's to tell.
std::string ModelOf(std::string_view body) {
  const auto members = json::ScanObject(body);
  if (!members.ok()) return "";
  const json::ScannedMember* model = json::FindMember(*members, body, "model");
  return model ? json::Unquote(model->value.In(body)).value_or("") : "";
}

class PoolSetImpl final : public PoolSet {
 public:
  PoolSetImpl(std::vector<Member> members, std::string default_pool, MetricsRegistry& metrics,
              uint64_t seed, Logger logger)
      : members_(std::move(members)),
        default_(std::move(default_pool)),
        by_model_(std::any_of(members_.begin(), members_.end(),
                              [](const Member& m) { return !m.rule.models.empty(); })),
        seed_(PoolSeed(GivenOrDrawn(seed), "")),
        logger_(std::move(logger)),
        unclaimed_(metrics.AddCounter("llm_d_epp_requests_without_pool_total",
                                      "Requests that no pool takes")) {}

  const Director* Find(std::string_view name) const override { return Named(name); }
  Director* Find(std::string_view name) override { return Named(name); }

  void Route(RequestInput input, std::function<void(Routing)> done) override {
    if (input.headers == nullptr) input.headers = &kNoHeaders;
    std::string message;
    if (Director* director = Choose(input, message)) {
      return director->Route(std::move(input), std::move(done));
    }
    Routing routing;
    Unclaimed(input, std::move(message), routing);
    RunCallback(static_cast<const Director*>(this), &logger_, [&] { done(std::move(routing)); });
  }

  bool RouteNow(RequestInput input, Routing& routing, std::function<void(Routing)> later) override {
    if (input.headers == nullptr) input.headers = &kNoHeaders;
    std::string message;
    if (Director* director = Choose(input, message))
      return director->RouteNow(std::move(input), routing, std::move(later));
    routing.Clear();
    Unclaimed(input, std::move(message), routing);
    return true;
  }

  void Cancel(const std::shared_ptr<RequestState>& state) override {
    if (state) state->director->Cancel(state);
  }
  void OnServed(const std::shared_ptr<RequestState>& state, std::string_view endpoint) override {
    if (state) state->director->OnServed(state, endpoint);
  }
  std::vector<ReportedAttribute> TakeReport(const std::shared_ptr<RequestState>& state) override {
    return state ? state->director->TakeReport(state) : std::vector<ReportedAttribute>();
  }
  void OnResponseBodySkipped(const std::shared_ptr<RequestState>& state) override {
    if (state) state->director->OnResponseBodySkipped(state);
  }
  HeaderList OnResponseHeaders(const std::shared_ptr<RequestState>& state, int status,
                               const HeaderList& headers) override {
    return state ? state->director->OnResponseHeaders(state, status, headers) : HeaderList();
  }
  bool OnResponseBody(const std::shared_ptr<RequestState>& state, std::string_view chunk, bool end,
                      std::string* replaced) override {
    return state && state->director->OnResponseBody(state, chunk, end, replaced);
  }
  bool wants_response_body() const override {
    return std::any_of(members_.begin(), members_.end(),
                       [](const Member& m) { return m.director->wants_response_body(); });
  }

  bool ready() const override {
    return std::any_of(members_.begin(), members_.end(),
                       [](const Member& m) { return m.director->ready(); });
  }
  std::vector<EndpointInfo> Endpoints() const override {
    std::vector<EndpointInfo> out;
    for (const Member& m : members_) {
      for (EndpointInfo& endpoint : m.director->Endpoints()) out.push_back(std::move(endpoint));
    }
    return out;
  }
  std::vector<EndpointHandle> Members() const override {
    std::vector<EndpointHandle> out;
    for (const Member& m : members_) {
      for (EndpointHandle& one : m.director->Members()) out.push_back(std::move(one));
    }
    return out;
  }
  std::vector<ServedModel> ServedModels() const override {
    std::map<std::string, std::string> parents;
    for (const Member& m : members_) {
      for (ServedModel& model : m.director->ServedModels())
        parents.try_emplace(std::move(model.id), std::move(model.parent));
    }
    std::vector<ServedModel> out;
    out.reserve(parents.size());
    for (auto& [id, parent] : parents) out.push_back({id, std::move(parent)});
    return out;
  }
  StatusOr<std::string> Explain(std::string_view request_id) const override {
    Status missing = NotFound("there is no pool");
    std::vector<DecisionTrace> all;
    for (const Member& m : members_) {
      const StatusOr<std::string> found = m.director->Explain(request_id);
      if (!found.ok()) {
        missing = found.status();
        continue;
      }
      LLMD_ASSIGN_OR_RETURN(const json::Value value, json::Parse(*found));
      LLMD_ASSIGN_OR_RETURN(std::vector<DecisionTrace> tries, TriesFromJson(value));
      std::move(tries.begin(), tries.end(), std::back_inserter(all));
    }
    if (all.empty()) return missing;
    std::stable_sort(all.begin(), all.end(), [](const DecisionTrace& a, const DecisionTrace& b) {
      return a.unix_nanos < b.unix_nanos;
    });
    return TriesToJson(all).Dump();
  }
  json::Value Decisions(size_t limit) const override {
    json::Array all;
    for (const Member& m : members_) {
      const json::Value of_one = m.director->Decisions(limit);
      all.insert(all.end(), of_one.AsArray().begin(), of_one.AsArray().end());
    }
    std::sort(all.begin(), all.end(), [](const json::Value& a, const json::Value& b) {
      return a["unix_nanos"].AsInt() > b["unix_nanos"].AsInt();
    });
    if (all.size() > limit) all.resize(limit);
    return all;
  }
  json::Value PluginState() const override {
    json::Object out;
    for (const Member& m : members_) out.emplace_back(m.rule.name, m.director->PluginState());
    return out;
  }
  TimePoint Tick(TimePoint now) override {
    TimePoint due = TimePoint::max();
    for (const Member& m : members_) due = std::min(due, m.director->Tick(now));
    return due;
  }
  // One engine may be a member of several pools.
  Status SetMetrics(std::string_view name, EndpointMetrics metrics) override {
    return OfAny([&](Director& pool) { return pool.SetMetrics(name, metrics); });
  }
  Status SetMetrics(EndpointId id, EndpointMetrics metrics) override {
    return OfAny([&](Director& pool) { return pool.SetMetrics(id, metrics); });
  }
  Status Reload(std::string_view) override {
    return FailedPrecondition("there are several pools: each reads its own file");
  }
  // Of all pools; the last error.
  Status ReloadFile() override {
    if (InCallback())
      return FailedPrecondition("a callback of one of the pools cannot reload their configuration");
    Status status;
    for (const Member& m : members_) {
      if (Status one = m.director->ReloadFile(); !one.ok()) status = std::move(one);
    }
    return status;
  }
  void Stop() override {
    if (InCallback()) {
      logger_.Error(
          "Stop is ignored: it was called from a callback of one of the pools, whose end it would "
          "wait for");
      return;
    }
    for (const Member& m : members_) m.director->Stop();
  }

 private:
  // This thread is in a callback of a request, whichever pool has it.
  bool InCallback() const {
    return CallbackScope::Within(static_cast<const Director*>(this)) ||
           std::any_of(members_.begin(), members_.end(), [](const Member& m) {
             return CallbackScope::Within(static_cast<const Director*>(m.director.get()));
           });
  }
  // OK when one of the pools says so; else what the last of them says.
  template <typename Call>
  Status OfAny(const Call& call) {
    Status failed = NotFound("there is no pool");
    bool done = false;
    for (const Member& m : members_) {
      if (Status one = call(*m.director); one.ok())
        done = true;
      else
        failed = std::move(one);
    }
    return done ? OkStatus() : failed;
  }
  void Unclaimed(const RequestInput& input, std::string message, Routing& routing) {
    unclaimed_.Add();
    routing.request_id = FindHeader(*input.headers, "x-request-id");
    if (routing.request_id.empty()) {
      uint64_t random =
          seed_ ^ (next_id_.fetch_add(1, std::memory_order_relaxed) * uint64_t{0x9e3779b97f4a7c15});
      const uint64_t high = NextRandom(random);
      routing.request_id = UuidFromBits(high, NextRandom(random));
    }
    routing.denial = {404, std::move(message), "", 0, {}};
  }
  Director* Named(std::string_view name) const {
    for (const Member& m : members_) {
      if (m.rule.name == name) return m.director.get();
    }
    return nullptr;
  }

  Director* Choose(const RequestInput& input, std::string& message) const {
    std::string_view name = input.pool;
    if (name.empty()) name = FindHeader(*input.headers, "x-llm-d-pool");
    if (!name.empty()) {
      message = "no pool is called '" + std::string(name) + "'";
      return Named(name);
    }
    const std::string host = HostOf(FindHeader(*input.headers, ":authority"));
    for (const Member& m : members_) {
      const auto& hosts = m.rule.hosts;
      if (std::find(hosts.begin(), hosts.end(), host) != hosts.end()) return m.director.get();
    }
    const std::string model = by_model_ && input.has_body ? ModelOf(input.body) : "";
    for (const Member& m : members_) {
      const auto takes = [&](const std::string& rule) { return Takes(rule, model); };
      if (!model.empty() && std::any_of(m.rule.models.begin(), m.rule.models.end(), takes))
        return m.director.get();
    }
    message =
        model.empty() ? "no pool takes this request" : "no pool serves the model '" + model + "'";
    return Named(default_);
  }

  const std::vector<Member> members_;
  const std::string default_;
  const bool by_model_;
  const uint64_t seed_;
  const Logger logger_;
  std::atomic<uint64_t> next_id_{1};  // of requests that no pool took
  Counter& unclaimed_;
};

}  // namespace

std::unique_ptr<PoolSet> PoolSet::Create(std::vector<Member> members, std::string default_pool,
                                         MetricsRegistry& metrics, uint64_t seed, Logger logger) {
  return std::make_unique<PoolSetImpl>(std::move(members), std::move(default_pool), metrics, seed,
                                       std::move(logger));
}

}  // namespace llmd::sched
