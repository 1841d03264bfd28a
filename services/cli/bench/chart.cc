#include "cli/bench/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace llmd::bench {
namespace {

constexpr double kWidth = 900, kLeft = 70, kRight = 20, kPlot = 240, kTop = 50, kBetween = 70;

std::string Number(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), std::fabs(value) >= 100 ? "%.0f" : "%.3g", value);
  return buffer;
}

// Of a place in the picture.
std::string Place(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.1f", value);
  return buffer;
}

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// One plot: a frame with two axes, values mapped into it. The y axis is logarithmic when `log`.
class Plot {
 public:
  struct Range {
    double from = 0, to = 1;
    bool log = false;
    double At(double value) const {
      if (!log) return (value - from) / (to - from);
      return std::log(std::max(value, from) / from) / std::log(to / from);
    }
  };
  Plot(std::string& out, double top, Range x, Range y) : out_(out), top_(top), x_(x), y_(y) {}

  double X(double v) const { return kLeft + (kWidth - kLeft - kRight) * x_.At(v); }
  double Y(double v) const { return top_ + kPlot * (1 - y_.At(v)); }

  void Frame(const std::string& title, const std::string& x_name, const std::string& y_name) {
    Text(kLeft, top_ - 10, "start", title, true);
    Text(kWidth - kRight, top_ + kPlot + 34, "end", x_name, false);
    Text(8, top_ - 10, "start", y_name, false);
    for (const double v : Ticks(x_)) {
      Line(X(v), top_, X(v), top_ + kPlot, "#eee");
      Text(X(v), top_ + kPlot + 16, "middle", Number(v), false);
    }
    for (const double v : Ticks(y_)) {
      Line(kLeft, Y(v), kWidth - kRight, Y(v), "#eee");
      Text(kLeft - 6, Y(v) + 4, "end", Number(v), false);
    }
    Line(kLeft, top_ + kPlot, kWidth - kRight, top_ + kPlot, "#666");
    Line(kLeft, top_, kLeft, top_ + kPlot, "#666");
  }
  void Curve(const std::vector<std::pair<double, double>>& points, const char* colour,
             const char* more) {
    out_ += "<polyline fill=\"none\" stroke=\"" + std::string(colour) + "\" stroke-width=\"1.5\" " +
            more + " points=\"";
    for (const auto& [x, y] : points) out_ += Place(X(x)) + "," + Place(Y(y)) + " ";
    out_ += "\"/>\n";
  }
  void Bar(double from, double to, double height, const char* colour) {
    const double left = X(from), y = Y(height);
    out_ += "<rect x=\"" + Place(left) + "\" y=\"" + Place(y) + "\" width=\"" +
            Place(std::max(1.0, X(to) - left)) + "\" height=\"" + Place(top_ + kPlot - y) +
            "\" fill=\"" + colour + "\" fill-opacity=\"0.5\"/>\n";
  }
  void Legend(int place, const char* colour, const std::string& text) {
    const double x = kLeft + 330 + 105 * place;
    Line(x, top_ - 14, x + 16, top_ - 14, colour);
    Text(x + 20, top_ - 10, "start", text, false);
  }

 private:
  static std::vector<double> Ticks(const Range& range) {
    std::vector<double> out;
    if (range.log) {
      for (double v = std::pow(10, std::ceil(std::log10(range.from))); v <= range.to; v *= 10) {
        out.push_back(v);
      }
      return out;
    }
    const double rough = (range.to - range.from) / 6;
    const double power = std::pow(10, std::floor(std::log10(rough)));
    const double step = power * (rough / power < 2 ? 2 : rough / power < 5 ? 5 : 10);
    for (double v = std::ceil(range.from / step) * step; v <= range.to; v += step) out.push_back(v);
    return out;
  }
  void Line(double x1, double y1, double x2, double y2, const char* colour) {
    out_ += "<line x1=\"" + Place(x1) + "\" y1=\"" + Place(y1) + "\" x2=\"" + Place(x2) +
            "\" y2=\"" + Place(y2) + "\" stroke=\"" + colour + "\"/>\n";
  }
  void Text(double x, double y, const char* anchor, const std::string& text, bool bold) {
    out_ += "<text x=\"" + Place(x) + "\" y=\"" + Place(y) + "\" text-anchor=\"" + anchor + "\"" +
            (bold ? " font-weight=\"bold\"" : "") + ">" + Escaped(text) + "</text>\n";
  }
  std::string& out_;
  double top_;
  Range x_, y_;
};

double Ms(int64_t nanos) {
  return static_cast<double>(nanos) / 1e6;
}

// A logarithmic range that holds both, at least one decade wide.
Plot::Range LogRange(double least, double most) {
  const double from = std::pow(10, std::floor(std::log10(std::max(least, 1e-3))));
  const double to = std::pow(10, std::ceil(std::log10(std::max(most, from * 1.01))));
  return {.from = from, .to = std::max(to, from * 10), .log = true};
}

using Points = std::vector<std::pair<double, double>>;

