// What the picker changes in a request: its headers and, by splice, its body.
#pragma once

#include <string_view>
#include <vector>

#include "llmd/sched/director.h"

namespace llmd::sched {

// Header names a client may not pass on to a model server, in the order they are checked.
bool IsControlHeader(std::string_view name);
// The names of `headers` that must be removed, each once; those in `keep` are set by us instead.
std::vector<std::string> ControlHeadersOf(const HeaderList& headers, const HeaderList& keep);
// The value of a header or of its old spelling.
std::string_view EitherHeader(const RequestContext& request, std::string_view name,
                              std::string_view alias);

// Drops the client's kv_transfer_params, however its key is spelled, and writes `model` as the
// body's model when it differs from the client's ("" = leave it). Sorted, disjoint. Takes the
// members as the parser scanned them; of a body that none has read (api kNone) it looks for them
// itself and leaves the model.
std::vector<BodyEdit> EditsOf(const RequestContext& request, std::string_view model);

}  // namespace llmd::sched
