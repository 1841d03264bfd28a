#include "llmd/text/chat_template.h"

#include "fuzz/fuzz.h"

FUZZ_TARGET(chat_template) {
  const llmd::text::TemplateLimits limits{
      .max_steps = 5000, .max_output_bytes = 1 << 16, .max_depth = 40};
  const auto parsed = llmd::text::ChatTemplate::Parse(input, limits);
  if (!parsed.ok()) return;
  static const auto variables = llmd::json::Parse(
      R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":["a",1,null]}],
          "tools":[{"name":"f","n":-9223372036854775808}],"bos_token":"<s>","x":2.5})");
  FUZZ_EXPECT(variables.ok());
  const auto text = (*parsed)->Render(*variables);
  if (text.ok()) FUZZ_EXPECT(text->size() <= limits.max_output_bytes);
  (void)(*parsed)->content_is_list();
}