Points Curve(const Series& series, bool ttft, double percent) {
  Points out;
  const double width = static_cast<double>(series.width()) * 1e-9;
  for (size_t i = 0; i < series.windows().size(); ++i) {
    const Histogram& h = ttft ? series.windows()[i].ttft : series.windows()[i].e2e;
    if (h.count() == 0) continue;
    out.emplace_back((static_cast<double>(i) + 0.5) * width, Ms(h.Percentile(percent)));
  }
  return out;
}

void OverTime(std::string& out, const Result& r) {
  const Series& series = r.series;
  const double end =
      static_cast<double>(series.width()) * static_cast<double>(series.windows().size()) * 1e-9;
  const Histogram& e2e = r.total.e2e();
  const Histogram& ttft = r.total.ttft();
  const double least = ttft.count() ? Ms(std::min(ttft.min(), e2e.min())) : Ms(e2e.min());
  Plot plot(out, kTop, {.from = 0, .to = std::max(end, 0.001)}, LogRange(least, Ms(e2e.max())));
  plot.Frame("latency by when requests were to be sent", "seconds", "ms");
  int place = 0;
  const auto draw = [&](bool of_ttft, double percent, const char* colour, const char* name) {
    plot.Curve(Curve(series, of_ttft, percent), colour, "");
    plot.Legend(place++, colour, name);
  };
  if (ttft.count() != 0) {
    draw(true, 50, "#7fb3d5", "TTFT p50");
    draw(true, 99, "#1f618d", "TTFT p99");
  }
  draw(false, 50, "#f0b27a", "e2e p50");
  draw(false, 99, "#a04000", "e2e p99");
  if (r.total.failed() == 0) return;
  Points failures;
  double most = 0;
  for (const Series::Window& w : series.windows()) {
    most = std::max(most, static_cast<double>(w.failed));
  }
  Plot share(out, kTop, {.from = 0, .to = std::max(end, 0.001)}, {.from = 0, .to = most});
  for (size_t i = 0; i < series.windows().size(); ++i) {
    failures.emplace_back(
        (static_cast<double>(i) + 0.5) * end / static_cast<double>(series.windows().size()),
        static_cast<double>(series.windows()[i].failed));
  }
  share.Curve(failures, "#c0392b", "stroke-dasharray=\"4 3\"");
  plot.Legend(place, "#c0392b", "failed (max " + Number(most) + ")");
}

// Buckets of equal width on the logarithmic axis.
std::vector<double> Shares(const Histogram& histogram, const Plot::Range& x, size_t bars) {
  std::vector<double> out(bars);
  for (const Histogram::Bucket& bucket : histogram.Buckets()) {
    const double at = x.At(Ms((bucket.from + bucket.to) / 2)) * static_cast<double>(bars);
    const auto index = static_cast<size_t>(std::clamp(at, 0.0, static_cast<double>(bars) - 1));
    out[index] += 100 * static_cast<double>(bucket.count) / static_cast<double>(histogram.count());
  }
  return out;
}

void Distribution(std::string& out, const Result& r) {
  constexpr size_t kBars = 100;
  const Histogram& e2e = r.total.e2e();
  const Histogram& ttft = r.total.ttft();
  const double least = ttft.count() ? Ms(std::min(ttft.min(), e2e.min())) : Ms(e2e.min());
  const Plot::Range x = LogRange(least, Ms(e2e.max()));
  const std::vector<double> of_e2e = Shares(e2e, x, kBars), of_ttft = Shares(ttft, x, kBars);
  double most = 1;
  for (size_t i = 0; i < kBars; ++i) most = std::max({most, of_e2e[i], of_ttft[i]});
  Plot plot(out, kTop + kPlot + kBetween, x, {.from = 0, .to = most * 1.05});
  plot.Frame("distribution", "ms", "%");
  const auto edge = [&](size_t i) {
    return x.from * std::pow(x.to / x.from, static_cast<double>(i) / kBars);
  };
  for (size_t i = 0; i < kBars; ++i) {
    if (of_ttft[i] > 0) plot.Bar(edge(i), edge(i + 1), of_ttft[i], "#1f618d");
    if (of_e2e[i] > 0) plot.Bar(edge(i), edge(i + 1), of_e2e[i], "#a04000");
  }
  if (ttft.count() != 0) plot.Legend(0, "#1f618d", "TTFT");
  plot.Legend(1, "#a04000", "e2e");
}

}  // namespace

std::string SvgChart(const Options& options, const Result& result) {
  const double height = kTop + 2 * kPlot + kBetween + 50;
  std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + Number(kWidth) +
                    "\" height=\"" + Number(height) +
                    "\" font-family=\"sans-serif\" font-size=\"12\">\n"
                    "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  out += "<text x=\"8\" y=\"20\" font-size=\"14\">llmd bench: " +
         Escaped(std::string(Name(options.api)) + " " + options.model.substr(0, 60) + ", " +
                 std::string(Name(options.load)) + ", " + std::to_string(result.total.completed()) +
                 " completed, " + std::to_string(result.total.failed()) + " failed") +
         "</text>\n";
  if (result.total.completed() != 0) {
    OverTime(out, result);
    Distribution(out, result);
  }
  return out + "</svg>\n";
}

}  // namespace llmd::bench
