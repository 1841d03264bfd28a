// How the gateway asks an endpoint picker, and what it does without one (`--epp`).
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "llmd/clock.h"

namespace llmd::gateway {

// How to reach it; PEM text.
struct PickerAddress {
  std::string target;      // "host:port"
  bool secure = false;     // TLS; without an authority any certificate is taken
  std::string authority;   // whose certificate the picker must show, for the target's host
  std::string chain, key;  // ours, for mTLS
};

struct ExtProcOptions {
  PickerAddress address;
  // A picker that owes something and gives no sign of life for so long, asked for one, is lost.
  // Answers under way get kAnswerPatience times that.
  Duration timeout = std::chrono::seconds(1);
  // How long a picker that lives may keep a request before it says where it goes: the longest TTL
  // of its queues, and a little more.
  Duration queue_timeout = std::chrono::seconds(65);
  // Without a picker requests go to the known endpoints in turn, instead of being refused with 503.
  bool open = false;
  std::vector<std::string> endpoints;  // "ip:port", known from the start

  static constexpr int kAnswerPatience = 5;
  // For the head of an answer and its end, of a picker that lives.
  static constexpr Duration kAnswerLimit = std::chrono::seconds(30);
};

}  // namespace llmd::gateway
