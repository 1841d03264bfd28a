// Between Envoy's ext_proc messages, as bytes, and the processor's plain values. Field numbers are
// those of services/proto; nothing is copied on the way but headers and what the processor keeps.
#pragma once

#include <span>
#include <string_view>

#include "common/wire_writer.h"
#include "epp/processor.h"

namespace llmd::epp {

using services::WireWriter;

// Feeds one serialized ProcessingRequest, which may lie in pieces, to the processor. False, and
// nothing fed, when it is malformed.
bool Dispatch(std::span<const std::string_view> message, Processor& processor);
// Writes a ProcessingResponse to an empty writer. A body with an owner becomes its tail; others are
// copied.
void WriteAnswer(const Answer& answer, WireWriter& out);

// A serialized HeaderMap: names in lower case; the value from raw_value, else value; repeated lines
// kept. False when malformed.
bool ReadHeaderMap(std::string_view map, HeaderList& out);
// A serialized Metadata, namespace envoy.lb.subset_hint: a list or a comma-separated string of
// ip:port.
SubsetHint ReadSubsetHint(std::string_view metadata);

}  // namespace llmd::epp
