#include "llmd/engine/weights/chat_templates.h"

#include <string>

namespace llmd::engine {

text::ChatTemplates ReadChatTemplates(const ModelFile& file) {
  text::ChatTemplates templates;
  if (!file.chat_template().empty()) templates.Add("default", file.chat_template());
  const auto names = file.gguf().Strings("tokenizer.chat_templates");
  if (!names) return templates;
  for (const std::string_view name : *names) {
    const auto source = file.gguf().String("tokenizer.chat_template." + std::string(name));
    if (source) templates.Add(name, *source);
  }
  return templates;
}

}  // namespace llmd::engine
