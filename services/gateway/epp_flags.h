// The gateway's flags for a picker of its own (--epp).
#pragma once

#include <string>

#include "common/flags.h"
#include "gateway/ext_proc_options.h"
#include "llmd/status.h"

namespace llmd::gateway {

struct EppFlags {
  std::string target, ca_file, cert_path, failure_mode = "close";  // target "": none
  bool secure = false, none = false;
  ExtProcOptions asking;  // but its address
};

void AddEppFlags(services::FlagSet& set, EppFlags& flags);
// INVALID_ARGUMENT names the flag. Reads no file.
Status CheckEppFlags(const EppFlags& flags);
// With a target; reads the files that are named.
StatusOr<ExtProcOptions> ToExtProcOptions(const EppFlags& flags);

}  // namespace llmd::gateway
