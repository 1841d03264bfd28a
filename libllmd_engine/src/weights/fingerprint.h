// What tells models apart by the keys and values they make.
#pragma once

#include <string>

#include "llmd/engine/model_config.h"
#include "llmd/engine/weights/gguf.h"

namespace llmd::engine {

// ModelFile::fingerprint. Reads every byte of the tensors once, in the order of their names.
std::string Fingerprint(const GgufFile& gguf, const ModelConfig& config);

}  // namespace llmd::engine
