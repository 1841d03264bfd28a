// A run as an SVG picture: percentiles over time above, the distribution below.
#pragma once

#include <string>

#include "cli/bench/run.h"

namespace llmd::bench {

// A whole SVG document. TTFT is drawn where streams gave one, end to end always; the dashed line
// shows failures a second.
std::string SvgChart(const Options& options, const Result& result);

}  // namespace llmd::bench
