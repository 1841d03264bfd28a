// A number worked out from an answer's usage, for the proxy (docs/reference/reporters.md).
#include <cmath>

#include "llmd/sched/hooks.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/reporter/usage_expression.h"

namespace llmd::sched {
namespace {

struct Settings {
  std::string metadata_namespace = "envoy.lb", name;
  UsageExpression value;
  std::optional<UsageExpression> condition;
};

class RequestAttributeReporter final : public ResponseHook {
 public:
  explicit RequestAttributeReporter(Settings settings) : s_(std::move(settings)) {}

  void Report(const RequestContext&, const ResponseInfo& response,
              std::vector<ReportedAttribute>& report) override {
    Usage usage = response.usage;
    if (usage.total_tokens < 0 && usage.any()) {
      usage.total_tokens =
          std::max<int64_t>(usage.prompt_tokens, 0) + std::max<int64_t>(usage.completion_tokens, 0);
    }
    if (s_.condition && s_.condition->Evaluate(usage).value_or(0) == 0) return;
    const double value = std::trunc(s_.value.Evaluate(usage).value_or(0));
    // 0 says nothing; what no 64-bit integer holds (NaN and the infinities too) cannot be said.
    if (value == 0 || !(std::abs(value) < 0x1p63)) return;
    report.push_back({s_.metadata_namespace, s_.name, static_cast<int64_t>(value)});
  }
  bool wants_body() const override { return true; }

 private:
  const Settings s_;
};

// The expression under `key`; its errors go to `params`.
std::optional<UsageExpression> Compile(Params& params, std::string_view key, bool boolean) {
  const std::string text = params.String(key, "");
  StatusOr<UsageExpression> compiled = UsageExpression::Compile(text);
  if (!compiled.ok()) {
    params.Fail(key, compiled.status().message());
    return std::nullopt;
  }
  if ((compiled->type() == UsageExpression::Type::kBool) != boolean) {
    params.Fail(key, boolean ? "expected a boolean" : "expected a number, not a boolean");
  }
  return std::move(*compiled);
}

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  const std::vector<config::Node> items = params.node("attributes").Items();
  if (items.size() != 1) {
    params.Fail("attributes",
                "expected exactly one attribute, got " + std::to_string(items.size()));
    return params.Finish();
  }
  Params attribute(items[0]);
  Params key(attribute.node("key"));
  s.metadata_namespace = key.String("namespace", "envoy.lb");
  s.name = key.String("name", "");
  if (s.name.empty()) key.Fail("name", "expected the name of the metadata key");
  if (std::optional<UsageExpression> value = Compile(attribute, "expression", false))
    s.value = std::move(*value);
  if (attribute.Has("condition")) s.condition = Compile(attribute, "condition", true);
  if (Status status = key.Finish(); !status.ok()) params.Fail(status);
  if (Status status = attribute.Finish(); !status.ok()) params.Fail(status);
  return Done(params, std::make_unique<RequestAttributeReporter>(std::move(s)));
}

}  // namespace

Status RegisterRequestAttributeReporter(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "request-attribute-reporter",
       .kind = "reporter",
       .help =
           "Tells Envoy a number worked out from the answer's usage, as dynamic metadata of the "
           "last response message.",
       .params = {{"attributes[0].key.namespace", "envoy.lb", "metadata namespace"},
                  {"attributes[0].key.name", "", "metadata key; required; one attribute a plugin"},
                  {"attributes[0].expression", "",
                   "CEL subset over usage.prompt_tokens, completion_tokens, total_tokens and "
                   "prompt_tokens_details.cached_tokens: + - * / comparison && || ! ?: has() int() "
                   "double(); a result of 0 is not written"},
                  {"attributes[0].condition", "", "boolean; false = nothing is written"}},
       .make = Make});
}

}  // namespace llmd::sched
