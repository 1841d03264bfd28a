// What every part of serving needs: the engine, the text side, and the server's settings.
// References must outlive the services. Thread-safe: everything in it is immutable or thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmd/clock.h"
#include "llmd/engine/engine.h"
#include "llmd/log.h"
#include "llmd/openai/request.h"
#include "llmd/text/chat_template.h"
#include "llmd/text/tokenizer.h"
#include "llmd/tracing.h"

namespace llmd::engine::serving {

class ServingMetrics;

struct ServingOptions {
  std::vector<std::string>
      model_names;         // accepted names; the first one is in every reply. At least one
  std::string model_root;  // path of the weights
  int max_model_len = 0;   // tokens, prompt and output together
  int vocab_size = 0;      // ids at or above are refused
  int max_logprobs = 20;   // --max-logprobs; -1 = vocabulary
  bool enable_prompt_tokens_details = false;
  bool force_include_usage = false;
  bool log_requests = true;
  size_t max_log_chars = 2048;  // of a prompt in the log
  std::string response_role = "assistant";
  std::string system_fingerprint;
  int64_t created = 0;  // Unix seconds of the model cards
  openai::ParseLimits parse;
};

struct ServingContext {
  Engine& engine;
  const text::Tokenizer& tokenizer;
  const text::ChatTemplates& chat_templates;  // without one that parses chat is refused
  ServingMetrics& metrics;
  const Clock& clock;
  Logger logger;
  ServingOptions options;
  Tracer* tracer = nullptr;  // of sampled requests
};

// What the transport knows of a request besides its body.
struct RequestMeta {
  TimePoint arrival{};
  std::string request_id;       // X-Request-Id; "" = the body's, else a fresh one
  std::optional<int> priority;  // X-Vllm-Priority
  // The identity of the request's span and what it hangs on (0 = nothing). Recorded where it is
  // sampled and the context has a tracer.
  TraceContext trace;
  uint64_t trace_parent = 0;
};

}  // namespace llmd::engine::serving
