// Architectures by the name a model file gives them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "llmd/engine/backend.h"
#include "llmd/engine/model.h"
#include "llmd/engine/weights/gguf.h"

namespace llmd::engine {

using ModelFactory = StatusOr<std::unique_ptr<Model>> (*)(const ModelFile& file,
                                                          const ModelOptions& options,
                                                          std::unique_ptr<Backend> backend);

// UNIMPLEMENTED lists the known names.
StatusOr<ModelFactory> FindArchitecture(const std::string& name);
std::vector<std::string> KnownArchitectures();

}  // namespace llmd::engine
