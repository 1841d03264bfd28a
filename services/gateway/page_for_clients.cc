#include "gateway/page_for_clients.h"

#include <algorithm>
#include <cstdlib>
#include <unordered_map>
#include <vector>

#include "llmd/metrics.h"

namespace llmd::gateway {
namespace {

constexpr std::string_view kEngineLabels[] = {
    "endpoint",         "endpoint_name", "ip",       "namespace", "model_server_endpoint",
    "model_server_pod", "pod",           "pod_name", "port"};

bool NamesEngine(std::string_view label) {
  return std::find(std::begin(kEngineLabels), std::end(kEngineLabels), label) !=
         std::end(kEngineLabels);
}

// The end of a quoted value, past its quote; `text` begins behind the first one.
size_t EndOfValue(std::string_view text) {
  size_t at = 0;
  while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
  return std::min(at + 1, text.size());
}

// One sample's name and labels; true when there were labels of engines, which are left out.
bool Strip(std::string_view sample, std::string& out) {
  const size_t open = sample.find('{');
  out.assign(sample.substr(0, open));
  if (open == std::string_view::npos) return false;
  bool stripped = false;
  size_t kept = 0;
  std::string_view rest = sample.substr(open + 1);
  while (!rest.empty() && rest.front() != '}') {
    const size_t name_end = rest.find("=\"");
    if (name_end == std::string_view::npos) break;
    const size_t end = name_end + 2 + EndOfValue(rest.substr(name_end + 2));
    if (NamesEngine(rest.substr(0, name_end))) {
      stripped = true;
    } else {
      out.append(kept++ == 0 ? "{" : ",").append(rest.substr(0, end));
    }
    rest.remove_prefix(end);
    if (rest.starts_with(',')) rest.remove_prefix(1);
  }
  if (kept > 0) out.append("}");
  return stripped;
}

// The samples of one family.
class Family {
 public:
  void Begin(bool gauge) { gauge_ = gauge; }
  void Add(std::string_view line) {
    const size_t space = line.rfind(' ');
    const bool stripped = Strip(line.substr(0, space), key_);
    if (stripped && gauge_) return;
    const auto [at, fresh] = index_.try_emplace(key_, samples_.size());
    if (fresh) samples_.push_back({key_, line, 0});
    Sample& sample = samples_[at->second];
    sample.value += std::strtod(std::string(line.substr(space + 1)).c_str(), nullptr);
    if (stripped || !fresh) sample.line = {};
  }
  // Lines of which nothing was taken stay as they are.
  void End(std::string& page) {
    for (const Sample& sample : samples_) {
      if (sample.line.empty()) {
        page.append(sample.key).append(" ").append(FormatMetricValue(sample.value));
      } else {
        page.append(sample.line);
      }
      page.append("\n");
    }
    samples_.clear();
    index_.clear();
  }

 private:
  struct Sample {
    std::string key;
    std::string_view line;  // of the page; "" = put together
    double value;
  };
  bool gauge_ = false;
  std::string key_;
  std::vector<Sample> samples_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace

std::string PageForClients(std::string_view page) {
  std::string out;
  out.reserve(page.size());
  Family family;
  while (!page.empty()) {
    const size_t end = std::min(page.find('\n'), page.size());
    const std::string_view line = page.substr(0, end);
    page.remove_prefix(std::min(end + 1, page.size()));
    if (line.starts_with("#")) {
      family.End(out);
      if (line.starts_with("# TYPE")) family.Begin(line.ends_with(" gauge"));
      out.append(line).append("\n");
    } else if (!line.empty()) {
      family.Add(line);
    }
  }
  family.End(out);
  return out;
}

}  // namespace llmd::gateway
