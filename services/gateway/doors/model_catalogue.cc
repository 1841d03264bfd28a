#include "gateway/doors/model_catalogue.h"

#include <algorithm>
#include <set>

namespace llmd::doors {
namespace {

constexpr size_t kMaxErrorText = 256;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::string Cut(std::string text) {
  if (text.size() > kMaxErrorText) text.resize(kMaxErrorText);
  return text;
}

}  // namespace

StatusOr<std::vector<ListedModel>> ReadModelPage(std::string_view page, size_t* left_out) {
  *left_out = 0;
  if (page.size() > kMaxModelPageBytes) return InvalidArgument("the page is above 4 MiB");
  if (page.starts_with(kByteOrderMark)) page.remove_prefix(kByteOrderMark.size());
  LLMD_ASSIGN_OR_RETURN(const json::Value root, json::Parse(page));
  const json::Value& data = root["data"];
  if (!data.is_array()) return InvalidArgument("there is no array 'data'");
  std::vector<ListedModel> out;
  for (const json::Value& item : data.AsArray()) {
    ListedModel model;
    model.id = item["id"].AsString();
    if (model.id.empty() || model.id.size() > kMaxModelName || out.size() == kMaxModelsOfEngine) {
      ++*left_out;
      continue;
    }
    for (const auto& [key, text] :
         {std::pair{"parent", &model.parent}, std::pair{"owned_by", &model.owned_by}}) {
      if (item[key].AsString().size() <= kMaxModelName) *text = item[key].AsString();
    }
    model.created = item["created"].AsInt();
    model.max_model_len = std::max<int64_t>(0, item["max_model_len"].AsInt());
    out.push_back(std::move(model));
  }
  return out;
}

bool CatalogueView::Entry::In(std::string_view pool) const {
  return pool.empty() || std::any_of(engines.begin(), engines.end(),
                                     [&](const auto& e) { return e.first == pool; });
}

const CatalogueView::Entry* CatalogueView::Find(std::string_view model,
                                                std::string_view pool) const {
  const auto it = models.find(model);
  return it != models.end() && it->second.In(pool) ? &it->second : nullptr;
}

bool CatalogueView::Complete(std::string_view pool) const {
  if (full) return false;
  const auto complete = [](const PoolState& p) { return p.silent == 0 && p.listed > 0; };
  if (!pool.empty()) {
    const auto it = pools.find(pool);
    return it != pools.end() && complete(it->second);
  }
  bool any = false;
  for (const auto& [name, state] : pools) {
    if (state.silent > 0) return false;
    any |= state.listed > 0;
  }
  return any;
}

Status ModelCatalogue::SetMembers(std::string_view pool, const std::vector<Member>& members) {
  const std::lock_guard lock(mutex_);
  std::set<std::string_view> names;
  for (const Member& member : members) names.insert(member.name);
  bool changed = std::erase_if(engines_, [&](const auto& entry) {
                   return entry.first.pool == pool && !names.contains(entry.first.name);
                 }) > 0;
  Status status;
  for (const Member& member : members) {
    const EngineName name{std::string(pool), member.name};
    auto it = engines_.find(name);
    if (it == engines_.end() && engines_.size() == kMaxEngines) {
      status = ResourceExhausted("more than " + std::to_string(kMaxEngines) +
                                 " engines: the models of the rest are not known");
      break;
    }
    if (it == engines_.end()) {
      it = engines_.emplace(name, Engine()).first;
      it->second.ready = !member.ready;
    }
    changed |= it->second.ready != member.ready;
    it->second.ready = member.ready;
  }
  if (changed) Rebuild();
  return status;
}

std::optional<EngineName> ModelCatalogue::NextDue(TimePoint now) {
  const std::lock_guard lock(mutex_);
  auto best = engines_.end();
  size_t reading = 0;
  for (auto it = engines_.begin(); it != engines_.end(); ++it) {
    // One that is due again has lost its reader.
    reading += it->second.reading && it->second.due > now ? 1 : 0;
    if (it->second.due <= now && (best == engines_.end() || it->second.due < best->second.due))
      best = it;
  }
  if (best == engines_.end() || reading >= kMaxReads) return std::nullopt;
  best->second.reading = true;
  best->second.due = now + interval_;
  return best->first;
}

ModelCatalogue::Engine* ModelCatalogue::Find(const EngineName& engine) {
  const auto it = engines_.find(engine);
  return it == engines_.end() ? nullptr : &it->second;
}

Status ModelCatalogue::Learn(const EngineName& engine, int http_status, std::string_view page,
                             TimePoint now) {
  size_t left_out = 0;
  StatusOr<std::vector<ListedModel>> models =
      http_status == 200 ? ReadModelPage(page, &left_out)
                         : StatusOr<std::vector<ListedModel>>(
                               Unavailable("/v1/models answered " + std::to_string(http_status)));
  if (!models.ok()) {
    Note(engine, models.status(), TimePoint::max());
    return models.status().WithContext("models of " + engine.name);
  }
  const std::lock_guard lock(mutex_);
  Engine* const entry = Find(engine);
  if (entry == nullptr) return OkStatus();
  const bool changed = !entry->listed || entry->models != *models;
  entry->reading = false;
  entry->listed = now;
  entry->error.clear();
  entry->left_out = left_out;
  if (!changed) return OkStatus();
  entry->models = std::move(*models);
  Rebuild();
  return OkStatus();
}

void ModelCatalogue::Fail(const EngineName& engine, const Status& why, TimePoint now) {
  Note(engine, why, now + kRetryDelay);
}

// The engine's last read was not good; it is due again by `due` at the latest.
void ModelCatalogue::Note(const EngineName& engine, const Status& why, TimePoint due) {
  const std::lock_guard lock(mutex_);
  Engine* const entry = Find(engine);
  if (entry == nullptr) return;
  entry->reading = false;
  entry->due = std::min(entry->due, due);
  entry->error = Cut(why.message().empty() ? "no answer" : why.message());
}

void ModelCatalogue::Rebuild() {
  auto out = std::make_shared<CatalogueView>();
  for (const auto& [name, engine] : engines_) {
    CatalogueView::PoolState& pool = out->pools[name.pool];
    pool.listed += engine.listed ? 1 : 0;
    if (engine.listed) out->listed.emplace_back(name.pool, name.name);
    pool.ready += engine.ready ? 1 : 0;
    pool.silent += engine.ready && !engine.listed ? 1 : 0;
    for (const ListedModel& model : engine.models) {
      auto it = out->models.find(model.id);
      if (it == out->models.end()) {
        if (out->models.size() == kMaxModels) {
          out->full = true;
          continue;
        }
        it = out->models.emplace(model.id, CatalogueView::Entry{model, {}}).first;
      }
      if (it->second.model.parent.empty()) it->second.model.parent = model.parent;
      it->second.engines.emplace_back(name.pool, name.name);
    }
  }
  view_.Publish(std::move(out));
}

json::Value ModelCatalogue::ToJson(TimePoint now) const {
  const std::lock_guard lock(mutex_);
  json::Array out;
  for (const auto& [name, engine] : engines_) {
    json::Array models;
    for (const ListedModel& model : engine.models) models.emplace_back(model.id);
    json::Object entry{{"pool", name.pool},
                       {"engine", name.name},
                       {"ready", engine.ready},
                       {"reading", engine.reading},
                       {"models", std::move(models)},
                       {"left_out", engine.left_out},
                       {"error", engine.error.empty() ? json::Value() : json::Value(engine.error)}};
    entry.emplace_back(
        "age_s", engine.listed
                     ? json::Value(std::chrono::duration<double>(now - *engine.listed).count())
                     : json::Value());
    out.emplace_back(std::move(entry));
  }
  return json::Object{{"engines", std::move(out)}};
}

}  // namespace llmd::doors
