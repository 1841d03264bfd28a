#include <algorithm>
#include <limits>

#include "llmd/metrics.h"
#include "llmd/status.h"
#include "utf8.h"

namespace llmd {
namespace {

using Callback = std::shared_ptr<const std::function<double()>>;

// Held by its owner; an exposition under way keeps the lock, so that the owner may go afterwards.
struct Collector {
  std::mutex mutex;
  std::function<void(const MetricsRegistry::GaugeEmit&)> collect;  // guarded by mutex
};

bool IsNameByte(char c, bool first) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         (!first && c >= '0' && c <= '9');
}

bool IsName(std::string_view name, bool colons) {
  for (size_t i = 0; i < name.size(); ++i) {
    if (!IsNameByte(name[i], i == 0) && !(colons && name[i] == ':')) return false;
  }
  return !name.empty();
}

// The one way by which text gets onto a page. A byte that belongs to no character of UTF-8 becomes
// U+FFFD: readers refuse a page with one such byte as a whole.
void AppendEscaped(std::string& out, std::string_view text, bool quotes) {
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    const size_t length = Utf8Length(at, end);
    if (length == 0) {
      out += "\xEF\xBF\xBD";
    } else if (*at == '\\') {
      out += "\\\\";
    } else if (*at == '\n') {
      out += "\\n";
    } else if (*at == '"' && quotes) {
      out += "\\\"";
    } else {
      out.append(at, length);
    }
    at += std::max<size_t>(length, 1);
  }
}

// `a="1",b="2"`, by label name: the key of a series and what is printed between its braces.
std::string RenderLabels(Labels labels) {
  std::sort(labels.begin(), labels.end());
  std::string out;
  for (const auto& [name, value] : labels) {
    LLMD_CHECK(IsName(name, false));
    if (!out.empty()) out += ',';
    out += name;
    out += "=\"";
    AppendEscaped(out, value, true);
    out += '"';
  }
  return out;
}

// The text of each bucket's le, +Inf last.
std::vector<std::string> BucketTexts(const std::vector<double>& bounds) {
  std::vector<std::string> out;
  out.reserve(bounds.size() + 1);
  for (const double bound : bounds) out.push_back(FormatMetricValue(bound));
  out.push_back(FormatMetricValue(std::numeric_limits<double>::infinity()));
  return out;
}

// Bytes of the rendered labels that go before "le".
size_t PlaceOfLe(Labels labels) {
  std::erase_if(labels, [](const auto& label) { return label.first >= "le"; });
  return RenderLabels(std::move(labels)).size();
}

struct Series {
  double created_seconds = 0;
  std::unique_ptr<Counter> counter;
  std::unique_ptr<Gauge> gauge;
  std::unique_ptr<Histogram> histogram;
  size_t place_of_le = 0;  // in the rendered labels of a histogram
  Callback read;
};

struct Family {
  MetricType type = MetricType::kGauge;
  std::string help;
  std::vector<double> bounds;
  std::vector<std::string> bucket_texts;  // of a histogram
  std::map<std::string, Series, std::less<>> series;
  std::vector<std::weak_ptr<Collector>> collectors;
};

// One series as it is about to be printed. Series never move or go, so that printing needs no lock;
// the instruments are pointed at because a series gets its own before it is first seen.
struct SeriesView {
  const std::string* labels;
  const Series* series;
  const Counter* counter;
  const Gauge* gauge;
  const Histogram* histogram;
  Callback read;
};
struct Alias {
  std::string name, label, old_label;
};
struct FamilyView {
  std::string name;
  const Family* family = nullptr;
  const Alias* alias = nullptr;  // null: the name is the family's own
  std::vector<SeriesView> series;
  std::vector<std::pair<std::string, double>> collected;  // by labels
};

