// The headers by which router and sidecar tell each other where a request goes. A client's copies
// neither steer nor pass, and no engine sees them.
#pragma once

#include <array>
#include <string_view>

namespace llmd::http {

inline constexpr std::array kRoutingHeaders = {
    std::string_view("x-gateway-destination-endpoint"),
    std::string_view("x-gateway-destination-endpoint-subset"),
    std::string_view("x-prefiller-host-port"),
    std::string_view("x-prefiller-url"),
    std::string_view("x-data-parallel-host-port"),
    std::string_view("x-encoder-hosts-ports"),
    std::string_view("x-kv-cache-source-host-port")};

// On an answer of a sidecar's own: how its engine failed it ("refused", "reset", "timeout",
// "protocol"), or "prefill" when a prefiller did. Who stands in front may try elsewhere.
inline constexpr std::string_view kUpstreamFailure = "x-llmd-upstream-failure";

// Without regard to case.
bool IsRoutingHeader(std::string_view name);

}  // namespace llmd::http
