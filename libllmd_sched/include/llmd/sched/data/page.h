// Which page of an endpoint is read, how often and over what.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "llmd/clock.h"

namespace llmd::sched {

// How a page is read over TLS.
struct PageTls {
  bool verify = false;     // the certificate, and that it is made out to the address asked
  std::string ca;          // PEM of whom to believe; "" = whom the system believes
  std::string chain, key;  // PEM to show; "" = none
};

struct PageSpec {
  std::string path = "/metrics";
  uint16_t port = 0;    // 0 = the endpoint's own
  Duration interval{};  // 0 = --refresh-metrics-interval
  // The endpoint's label that holds the address to ask; "" = the endpoint's own address.
  std::string address_label = {};
  std::shared_ptr<const PageTls> tls = {};  // null = clear text
};

}  // namespace llmd::sched