// `a="1"` with the label renamed.
std::string Renamed(const std::string& labels, const Alias* alias) {
  if (alias == nullptr || alias->label.empty()) return labels;
  const std::string from = alias->label + "=\"";
  size_t at = labels.starts_with(from) ? 0 : labels.find("," + from);
  if (at == std::string::npos) return labels;
  if (at > 0) ++at;
  return labels.substr(0, at) + alias->old_label + labels.substr(at + alias->label.size());
}

std::string_view TypeText(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "untyped";
}

class TextWriter {
 public:
  explicit TextWriter(std::string& out) : out_(out) {}

  // The views of one family, of one registry each.
  void Write(const std::vector<const FamilyView*>& views, bool with_created) {
    const FamilyView& first = *views[0];
    Header(first.name, "", first.family->help, TypeText(first.family->type));
    for (const FamilyView* view : views) {
      for (const SeriesView& s : view->series) WriteSeries(*view, s);
      for (const auto& [labels, v] : view->collected)
        Sample(view->name, "", Renamed(labels, view->alias), v);
    }
    if (!with_created || first.family->type == MetricType::kGauge) return;
    std::string_view base = first.name;
    if (base.ends_with("_total")) base.remove_suffix(std::string_view("_total").size());
    Header(base, "_created", first.family->help, "gauge");
    for (const FamilyView* view : views) {
      for (const SeriesView& s : view->series)
        Sample(base, "_created", Renamed(*s.labels, view->alias), s.series->created_seconds);
    }
  }

 private:
  void Header(std::string_view name, std::string_view suffix, std::string_view help,
              std::string_view type) {
    out_.append("# HELP ").append(name).append(suffix).append(" ");
    AppendEscaped(out_, help, false);
    out_.append("\n# TYPE ").append(name).append(suffix).append(" ").append(type).append("\n");
  }

  void Sample(std::string_view name, std::string_view suffix, std::string_view labels, double v) {
    out_.append(name).append(suffix);
    if (!labels.empty()) out_.append("{").append(labels).append("}");
    out_.append(" ").append(FormatMetricValue(v)).append("\n");
  }

  void WriteSeries(const FamilyView& view, const SeriesView& s) {
    if (s.histogram) return WriteHistogram(view, s);
    const std::string labels = Renamed(*s.labels, view.alias);
    if (s.counter) return Sample(view.name, "", labels, s.counter->value());
    Sample(view.name, "", labels, s.read ? (*s.read)() : s.gauge->value());
  }

  void WriteHistogram(const FamilyView& view, const SeriesView& s) {
    const std::vector<uint64_t> counts = s.histogram->Counts();
    const size_t place = s.series->place_of_le;
    std::string before = Renamed(s.labels->substr(0, place), view.alias);
    std::string after = s.labels->substr(place + (place > 0 && place < s.labels->size()));
    after = Renamed(after, view.alias);
    if (!before.empty()) before += ',';
    if (!after.empty()) after.insert(0, 1, ',');
    uint64_t total = 0;
    std::string labels;
    for (size_t i = 0; i < counts.size(); ++i) {
      total += counts[i];
      labels = before;
      labels.append("le=\"").append(view.family->bucket_texts[i]).append("\"").append(after);
      Sample(view.name, "_bucket", labels, static_cast<double>(total));
    }
    labels = Renamed(*s.labels, view.alias);
    Sample(view.name, "_count", labels, static_cast<double>(total));
    Sample(view.name, "_sum", labels, s.histogram->sum());
  }

  std::string& out_;
};

}  // namespace

struct MetricsRegistry::Impl {
  Impl(const Clock& c, Labels l) : clock(c), constant(std::move(l)) {}

  Labels Full(Labels labels) const {
    labels.insert(labels.end(), constant.begin(), constant.end());
    return labels;
  }

  Family& FamilyOf(std::string_view name, std::string_view help, MetricType type,
                   const std::vector<double>& bounds) {
    auto it = families.find(name);
    if (it == families.end()) {
      LLMD_CHECK(IsName(name, true));
      it = families.emplace(std::string(name), Family{type, std::string(help), bounds, {}, {}, {}})
               .first;
    }
    LLMD_CHECK(it->second.type == type);
    LLMD_CHECK(it->second.bounds == bounds);
    return it->second;
  }

