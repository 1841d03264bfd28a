// The folder in which `llmd up` keeps the files of a cluster, and `llmd down` and `llmd explain`
// find them: $XDG_RUNTIME_DIR/llmd/<name>, else /tmp/llmd-<uid>/<name>. Anybody can make a folder
// of that name first, so it counts only when it belongs to us and nobody else may write there.
#pragma once

#include <string>

#include "llmd/status.h"

namespace llmd::cli {

std::string RunDirectory(const std::string& cluster_name);
// Makes it, readable and writable by its owner only. PERMISSION_DENIED when the folder above the
// clusters' is not ours alone.
Status MakeRunDirectory(const std::string& cluster_name);
// OK when there is none yet.
Status CheckRunDirectory();

// `path` as a folder of mode 0700 that is ours: made, or, if it stands there, checked: no link, our
// own, writable by nobody else. PERMISSION_DENIED otherwise.
Status MakePrivate(const std::string& path);

}  // namespace llmd::cli
