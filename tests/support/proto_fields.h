// The fields of a protobuf message as text, for comparisons.
#pragma once

#include <string>
#include <string_view>

#include "llmd/proto_wire.h"

namespace llmd {

// "field:value " of every field.
inline std::string ShownFields(std::string_view bytes) {
  std::string out;
  WireFields f(bytes);
  while (f.Next()) {
    out += std::to_string(f.field()) + ":" +
           (f.type() == WireType::kVarint ? std::to_string(f.number()) : std::string(f.bytes())) +
           " ";
  }
  return f.ok() ? out : out + "malformed";
}

}  // namespace llmd
