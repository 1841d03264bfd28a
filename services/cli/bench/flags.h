// The command line of `llmd bench`.
#pragma once

#include <string>
#include <vector>

#include "cli/bench/options.h"
#include "common/flags.h"

namespace llmd::bench {

// Options from flags, on top of a --profile. `exit` set: leave with `code`, everything was said.
struct CommandLine {
  Options options;
  bool exit = false;
  int code = 0;
};
CommandLine ReadCommandLine(int argc, const char* const* argv);

// "name=a,weight=3,model=m,fairness-id=f,api-key=k,api-key-file=PATH,header=Name:value".
StatusOr<Tenant> ParseTenant(std::string_view text);
// An integer from 1 to `max`.
StatusOr<uint64_t> ParseCount(std::string_view text, uint64_t max);
// Adds "Name: value". INVALID_ARGUMENT: no such line, or a header that is not the caller's to set.
Status AddHeader(std::string_view text, http::Headers& headers);
// A file of at most 256 MiB. NOT_FOUND, INVALID_ARGUMENT.
StatusOr<std::string> ReadFile(const std::string& path);
// The first line of a file. NOT_FOUND.
StatusOr<std::string> ReadKeyFile(const std::string& path);
// "ttft:500ms,tpot:50ms,e2e:10s"; bare numbers are milliseconds.
StatusOr<Slo> ParseSlo(std::string_view text);
// "rate=10,duration=30s", "concurrency=8,requests=100".
StatusOr<Stage> ParseStage(std::string_view text);

}  // namespace llmd::bench
