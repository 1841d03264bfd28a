// gRPC's credentials for an endpoint picker.
#pragma once

#include <memory>

#include "gateway/ext_proc_options.h"

namespace grpc {
class ChannelCredentials;
}

namespace llmd::gateway {

std::shared_ptr<grpc::ChannelCredentials> PickerCredentials(const PickerAddress& address);

}  // namespace llmd::gateway
