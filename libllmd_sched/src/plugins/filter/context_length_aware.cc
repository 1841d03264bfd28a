// Formula: docs/reference/filters.md, context-length-aware (filter and scorer in one).
#include <charconv>
#include <cmath>
#include <optional>

#include "llmd/sched/filter.h"
#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

struct Range {
  enum Kind : uint8_t { kNone, kBad, kGood } kind = kNone;
  double min = 0, max = 0;
};

Range ParseRange(const EndpointInfo& info, const std::string& label) {
  const auto it = info.labels.find(label);
  if (it == info.labels.end()) return {};
  const std::string& text = it->second;
  const size_t dash = text.find('-');
  Range r{Range::kBad};
  if (dash == std::string::npos) return r;
  const char* end = text.data() + text.size();
  const auto a = std::from_chars(text.data(), text.data() + dash, r.min);
  const auto b = std::from_chars(text.data() + dash + 1, end, r.max);
  const bool whole =
      a.ec == std::errc() && a.ptr == text.data() + dash && b.ec == std::errc() && b.ptr == end;
  if (whole && r.min <= r.max) r.kind = Range::kGood;
  return r;
}

double ScoreOf(const Range& r, double length) {
  if (r.kind == Range::kNone) return 0.5;
  if (r.kind == Range::kBad) return 0;
  if (length < r.min || length > r.max) {
    return 0.3 / (1 + (length < r.min ? r.min - length : length - r.max) / 1000);
  }
  const double width = r.max - r.min;
  if (width == 0) return 1;
  return 0.3 + 0.7 * (0.7 / (1 + width / 10000) + 0.3 * (r.max - length) / width);
}

class ContextLengthAware final : public Filter, public Scorer {
 public:
  ContextLengthAware(std::string label, bool filtering, DataKey tokens)
      : label_(std::move(label)), filtering_(filtering), tokens_(tokens) {}

  void Keep(RequestContext& request, const Snapshot& snapshot,
            std::vector<uint32_t>& candidates) override {
    if (!filtering_ || snapshot.size() == 0) return;
    const double length = Length(request);
    const auto ranges = Ranges(snapshot);
    std::erase_if(candidates, [&](uint32_t i) {
      const Range& r = (*ranges)[i];
      return r.kind == Range::kBad ||
             (r.kind == Range::kGood && (length < r.min || length > r.max));
    });
  }
  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    const double length = Length(request);
    const auto ranges = Ranges(snapshot);
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] = ScoreOf((*ranges)[candidates[i]], length);
  }

 private:
  double Length(const RequestContext& request) const {
    const Attribute* prompt = request.Get(tokens_);
    return prompt ? static_cast<double>(prompt->tokens.size()) : 0;
  }
  std::shared_ptr<const std::vector<Range>> Ranges(const Snapshot& snapshot) {
    return cache_.Get(snapshot.set,
                      [this](const EndpointInfo& info) { return ParseRange(info, label_); });
  }
  const std::string label_;
  const bool filtering_;
  const DataKey tokens_;
  PerSet<Range> cache_;
};

}  // namespace

Status RegisterContextLengthAware(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "context-length-aware",
       .kind = "filter, scorer",
       .help = "Prefers endpoints whose labelled context range fits the prompt tightly.",
       .params = {{"label", "llm-d.ai/context-length-range", "label with \"min-max\" tokens"},
                  {"enableFiltering", "false",
                   "also drop endpoints whose range does not hold the prompt"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         std::string label = params.String("label", "llm-d.ai/context-length-range");
         const bool filtering = params.Bool("enableFiltering", false);
         const DataKey tokens = args.env.Consume("TokenizedPrompt", "", true);
         return Done(params,
                     std::make_unique<ContextLengthAware>(std::move(label), filtering, tokens));
       }});
}

}  // namespace llmd::sched
