// A request's headers as the picker wants them.
#pragma once

#include <string_view>

#include "llmd/http/head_view.h"
#include "llmd/sched/director.h"

namespace llmd::gateway {

// Pseudo headers first, names in lower case, repeats kept; lines of one connection and routing
// headers that a client must not set are left out. Into `out`, whose strings are used again.
// `request_id` stands for the client's own line, if there was one.
void FillPickerHeaders(const http::RequestView& request, bool tls, std::string_view request_id,
                       sched::HeaderList& out);
// The lines of an answer, names in lower case.
void FillAnswerHeaders(const http::HeaderLines& lines, sched::HeaderList& out);

}  // namespace llmd::gateway
