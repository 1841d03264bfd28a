// The metrics page as clients may see it: it names no engine.
#pragma once

#include <string>
#include <string_view>

namespace llmd::gateway {

// A page in Prometheus' text format without the labels that name engines. Counters and histograms
// that differ by nothing else are added up; gauges of single engines are left out.
std::string PageForClients(std::string_view page);

}  // namespace llmd::gateway
