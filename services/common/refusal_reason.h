// Why the HTTP layer refused a request, as a label: few words for its many texts.
#pragma once

#include <array>
#include <string_view>

namespace llmd::services {

inline constexpr std::array<std::string_view, 13> kRefusalReasons = {
    "request_line", "version",          "header",    "host",      "framing",
    "expectation",  "head_size",        "body_size", "head_slow", "body_slow",
    "connections",  "bodies_in_flight", "other"};

// `message` is one of the HTTP layer's own texts. The index in kRefusalReasons.
size_t RefusalReason(int status, std::string_view message);

}  // namespace llmd::services
