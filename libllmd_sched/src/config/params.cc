#include <algorithm>

#include "llmd/sched/plugin.h"

namespace llmd::sched {
namespace {

std::string Text(double v) {
  std::string s = FormatMetricValue(v);
  if (s.ends_with(".0")) s.resize(s.size() - 2);
  return s;
}

}  // namespace

const AttributeId* PluginEnv::ProduceAttribute(std::string_view, AttributeId) {
  static const AttributeId kUnread = kNoAttribute;
  return &kUnread;
}

StatusOr<AttributeId> PluginEnv::ConsumeAttribute(std::string_view name, std::string_view) {
  return NotFound("no extractor fills the attribute '" + std::string(name) + "'");
}

void Params::Fail(const Status& status) {
  errors_.push_back(status.message());
}

double Params::Double(std::string_view key, double fallback, double min, double max) {
  const config::Node node = node_.Get(key);
  if (node.IsNull()) return fallback;
  const StatusOr<double> value = node.Double();
  if (!value.ok()) {
    Fail(value.status());
    return fallback;
  }
  if (!(*value >= min && *value <= max)) {
    Fail(key, "expected a number from " + Text(min) + " to " + Text(max) + ", got " + Text(*value));
    return fallback;
  }
  return *value;
}

int64_t Params::Int(std::string_view key, int64_t fallback, int64_t min, int64_t max) {
  const config::Node node = node_.Get(key);
  if (node.IsNull()) return fallback;
  const StatusOr<int64_t> value = node.Int();
  if (!value.ok()) {
    Fail(value.status());
    return fallback;
  }
  if (*value < min || *value > max) {
    Fail(key, "expected an integer from " + std::to_string(min) + " to " + std::to_string(max) +
                  ", got " + std::to_string(*value));
    return fallback;
  }
  return *value;
}

bool Params::Bool(std::string_view key, bool fallback) {
  const config::Node node = node_.Get(key);
  if (node.IsNull()) return fallback;
  const StatusOr<bool> value = node.Bool();
  if (!value.ok()) Fail(value.status());
  return value.value_or(fallback);
}

std::string Params::String(std::string_view key, std::string fallback) {
  const config::Node node = node_.Get(key);
  if (node.IsNull()) return fallback;
  const StatusOr<std::string> value = node.String();
  if (!value.ok()) Fail(value.status());
  return value.value_or(std::move(fallback));
}

std::string Params::Choice(std::string_view key, std::string fallback,
                           const std::vector<std::string>& choices) {
  std::string value = String(key, fallback);
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return value;
  std::string known;
  for (const std::string& c : choices) known += (known.empty() ? "" : ", ") + c;
  Fail(key, "expected one of " + known + ", got '" + value + "'");
  return fallback;
}

Duration Params::Time(std::string_view key, Duration fallback) {
  const config::Node node = node_.Get(key);
  if (node.IsNull()) return fallback;
  const StatusOr<Duration> value = node.Duration();
  if (!value.ok()) {
    Fail(value.status());
    return fallback;
  }
  if (*value < Duration::zero()) {
    Fail(key, "expected a duration that is not negative");
    return fallback;
  }
  return *value;
}

std::vector<std::string> Params::Strings(std::string_view key) {
  const config::Node node = node_.Get(key);
  if (node.IsNull()) return {};
  StatusOr<std::vector<std::string>> value = node.Strings();
  if (!value.ok()) Fail(value.status());
  return value.ok() ? std::move(*value) : std::vector<std::string>();
}

Status Params::Finish() {
  if (node_.IsMap()) {
    if (Status status = node_.RejectUnknown(); !status.ok()) Fail(status);
  } else if (!node_.IsNull()) {
    Fail(node_.Error("expected a map of parameters"));
  }
  return Collected();
}

Status Params::Collected() const {
  if (errors_.empty()) return OkStatus();
  std::string all;
  for (const std::string& e : errors_) all += (all.empty() ? "" : "\n") + e;
  return InvalidArgument(std::move(all));
}

}  // namespace llmd::sched
