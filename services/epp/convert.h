// Between Envoy's ext_proc messages and the processor's plain values.
#pragma once

#include "envoy/service/ext_proc/v3/external_processor.pb.h"
#include "epp/processor.h"

namespace llmd::epp {

// Names in lower case; the value from raw_value, else value; repeated lines kept.
HeaderList ToHeaderList(const envoy::config::core::v3::HeaderMap& map);
// Namespace envoy.lb.subset_hint: a list or a comma-separated string of ip:port.
SubsetHint ToSubsetHint(const envoy::config::core::v3::Metadata& metadata);
// Feeds one message to the processor. Takes the body out of the message.
void Dispatch(envoy::service::ext_proc::v3::ProcessingRequest& message, Processor& processor);
// Fills an empty `out`.
void FromAnswer(const Answer& answer, envoy::service::ext_proc::v3::ProcessingResponse& out);

}  // namespace llmd::epp
