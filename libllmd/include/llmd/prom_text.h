// Reads chosen series out of a Prometheus text page (format 0.0.4) without parsing the rest of it:
// a line costs a search for its end and one byte compared per chosen name. For scraping engines
// many times a second.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace llmd {

// One line of a chosen name. The views point into the page.
struct PromSample {
  size_t name;  // index into the scanner's names
  std::string_view
      labels;  // what stands between the braces, escapes as written; empty without labels
  double value;
  int64_t timestamp_ms = 0;  // 0 = the line has none
};

struct PromScanResult {
  size_t samples = 0;    // given to the callback
  size_t malformed = 0;  // lines of chosen names that could not be read, skipped
};

// Immutable after construction; thread-safe. Scanning allocates nothing.
class PromScanner {
 public:
  // Full sample names, histograms with their suffix ("vllm:e2e_request_latency_seconds_sum").
  explicit PromScanner(std::vector<std::string> names) : names_(std::move(names)) {}

  // Calls `each(const PromSample&)` for every chosen sample, in the order of the page.
  template <typename Each>
  PromScanResult Scan(std::string_view page, Each&& each) const {
    return ScanWith(
        page,
        [](void* context, const PromSample& sample) {
          (*static_cast<std::remove_reference_t<Each>*>(context))(sample);
        },
        const_cast<void*>(static_cast<const void*>(std::addressof(each))));
  }

  const std::vector<std::string>& names() const { return names_; }

 private:
  using Callback = void (*)(void* context, const PromSample& sample);
  PromScanResult ScanWith(std::string_view page, Callback callback, void* context) const;

  std::vector<std::string> names_;
};

// The value of a label inside `labels` as PromSample has it, escapes as written; nothing when
// absent or malformed.
std::optional<std::string_view> FindLabel(std::string_view labels, std::string_view name);
// Undoes \\ \" and \n.
std::string UnescapeLabel(std::string_view raw);

}  // namespace llmd
