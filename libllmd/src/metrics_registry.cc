#include <algorithm>
#include <limits>

#include "llmd/metrics.h"
#include "llmd/status.h"

namespace llmd {
namespace {

using Callback = std::shared_ptr<const std::function<double()>>;

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

void AppendEscaped(std::string& out, std::string_view text, bool quotes) {
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quotes) {
      out += "\\\"";
    } else {
      out += c;
    }
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

// The labels of each bucket, its le among them.
std::vector<std::string> RenderBuckets(const Labels& labels, const std::vector<double>& bounds) {
  std::vector<std::string> out;
  for (size_t i = 0; i <= bounds.size(); ++i) {
    Labels with = labels;
    const double bound = i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
    with.emplace_back("le", FormatMetricValue(bound));
    out.push_back(RenderLabels(std::move(with)));
  }
  return out;
}

struct Series {
  double created_seconds = 0;
  std::unique_ptr<Counter> counter;
  std::unique_ptr<Gauge> gauge;
  std::unique_ptr<Histogram> histogram;
  std::vector<std::string> bucket_labels;
  Callback read;
};

struct Family {
  MetricType type = MetricType::kGauge;
  std::string help;
  std::vector<double> bounds;
  std::map<std::string, Series, std::less<>> series;
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
struct FamilyView {
  std::string_view name;
  const Family* family;
  std::vector<SeriesView> series;
};

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

  void Write(const FamilyView& view, bool with_created) {
    Header(view.name, "", view.family->help, TypeText(view.family->type));
    for (const SeriesView& s : view.series) WriteSeries(view.name, s);
    if (!with_created || view.family->type == MetricType::kGauge) return;
    std::string_view base = view.name;
    if (base.ends_with("_total")) base.remove_suffix(std::string_view("_total").size());
    Header(base, "_created", view.family->help, "gauge");
    for (const SeriesView& s : view.series) {
      Sample(base, "_created", *s.labels, s.series->created_seconds);
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

  void WriteSeries(std::string_view name, const SeriesView& s) {
    if (s.histogram) {
      WriteHistogram(name, s);
    } else if (s.counter) {
      Sample(name, "", *s.labels, s.counter->value());
    } else {
      Sample(name, "", *s.labels, s.read ? (*s.read)() : s.gauge->value());
    }
  }

  void WriteHistogram(std::string_view name, const SeriesView& s) {
    const std::vector<uint64_t> counts = s.histogram->Counts();
    uint64_t total = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      total += counts[i];
      Sample(name, "_bucket", s.series->bucket_labels[i], static_cast<double>(total));
    }
    Sample(name, "_count", *s.labels, static_cast<double>(total));
    Sample(name, "_sum", *s.labels, s.histogram->sum());
  }

  std::string& out_;
};

}  // namespace

struct MetricsRegistry::Impl {
  explicit Impl(const Clock& c) : clock(c) {}

  Family& FamilyOf(std::string_view name, std::string_view help, MetricType type,
                   const std::vector<double>& bounds) {
    auto it = families.find(name);
    if (it == families.end()) {
      LLMD_CHECK(IsName(name, true));
      it = families.emplace(std::string(name), Family{type, std::string(help), bounds, {}}).first;
    }
    LLMD_CHECK(it->second.type == type);
    LLMD_CHECK(it->second.bounds == bounds);
    return it->second;
  }

  Series& SeriesOf(Family& family, const Labels& labels) {
    const auto [it, fresh] = family.series.try_emplace(RenderLabels(labels));
    if (fresh) it->second.created_seconds = static_cast<double>(clock.UnixNanos()) / 1e9;
    return it->second;
  }

  std::vector<FamilyView> View() {
    const std::lock_guard lock(mutex);
    std::map<std::string_view, const Family*> named;
    for (const auto& [name, family] : families) named.emplace(name, &family);
    for (const auto& [alias, name] : aliases) {
      if (const auto it = families.find(name); it != families.end()) {
        named.emplace(alias, &it->second);
      }
    }
    std::vector<FamilyView> out;
    for (const auto& [name, family] : named) {
      FamilyView& view = out.emplace_back(FamilyView{name, family, {}});
      for (const auto& [labels, s] : family->series) {
        view.series.push_back(
            {&labels, &s, s.counter.get(), s.gauge.get(), s.histogram.get(), s.read});
      }
    }
    return out;
  }

  const Clock& clock;
  std::mutex mutex;
  std::map<std::string, Family, std::less<>> families;
  std::map<std::string, std::string, std::less<>> aliases;  // alias → name
  std::atomic<bool> created{false};
};

MetricsRegistry::MetricsRegistry(const Clock& clock) : impl_(std::make_unique<Impl>(clock)) {}
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
    series.bucket_labels = RenderBuckets(labels, bounds);
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

void MetricsRegistry::AddAlias(std::string_view name, std::string_view alias) {
  const std::lock_guard lock(impl_->mutex);
  LLMD_CHECK(IsName(alias, true));
  LLMD_CHECK(impl_->families.find(alias) == impl_->families.end());
  impl_->aliases.insert_or_assign(std::string(alias), std::string(name));
}

void MetricsRegistry::ExposeCreated(bool on) {
  impl_->created.store(on, std::memory_order_relaxed);
}

std::string MetricsRegistry::Expose() const {
  const std::vector<FamilyView> families = impl_->View();
  const bool created = impl_->created.load(std::memory_order_relaxed);
  std::string out;
  TextWriter writer(out);
  for (const FamilyView& family : families) writer.Write(family, created);
  return out;
}

}  // namespace llmd
