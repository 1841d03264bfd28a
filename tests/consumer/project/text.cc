#include "llmd/text/chat_template.h"
#include "llmd/text/tokenizer.h"

int main() {
  return llmd::text::ChatTemplate::Parse("{{ broken").ok() ? 1 : 0;
}
