// What models an engine serves: its /v1/models page (OpenAI's list) and the reader of it.
#include "llmd/json.h"
#include "llmd/sched/extractor.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/data/page_source.h"

namespace llmd::sched {
namespace {

constexpr size_t kMaxModels = 10'000;  // an engine's base model and its adapters

PageSpec ModelsPage() {
  PageSpec page;
  page.path = "/v1/models";
  page.interval = std::chrono::seconds(1);  // models come and go far slower than gauges
  return page;
}

class ModelsDataExtractor final : public Extractor {
 public:
  Status Extract(std::string_view page, const EndpointInfo& endpoint,
                 EndpointMetrics* metrics) override {
    if (page.starts_with("\xEF\xBB\xBF")) page.remove_prefix(3);  // a byte order mark
    const StatusOr<json::Value> root = json::Parse(page);
    if (!root.ok()) return root.status().WithContext("model list of " + endpoint.FullName());
    const json::Value& data = (*root)["data"];
    if (!data.is_array())
      return InvalidArgument("the model list of " + endpoint.FullName() + " has no array 'data'");
    std::vector<ServedModel> models;
    for (const json::Value& item : data.AsArray()) {
      const std::string& id = item["id"].AsString();
      if (id.empty() || models.size() == kMaxModels) continue;
      models.push_back({id, item["parent"].AsString()});
    }
    if (!metrics->served_models || *metrics->served_models != models)
      metrics->served_models = std::make_shared<const std::vector<ServedModel>>(std::move(models));
    return OkStatus();
  }
};

}  // namespace

Status RegisterModelsData(PluginRegistry& registry) {
  LLMD_RETURN_IF_ERROR(
      AddPlugin(registry, {.type = "models-data-source",
                           .kind = "source",
                           .help = "Reads each endpoint's list of models.",
                           .params = PageParams(ModelsPage(), "1s"),
                           .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                             Params params(args.parameters);
                             PageSpec page = ReadPage(params, args.env, ModelsPage());
                             return Done(params, MakePageSource(std::move(page)));
                           }}));
  return AddPlugin(registry, {.type = "models-data-extractor",
                              .kind = "extractor",
                              .help = "The models and adapters an endpoint serves, from its "
                                      "/v1/models page.",
                              .make = Simple<ModelsDataExtractor>()});
}

}  // namespace llmd::sched
