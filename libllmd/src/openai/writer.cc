#include "writer.h"

#include <algorithm>

namespace llmd::openai {

int CharCount(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

namespace writer {
namespace {

template <typename Range, typename Fn>
void List(std::string& out, const Range& range, Fn&& element) {
  out += '[';
  bool first = true;
  for (const auto& item : range) {
    if (!first) out += ',';
    first = false;
    element(item);
  }
  out += ']';
}

// The dictionary of a completion's position. Two ids may spell alike: the likelier one, which comes
// first, stays.
void TopDictionary(std::string& out, const PositionLogprobs& position) {
  if (!position.predicted) {
    out += "null";
    return;
  }
  std::vector<std::string_view> seen;
  out += '{';
  const auto add = [&](const TokenLogprob& entry) {
    if (std::find(seen.begin(), seen.end(), entry.token) != seen.end()) return;
    if (!seen.empty()) out += ',';
    seen.push_back(entry.token);
    Text(out, entry.token);
    out += ':';
    Number(out, entry.logprob);
  };
  add(position.chosen);
  for (const TokenLogprob& entry : position.top) add(entry);
  out += '}';
}

void ChatEntry(std::string& out, const TokenLogprob& entry) {
  out += R"({"token":)";
  Text(out, entry.token);
  out += R"(,"logprob":)";
  Number(out, entry.logprob);
  out += R"(,"bytes":)";
  List(out, entry.bytes, [&](char c) { Int(out, static_cast<unsigned char>(c)); });
}

void PromptEntry(std::string& out, const TokenLogprob& entry) {
  out += '"';
  Int(out, entry.id);
  out += R"(":{"logprob":)";
  Number(out, entry.logprob);
  out += R"(,"rank":)";
  Int(out, entry.rank);
  out += R"(,"decoded_token":)";
  Text(out, entry.token);
  out += '}';
}

}  // namespace

void Stop(std::string& out, const StopReason& reason) {
  if (const auto* text = std::get_if<std::string>(&reason)) {
    Text(out, *text);
  } else if (const auto* id = std::get_if<int32_t>(&reason)) {
    Int(out, *id);
  } else {
    out += "null";
  }
}

void UsageObject(std::string& out, const Usage& usage, bool with_nulls) {
  out += R"({"prompt_tokens":)";
  Int(out, usage.prompt_tokens);
  out += R"(,"total_tokens":)";
  Int(out, int64_t{usage.prompt_tokens} + usage.completion_tokens);
  out += R"(,"completion_tokens":)";
  Int(out, usage.completion_tokens);
  if (usage.cached_tokens) {
    out += R"(,"prompt_tokens_details":{"cached_tokens":)";
    Int(out, *usage.cached_tokens);
    out += R"(,"created_cache_tokens":null,"multimodal_tokens":null})";
  } else if (with_nulls) {
    out += R"(,"prompt_tokens_details":null)";
  }
  if (with_nulls) out += R"(,"completion_tokens_details":null)";
  out += '}';
}

void CompletionLogprobs(std::string& out,
                        const std::optional<std::vector<PositionLogprobs>>& positions,
                        int text_offset) {
  if (!positions) {
    out += "null";
    return;
  }
  out += R"({"text_offset":)";
  List(out, *positions, [&](const PositionLogprobs& position) {
    Int(out, text_offset);
    text_offset += CharCount(position.chosen.token);
  });
  out += R"(,"token_logprobs":)";
  List(out, *positions, [&](const PositionLogprobs& position) {
    if (position.predicted) {
      Number(out, position.chosen.logprob);
    } else {
      out += "null";
    }
  });
  out += R"(,"tokens":)";
  List(out, *positions,
       [&](const PositionLogprobs& position) { Text(out, position.chosen.token); });
  out += R"(,"top_logprobs":)";
  List(out, *positions, [&](const PositionLogprobs& position) { TopDictionary(out, position); });
  out += '}';
}

void ChatLogprobs(std::string& out, const std::optional<std::vector<PositionLogprobs>>& positions) {
  if (!positions) {
    out += "null";
    return;
  }
  out += R"({"content":)";
  List(out, *positions, [&](const PositionLogprobs& position) {
    ChatEntry(out, position.chosen);
    out += R"(,"top_logprobs":)";
    List(out, position.top, [&](const TokenLogprob& entry) {
      ChatEntry(out, entry);
      out += '}';
    });
    out += '}';
  });
  out += '}';
}

void PromptLogprobs(std::string& out,
                    const std::optional<std::vector<PositionLogprobs>>& positions) {
  if (!positions) {
    out += "null";
    return;
  }
  List(out, *positions, [&](const PositionLogprobs& position) {
    if (!position.predicted) {
      out += "null";
      return;
    }
    out += '{';
    PromptEntry(out, position.chosen);
    for (const TokenLogprob& entry : position.top) {
      if (entry.id == position.chosen.id) continue;
      out += ',';
      PromptEntry(out, entry);
    }
    out += '}';
  });
}

}  // namespace writer
}  // namespace llmd::openai
