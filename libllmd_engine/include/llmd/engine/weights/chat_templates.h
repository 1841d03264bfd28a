// The chat templates of a model file.
#pragma once

#include "llmd/engine/weights/gguf.h"
#include "llmd/text/chat_template.h"

namespace llmd::engine {

// Keys tokenizer.chat_template and tokenizer.chat_template.NAME for each NAME of the list
// tokenizer.chat_templates. One that does not parse is kept as its fault.
text::ChatTemplates ReadChatTemplates(const ModelFile& file);

}  // namespace llmd::engine
