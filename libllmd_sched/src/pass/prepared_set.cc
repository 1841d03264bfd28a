#include "pass/prepared_set.h"

#include <algorithm>
#include <limits>

namespace llmd::sched {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

StatusOr<std::unique_ptr<PreparedSetImpl>> PreparedSetImpl::Create(
    std::shared_ptr<const Graph> graph, const void* owner, std::span<const EndpointState> endpoints,
    LifeTable& lives) {
  std::unique_ptr<PreparedSetImpl> self(new PreparedSetImpl(std::move(graph), owner));
  auto set = std::make_shared<EndpointSet>();
  for (const EndpointState& e : endpoints) LLMD_RETURN_IF_ERROR(self->Add(e, *set, lives));
  for (size_t i = 0; i < set->size(); ++i) {
    if (!self->index_.emplace(set->names[i], static_cast<int>(i)).second)
      return InvalidArgument("two endpoints are called '" + set->names[i] + "'");
  }
  self->snapshot_.set = std::move(set);
  return self;
}

Status PreparedSetImpl::Add(const EndpointState& endpoint, EndpointSet& set, LifeTable& lives) {
  auto metrics = std::make_shared<EndpointMetrics>(endpoint.metrics);
  LLMD_RETURN_IF_ERROR(graph_->SetAttributes(endpoint, *metrics));
  set.Add(std::make_shared<const EndpointInfo>(endpoint.info), lives.Of(endpoint.info.FullName()));
  metrics_.push_back(metrics);
  snapshot_.Add(std::move(metrics));
  return OkStatus();
}

int PreparedSetImpl::Find(std::string_view full_name) const {
  const auto it = index_.find(full_name);
  return it == index_.end() ? -1 : it->second;
}

void PreparedSetImpl::SetGauges(size_t i, double waiting, double running, double kv_usage) {
  EndpointMetrics& m = *metrics_[i];
  m.waiting = snapshot_.waiting[i] = waiting;
  m.running = snapshot_.running[i] = running;
  m.kv_usage = snapshot_.kv_usage[i] = kv_usage;
}

Status PreparedSetImpl::SetMetrics(size_t i, const EndpointMetrics& metrics,
                                   const std::map<std::string, double>& attributes) {
  EndpointMetrics& m = *metrics_[i];
  if (!attributes.empty()) {
    // Checked on a copy, so that an unknown one changes nothing.
    EndpointState named{snapshot_.info(i), metrics, attributes};
    LLMD_RETURN_IF_ERROR(graph_->SetAttributes(named, named.metrics));
    m = std::move(named.metrics);
  } else {
    m = metrics;
  }
  SetGauges(i, m.waiting, m.running, m.kv_usage);
  snapshot_.updated[i] = m.ever ? m.updated : TimePoint();
  CopyAttributes(i);
  return OkStatus();
}

void PreparedSetImpl::CopyAttributes(size_t i) {
  const std::vector<AttributeValue>& from = metrics_[i]->attributes;
  std::vector<std::vector<double>>& columns = snapshot_.attributes;
  if (columns.size() < from.size()) columns.resize(from.size());
  for (size_t a = 0; a < columns.size(); ++a) {
    if (a >= from.size() && columns[a].size() <= i) continue;
    columns[a].resize(std::max(columns[a].size(), i + 1), kNan);
    columns[a][i] = a < from.size() ? from[a].value : kNan;
  }
}

bool PreparedSetImpl::Holds(std::span<const EndpointState> endpoints) const {
  if (endpoints.size() != size()) return false;
  for (size_t i = 0; i < endpoints.size(); ++i) {
    if (!(endpoints[i].info == info(i))) return false;
  }
  return true;
}

Status PreparedSetImpl::Update(std::span<const EndpointState> endpoints) {
  for (size_t i = 0; i < endpoints.size(); ++i)
    LLMD_RETURN_IF_ERROR(SetMetrics(i, endpoints[i].metrics, endpoints[i].attributes));
  return OkStatus();
}

}  // namespace llmd::sched
