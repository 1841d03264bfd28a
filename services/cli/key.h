// llmd key: makes, lists, disables and removes the keys of llmd-gateway --api-keys-file.
#pragma once

namespace llmd::cli {

// `argv[1]` is the word after `key`. The exit code: 0, 1 for what could not be done, 2 for a wrong
// command line.
int RunKey(int argc, const char* const* argv);

}  // namespace llmd::cli