  Series& SeriesOf(Family& family, const Labels& labels) {
    const auto [it, fresh] = family.series.try_emplace(RenderLabels(Full(labels)));
    if (fresh) it->second.created_seconds = static_cast<double>(clock.UnixNanos()) / 1e9;
    return it->second;
  }

  // Every name this registry exposes. The collectors run without the lock.
  std::vector<FamilyView> View() {
    std::vector<FamilyView> out;
    std::vector<std::vector<std::shared_ptr<Collector>>> collectors;
    {
      const std::lock_guard lock(mutex);
      for (const auto& [name, family] : families) AddView(name, family, nullptr, out, collectors);
      for (const auto& [name, alias] : aliases) {
        if (!with_aliases.load(std::memory_order_relaxed)) break;
        const auto it = families.find(alias.name);
        if (it != families.end()) AddView(name, it->second, &alias, out, collectors);
      }
    }
    for (size_t i = 0; i < out.size(); ++i) {
      for (const auto& collector : collectors[i]) Collect(*collector, out[i]);
      Merge(out[i]);
    }
    return out;
  }

  static void AddView(const std::string& name, const Family& family, const Alias* alias,
                      std::vector<FamilyView>& out,
                      std::vector<std::vector<std::shared_ptr<Collector>>>& collectors) {
    FamilyView& view = out.emplace_back();
    view.name = name;
    view.family = &family;
    view.alias = alias;
    for (const auto& [labels, s] : family.series) {
      view.series.push_back(
          {&labels, &s, s.counter.get(), s.gauge.get(), s.histogram.get(), s.read});
    }
    auto& live = collectors.emplace_back();
    for (const auto& weak : family.collectors) {
      if (auto collector = weak.lock()) live.push_back(std::move(collector));
    }
  }

  void Collect(Collector& collector, FamilyView& view) const {
    const std::lock_guard lock(collector.mutex);
    if (!collector.collect) return;
    collector.collect([&](const Labels& labels, double v) {
      view.collected.emplace_back(RenderLabels(Full(labels)), v);
    });
  }

  // A page with one series twice is refused by who reads it; collectors give theirs in any order.
  static void Merge(FamilyView& view) {
    if (view.collected.size() < 2) return;
    std::map<std::string, double> merged;
    for (auto& [labels, v] : view.collected) {
      const auto [it, fresh] = merged.try_emplace(std::move(labels), v);
      if (!fresh) it->second = view.family->type == MetricType::kCounter ? it->second + v : v;
    }
    view.collected.assign(merged.begin(), merged.end());
  }

  const Clock& clock;
  const Labels constant;
  std::mutex mutex;
  std::map<std::string, Family, std::less<>> families;
  std::map<std::string, Alias, std::less<>> aliases;  // by the other name
  std::atomic<bool> created{false}, with_aliases{true};
};

MetricsRegistry::MetricsRegistry(const Clock& clock, Labels constant)
    : impl_(std::make_unique<Impl>(clock, std::move(constant))) {}
MetricsRegistry::~MetricsRegistry() = default;

Counter& MetricsRegistry::AddCounter(std::string_view name, std::string_view help,
                                     const Labels& labels) {
  const std::lock_guard lock(impl_->mutex);
  Series& series = impl_->SeriesOf(impl_->FamilyOf(name, help, MetricType::kCounter, {}), labels);
  if (!series.counter) series.counter = std::make_unique<Counter>();
  return *series.counter;
}

Gauge& MetricsRegistry::AddGauge(std::string_view name, std::string_view help,
                                 const Labels& labels) {
  const std::lock_guard lock(impl_->mutex);
  Series& series = impl_->SeriesOf(impl_->FamilyOf(name, help, MetricType::kGauge, {}), labels);
  LLMD_CHECK(!series.read);
  if (!series.gauge) series.gauge = std::make_unique<Gauge>();
  return *series.gauge;
}

