#include "latency/model.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace llmd::sched::latency {
namespace {

constexpr double kLengthRate = 0.02;  // of the running mean of answers' lengths
constexpr double kFullTrust = 64;     // tokens that make a mean time per token a good observation
constexpr size_t kMaxLabel = 256;

}  // namespace

LatencyModel::LatencyModel(bool streaming) : streaming_(streaming) {
  classes_[0] = std::make_unique<Class>();
}

uint8_t LatencyModel::ClassOf(std::string_view label) {
  std::lock_guard lock(mutex_);
  const std::string_view name = label.substr(0, kMaxLabel);
  const size_t count = count_.load(std::memory_order_relaxed);
  for (size_t i = 1; i < count; ++i) {
    if (classes_[i]->label == name) return static_cast<uint8_t>(i);
  }
  if (count == kMaxClasses) return 0;
  classes_[count] = std::make_unique<Class>();
  classes_[count]->label = name;
  count_.store(count + 1, std::memory_order_release);
  return static_cast<uint8_t>(count);
}

void LatencyModel::Class::Publish() {
  published.Store(
      {ttft.weights(), tpot.weights(), ttft.ready() ? 1.0 : 0.0, tpot.ready() ? 1.0 : 0.0, length});
}

template <typename F>
void LatencyModel::Learn(uint8_t model_class, F f) {
  std::lock_guard lock(mutex_);
  f(*classes_[0]);
  classes_[0]->Publish();
  if (model_class != 0 && model_class < count_.load(std::memory_order_relaxed)) {
    f(*classes_[model_class]);
    classes_[model_class]->Publish();
  }
  learned_.fetch_add(1, std::memory_order_relaxed);
}

void LatencyModel::LearnTtft(uint8_t model_class, const LatencyFeatures& features, double ttft_ms) {
  LatencyFeatures f = features;
  if (streaming_) f.num_tokens_generated = 0;
  const Terms terms = Expand(Target::kTtft, f);
  Learn(model_class, [&](Class& c) { c.ttft.Learn(terms, ttft_ms); });
}

void LatencyModel::LearnTpot(uint8_t model_class, const LatencyFeatures& features, double tpot_ms) {
  const Terms terms = Expand(Target::kTpot, features);
  const double trust = std::clamp(features.num_tokens_generated / kFullTrust, 0.05, 1.0);
  Learn(model_class, [&](Class& c) { c.tpot.Learn(terms, tpot_ms, trust); });
}

void LatencyModel::LearnLength(uint8_t model_class, double tokens) {
  if (!(tokens > 0 && tokens < 1e9)) return;
  Learn(model_class, [&](Class& c) {
    c.length = c.length > 0 ? c.length + kLengthRate * (tokens - c.length) : tokens;
  });
}

json::Value LatencyModel::ToJson() const {
  std::lock_guard lock(mutex_);
  json::Array classes;
  for (size_t i = 0; i < count_.load(std::memory_order_relaxed); ++i) {
    const Class& c = *classes_[i];
    classes.push_back(json::Object{{"label", c.label},
                                   {"length", c.length},
                                   {"ttft", c.ttft.ToJson()},
                                   {"tpot", c.tpot.ToJson()}});
  }
  return json::Object{{"streaming", streaming_}, {"classes", std::move(classes)}};
}

StatusOr<std::unique_ptr<LatencyModel::Class>> LatencyModel::ReadClass(const json::Value& value) {
  auto out = std::make_unique<Class>();
  const json::Value& label = value["label"];
  const json::Value& length = value["length"];
  if (!label.is_string() || label.AsString().size() > kMaxLabel)
    return InvalidArgument("a class has no label of at most 256 bytes");
  out->label = label.AsString();
  if (!length.is_number() || !(length.AsDouble() >= 0 && length.AsDouble() < 1e9))
    return InvalidArgument("class '" + out->label + "': length must be from 0 to 1e9");
  out->length = length.AsDouble();
  if (Status s = out->ttft.FromJson(value["ttft"]); !s.ok())
    return s.WithContext("class '" + out->label + "', ttft");
  if (Status s = out->tpot.FromJson(value["tpot"]); !s.ok())
    return s.WithContext("class '" + out->label + "', tpot");
  return out;
}

Status LatencyModel::FromJson(const json::Value& value) {
  if (!value["streaming"].is_bool() || value["streaming"].AsBool() != streaming_)
    return InvalidArgument(std::string("it was learned with streamingMode ") +
                           (streaming_ ? "false" : "true"));
  const json::Value& list = value["classes"];
  if (!list.is_array() || list.AsArray().empty() || list.AsArray().size() > kMaxClasses)
    return InvalidArgument("classes must be a list of 1 to " + std::to_string(kMaxClasses));
  std::vector<std::unique_ptr<Class>> read;
  for (const json::Value& entry : list.AsArray()) {
    LLMD_ASSIGN_OR_RETURN(std::unique_ptr<Class> one, ReadClass(entry));
    read.push_back(std::move(one));
  }
  std::lock_guard lock(mutex_);
  if (count_.load(std::memory_order_relaxed) > 1 || learned() > 0)
    return {StatusCode::kFailedPrecondition, "the model has begun to learn"};
  for (size_t i = 0; i < read.size(); ++i) {
    classes_[i] = std::move(read[i]);
    classes_[i]->Publish();
  }
  count_.store(read.size(), std::memory_order_release);
  return OkStatus();
}

const LatencyModel::Weights& Reader::Of(uint8_t model_class) {
  const uint32_t bit = uint32_t{1} << model_class;
  if (!(read_ & bit)) {
    weights_[model_class] = model_.classes_[model_class]->published.Load();
    read_ |= bit;
  }
  return weights_[model_class];
}

double Reader::Predict(Target target, uint8_t model_class, LatencyFeatures& features) {
  const bool ttft = target == Target::kTtft;
  const auto ready = [&](const LatencyModel::Weights& w) {
    return (ttft ? w.ttft_ready : w.tpot_ready) > 0;
  };
  const LatencyModel::Weights* weights = &Of(model_class);
  if (!ready(*weights)) weights = &Of(0);
  if (!ready(*weights)) return std::numeric_limits<double>::quiet_NaN();
  if (ttft && model_.streaming_) {
    features.num_tokens_generated = 0;
  } else {
    const double limit = features.num_tokens_generated;
    features.num_tokens_generated =
        limit > 0 && weights->length > 0 ? std::min(limit, weights->length) : weights->length;
  }
  const Terms terms = Expand(target, features);
  const Terms& w = ttft ? weights->ttft : weights->tpot;
  double y = 0;
  for (size_t i = 0; i < kTerms; ++i) y += w[i] * terms[i];
  return std::isfinite(y) ? y : std::numeric_limits<double>::quiet_NaN();
}

double Reader::Ttft(uint8_t model_class, LatencyFeatures features) {
  return Predict(Target::kTtft, model_class, features);
}

double Reader::Tpot(uint8_t model_class, LatencyFeatures features) {
  return Predict(Target::kTpot, model_class, features);
}

}  // namespace llmd::sched::latency
