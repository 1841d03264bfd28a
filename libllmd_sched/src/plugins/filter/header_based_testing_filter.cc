// For conformance tests: the request itself names the endpoints (docs/reference/filters.md).
#include <algorithm>

#include "llmd/sched/filter.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

constexpr std::string_view kHeader = "test-epp-endpoint-selection";

class HeaderBasedTestingFilter final : public Filter {
 public:
  void Keep(RequestContext& request, const Snapshot& snapshot,
            std::vector<uint32_t>& candidates) override {
    std::vector<uint32_t> kept;
    std::string_view rest = request.Header(kHeader);
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      std::string_view one = rest.substr(0, comma);
      rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
      while (one.starts_with(' ')) one.remove_prefix(1);
      while (one.ends_with(' ')) one.remove_suffix(1);
      for (uint32_t c : candidates) {
        const bool named = one == snapshot.info(c).address || one == snapshot.set->host_ports[c];
        if (named && std::find(kept.begin(), kept.end(), c) == kept.end()) kept.push_back(c);
      }
    }
    candidates.swap(kept);
  }
};

}  // namespace

Status RegisterHeaderBasedTestingFilter(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "header-based-testing-filter",
                    .kind = "filter",
                    .help = "For conformance tests: keeps the endpoints (IP or IP:port) that the "
                            "header test-epp-endpoint-selection lists, in its order; none without "
                            "the header.",
                    .make = Simple<HeaderBasedTestingFilter>()});
}

}  // namespace llmd::sched