Histogram& MetricsRegistry::AddHistogram(std::string_view name, std::string_view help,
                                         std::vector<double> bounds, const Labels& labels) {
  const std::lock_guard lock(impl_->mutex);
  Family& family = impl_->FamilyOf(name, help, MetricType::kHistogram, bounds);
  Series& series = impl_->SeriesOf(family, labels);
  if (!series.histogram) {
    series.place_of_le = PlaceOfLe(impl_->Full(labels));
    if (family.bucket_texts.empty()) family.bucket_texts = BucketTexts(bounds);
    series.histogram = std::make_unique<Histogram>(std::move(bounds));
  }
  return *series.histogram;
}

void MetricsRegistry::AddGaugeCallback(std::string_view name, std::string_view help,
                                       const Labels& labels, std::function<double()> read) {
  const std::lock_guard lock(impl_->mutex);
  Series& series = impl_->SeriesOf(impl_->FamilyOf(name, help, MetricType::kGauge, {}), labels);
  LLMD_CHECK(!series.gauge);
  series.read = std::make_shared<const std::function<double()>>(std::move(read));
}

std::shared_ptr<const void> MetricsRegistry::AddGaugeCollector(
    std::string_view name, std::string_view help, std::function<void(const GaugeEmit&)> collect) {
  return AddCollector(MetricType::kGauge, name, help, std::move(collect));
}

std::shared_ptr<const void> MetricsRegistry::AddCounterCollector(
    std::string_view name, std::string_view help, std::function<void(const GaugeEmit&)> collect) {
  return AddCollector(MetricType::kCounter, name, help, std::move(collect));
}

std::shared_ptr<const void> MetricsRegistry::AddCollector(
    MetricType type, std::string_view name, std::string_view help,
    std::function<void(const GaugeEmit&)> collect) {
  auto collector = std::make_shared<Collector>();
  collector->collect = std::move(collect);
  const std::lock_guard lock(impl_->mutex);
  Family& family = impl_->FamilyOf(name, help, type, {});
  std::erase_if(family.collectors, [](const auto& weak) { return weak.expired(); });
  family.collectors.push_back(collector);
  return {nullptr, [collector](const void*) {
            const std::lock_guard in_use(collector->mutex);
            collector->collect = nullptr;
          }};
}

void MetricsRegistry::AddAlias(std::string_view name, std::string_view alias,
                               std::string_view label, std::string_view old_label) {
  const std::lock_guard lock(impl_->mutex);
  LLMD_CHECK(IsName(alias, true));
  LLMD_CHECK(impl_->families.find(alias) == impl_->families.end());
  const auto [it, fresh] = impl_->aliases.try_emplace(
      std::string(alias), Alias{std::string(name), std::string(label), std::string(old_label)});
  LLMD_CHECK(fresh || it->second.name == name);
}

void MetricsRegistry::ExposeAliases(bool on) {
  impl_->with_aliases.store(on, std::memory_order_relaxed);
}

void MetricsRegistry::ExposeCreated(bool on) {
  impl_->created.store(on, std::memory_order_relaxed);
}

std::string MetricsRegistry::Expose() const {
  return ExposeTogether({this});
}

std::string MetricsRegistry::ExposeTogether(const std::vector<const MetricsRegistry*>& registries) {
  std::vector<std::vector<FamilyView>> views;
  std::map<std::string_view, std::vector<const FamilyView*>> by_name;
  bool created = false;
  for (const MetricsRegistry* registry : registries) {
    views.push_back(registry->impl_->View());
    created |= registry->impl_->created.load(std::memory_order_relaxed);
  }
  for (const auto& of_one : views) {
    for (const FamilyView& view : of_one) by_name[view.name].push_back(&view);
  }
  std::string out;
  TextWriter writer(out);
  for (const auto& [name, families] : by_name) writer.Write(families, created);
  return out;
}

}  // namespace llmd
