// How the gateway reaches an endpoint picker.
#pragma once

#include <memory>
#include <string>

namespace grpc {
class ChannelCredentials;
}

namespace llmd::gateway {

// PEM text.
struct PickerAddress {
  std::string target;      // "host:port"
  bool secure = false;     // TLS; without an authority any certificate is taken
  std::string authority;   // whose certificate the picker must show, for the target's host
  std::string chain, key;  // ours, for mTLS
};

std::shared_ptr<grpc::ChannelCredentials> PickerCredentials(const PickerAddress& address);

}  // namespace llmd::gateway
